package hcm

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// TestSizesOnTheWire: on both sides of every pair of versions there is the body, its head, and little
// else; and nobody counts where nobody asks.
func TestSizesOnTheWire(t *testing.T) {
	const size = 200_000
	bridges(t, func(t *testing.T, down, up int) {
		b := versionedBed(t, down, up, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("x-long", strings.Repeat("h", 500))
			_, _ = io.WriteString(w, strings.Repeat("a", size))
		})
		b.cfg.AccessLog[0].Format = "%DOWNSTREAM_WIRE_BYTES_RECEIVED% %DOWNSTREAM_WIRE_BYTES_SENT% %UPSTREAM_WIRE_BYTES_SENT% %UPSTREAM_WIRE_BYTES_RECEIVED% " +
			"%DOWNSTREAM_HEADER_BYTES_RECEIVED% %DOWNSTREAM_HEADER_BYTES_SENT% %UPSTREAM_HEADER_BYTES_SENT% %UPSTREAM_HEADER_BYTES_RECEIVED% " +
			"%DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED% %DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_SENT% %UPSTREAM_DECOMPRESSED_HEADER_BYTES_SENT% %UPSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED%\n"
		b.start()
		resp, err := b.httpClient(down).Post("http://"+b.addr+"/", "text/plain", strings.NewReader(strings.Repeat("a", size)))
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(resp.Body); err != nil || len(body) != size {
			t.Fatal(len(body), err)
		}
		_ = resp.Body.Close()
		line := b.logged(1)[0]
		var wire, heads, plain [4]int
		if n, err := fmt.Sscan(line, &wire[0], &wire[1], &wire[2], &wire[3], &heads[0], &heads[1], &heads[2], &heads[3], &plain[0], &plain[1], &plain[2], &plain[3]); n != 12 {
			t.Fatal(line, err)
		}
		for i := range wire {
			if extra := wire[i] - size; extra < heads[i] || extra > heads[i]+2000 {
				t.Errorf("%d bytes beyond the body, %d of them heads: %s", extra, heads[i], line)
			}
			if plain[i] < 50 || (i == 1 || i == 3) && plain[i] < 500 {
				t.Errorf("%d bytes of names and values: %s", plain[i], line)
			}
		}
	})
}

func TestHeadsAreCounted(t *testing.T) {
	var m message.Meter
	headReceived(&m, []byte("\r\nGET / HTTP/1.1\r\nA:  b \r\nLong-Name:\r\n\r\n"))
	headSent(&m, []byte("HTTP/1.1 200 OK\r\na: b\r\n\r\n"))
	if m.HeaderReceived.Load() != 1+1+3+9+3 || m.WireReceived.Load() != 40 || m.HeaderSent.Load() != 6 || m.PlainSent.Load() != 6 {
		t.Error(m.HeaderReceived.Load(), m.WireReceived.Load(), m.HeaderSent.Load(), m.PlainSent.Load())
	}
	headReceived(nil, []byte("a"))
	headSent(nil, []byte("a"))
	var none *message.Meter
	none.Add(&m)
	m.Add(none)
	var sum message.Meter
	sum.Add(&m)
	sum.Add(&m)
	if sum.WireReceived.Load() != 80 {
		t.Error(sum.WireReceived.Load())
	}
}

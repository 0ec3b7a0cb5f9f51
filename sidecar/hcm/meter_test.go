package hcm

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// TestSizesOnTheWire: on both sides of every pair of versions there is the body, its head, and little
// else.
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

// TestSizesOfHedgedRequests: the log has what all attempts sent and got, and of the one that is
// relayed what came after its head, too.
func TestSizesOfHedgedRequests(t *testing.T) {
	const size = 200_000
	for _, first := range []string{"in time", "late"} {
		t.Run(first, func(t *testing.T) {
			bridges(t, func(t *testing.T, down, up int) {
				var seen atomic.Int32
				b := versionedBed(t, down, up, func(w http.ResponseWriter, r *http.Request) {
					if seen.Add(1) == 1 && first == "late" {
						<-r.Context().Done()
						return
					}
					_ = http.NewResponseController(w).Flush()
					_, _ = io.WriteString(w, strings.Repeat("a", size))
				})
				f := b.route().Forward
				f.Hedge = &route.HedgePolicy{OnPerTryTimeout: true}
				f.Retry = &route.RetryPolicy{On: route.Retry5xx, NumRetries: 1, PerTryTimeout: 3 * time.Second}
				attempts := 1
				if first == "late" {
					f.Retry.PerTryTimeout, attempts = 100*time.Millisecond, 2
				}
				b.cfg.AccessLog[0].Format = "%UPSTREAM_WIRE_BYTES_RECEIVED% %UPSTREAM_DECOMPRESSED_HEADER_BYTES_SENT%\n"
				b.start()
				req, _ := http.NewRequest("GET", "http://"+b.addr+"/", nil)
				req.Header.Set("x-long", strings.Repeat("h", 2000))
				resp, err := b.httpClient(down).Do(req)
				if err != nil {
					t.Fatal(err)
				}
				if body, err := io.ReadAll(resp.Body); err != nil || len(body) != size {
					t.Fatal(len(body), err)
				}
				_ = resp.Body.Close()
				line := b.logged(1)[0]
				var received, sent int
				if n, err := fmt.Sscan(line, &received, &sent); n != 2 {
					t.Fatal(line, err)
				}
				if received < size || received > size+3000 || sent < attempts*2000 || sent > attempts*2000+1000 {
					t.Errorf("of %d attempts: %s", attempts, line)
				}
			})
		})
	}
}

// TestSizesOfRedirects: each request that is made for one of the client's has its own upstream
// sizes, and all have the client's.
func TestSizesOfRedirects(t *testing.T) {
	for _, version := range []int{1, 2} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			b, _ := redirectBed(t, "http://h/to")
			b.cfg.AccessLog[0].Format = "%DOWNSTREAM_WIRE_BYTES_RECEIVED% %DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED% %DOWNSTREAM_WIRE_BYTES_SENT% %UPSTREAM_DECOMPRESSED_HEADER_BYTES_SENT%\n"
			b.start()
			req, _ := http.NewRequest("POST", "http://"+b.addr+"/a", strings.NewReader(strings.Repeat("a", 1000)))
			req.Header.Set("x-long", strings.Repeat("h", 2000))
			resp, err := b.httpClient(version).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "other" {
				t.Fatal(string(body), err)
			}
			_ = resp.Body.Close()
			for i, line := range b.logged(2) {
				var received, heads, sent, upstream int
				if n, err := fmt.Sscan(line, &received, &heads, &sent, &upstream); n != 4 {
					t.Fatal(line, err)
				}
				if received < 2500 || received > 4500 || heads < 2000 || heads > 3000 || (sent > 0) != (i == 1) || upstream < 2000 || upstream > 3500 {
					t.Errorf("line %d: %s", i, line)
				}
			}
		})
	}
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
}

//go:build e2e

package floods

import (
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/e2e/conformance/bed"
)

// large is more than all windows and sockets on the way hold together.
const large = 64 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// pattern repeats at no distance that buffers have.
var pattern = func() []byte {
	b := make([]byte, 65521)
	for i, x := 0, uint32(1); i < len(b); i++ {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}()

// body is large bytes, and how many of them were taken.
type body struct{ taken atomic.Int64 }

func (b *body) Read(p []byte) (int, error) {
	at := b.taken.Load()
	if at == large {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), int(large-at))], pattern[at%int64(len(pattern)):])
	b.taken.Add(int64(n))
	return n, nil
}

// sum is the checksum of a whole body.
var sum = func() uint32 {
	h := crc32.New(castagnoli)
	_, _ = io.Copy(h, new(body))
	return h.Sum32()
}()

// slowly reads a body, with a rest until all that can hold some of it is full. By then
// the sender must have come to a stop.
func slowly(r io.Reader, sent *body) error {
	h := crc32.New(castagnoli)
	if _, err := io.CopyN(h, r, 1<<20); err != nil {
		return err
	}
	for before := int64(-1); before != sent.taken.Load(); time.Sleep(50 * time.Millisecond) {
		before = sent.taken.Load()
	}
	if n := sent.taken.Load(); n == large {
		return fmt.Errorf("all %d bytes were taken while nobody read them", n)
	}
	n, err := io.Copy(h, r)
	if n += 1 << 20; err != nil || n != large || h.Sum32() != sum {
		return fmt.Errorf("%d of %d bytes with sum %x, want %x: %w", n, large, h.Sum32(), sum, err)
	}
	return nil
}

// largeOrigin takes large requests and gives large answers. The other side's counter is the
// one whose number the path has.
func largeOrigin(t *testing.T, version int, bodies []*body) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Protocols: protocols(version), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i, _ := strconv.Atoi(r.URL.Query().Get("body"))
		if r.Method == http.MethodPost {
			if err := slowly(r.Body, bodies[i]); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
			}
			return
		}
		if r.URL.Query().Has("length") {
			w.Header().Set("Content-Length", strconv.Itoa(large))
		}
		_, _ = io.Copy(w, struct{ io.Reader }{bodies[i]})
	})}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return l.Addr().String()
}

func protocols(version int) *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(version == 1)
	p.SetUnencryptedHTTP2(version == 2)
	return p
}

// TestLargeBodies: bodies that no window holds pass every bridge both ways at once, whole and
// in order, to readers that rest; what the sidecar holds of them meanwhile is what the
// windows are that it grants.
func TestLargeBodies(t *testing.T) {
	for _, tc := range []struct {
		name, options string
		length        bool
		memory        int64
	}{
		{"small windows", "{initial_stream_window_size: 65535, initial_connection_window_size: 65535}", true, 12 * mb},
		// Four bodies arrive over HTTP/2, on connections of their own: 24 MB each.
		{"Envoy's windows", "{}", false, 4*24*mb + 16*mb},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bodies := make([]*body, 8)
			for i := range bodies {
				bodies[i] = new(body)
			}
			f := &field{t: t, addr: bed.Addr(t)}
			to := map[int]string{1: bed.Addr(t), 2: bed.Addr(t)}
			options := "codec_type: AUTO, http2_protocol_options: " + tc.options
			f.s = bed.StartWith(t, []bed.Cluster{
				{Name: "origin", Addr: origin(t, nil)},
				{Name: "one", Addr: largeOrigin(t, 1, bodies)},
				{Name: "two", Addr: largeOrigin(t, 2, bodies), HTTP2: tc.options},
			}, bed.Listener{Addr: f.addr},
				bed.Listener{Addr: to[1], Options: options, Forward: "cluster: one, timeout: 0s"},
				bed.Listener{Addr: to[2], Options: options, Forward: "cluster: two, timeout: 0s"})
			f.during(loss{tc.memory, unfelt}, func() {
				all := make(chan error, len(bodies))
				for i := range bodies {
					down, up, upload := 1+i>>1&1, 1+i&1, i>>2 == 0
					go func() {
						if err := pass(down, to[up], bodies[i], i, upload, tc.length); err != nil {
							err = fmt.Errorf("%d to %d, upload %v: %w", down, up, upload, err)
							all <- err
							return
						}
						all <- nil
					}()
				}
				for range bodies {
					if err := <-all; err != nil {
						t.Error(err)
					}
				}
			})
		})
	}
}

// pass has one body pass a bridge.
func pass(version int, addr string, b *body, i int, upload, length bool) error {
	tr := &http.Transport{Protocols: protocols(version), DisableCompression: true}
	defer tr.CloseIdleConnections()
	method, url := http.MethodGet, fmt.Sprintf("http://%s/?body=%d", addr, i)
	if length {
		url += "&length"
	}
	var content io.Reader
	if upload {
		method, content = http.MethodPost, struct{ io.Reader }{b}
	}
	req, err := http.NewRequest(method, url, content)
	if err != nil {
		return err
	}
	if upload && length {
		req.ContentLength = large
	}
	resp, err := (&http.Client{Transport: tr, Timeout: 60 * time.Second}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 || resp.ProtoMajor != version {
		said, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return fmt.Errorf("%d over HTTP/%d: %s", resp.StatusCode, resp.ProtoMajor, said)
	}
	if upload {
		return nil
	}
	return slowly(resp.Body, b)
}

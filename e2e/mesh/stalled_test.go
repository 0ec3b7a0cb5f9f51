//go:build e2e

package mesh

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

// floods sends without end, or reads nothing of what it is sent, until the test is over.
func floods(sent *atomic.Int64, over <-chan struct{}) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/flood", func(w http.ResponseWriter, _ *http.Request) {
		for block := make([]byte, 64<<10); ; {
			n, err := w.Write(block)
			if sent.Add(int64(n)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/hold", func(http.ResponseWriter, *http.Request) { <-over })
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		_, _ = w.Write(b)
	})
	return mux
}

// TestStalledRequests: one connection carries all requests of a service to an instance. Those
// whose client, or whose application, reads nothing hold up no other in either direction.
func TestStalledRequests(t *testing.T) {
	m := newFilesMesh(t)
	m.file("api.hcl", `
config_entry { Kind = "service-defaults" Name = "api" Protocol = "http" }
config_entry { Kind = "service-intentions" Name = "api" Sources = [{ Name = "web" Action = "allow" }] }`)
	var sent atomic.Int64
	over := make(chan struct{})
	t.Cleanup(func() { close(over) })
	api := m.workload(spec{id: "api-1", service: "api", handler: floods(&sent, over)})
	web := m.workload(spec{id: "web-1", service: "web", upstreams: []string{"api"}})
	echoes := func(what string) {
		t.Helper()
		m.eventually(10*second, what, func() error { return web.echo(2 * second) })
	}
	echoes("the mesh is up")
	for range 40 { // more than a connection's window would hold of streams of 1 MiB
		_, _ = io.WriteString(web.silent(t), "GET /flood HTTP/1.1\r\nHost: api\r\n\r\n")
	}
	standstill(&sent)
	echoes("downloads that nobody reads")
	block := make([]byte, 64<<10)
	for range 40 {
		c := web.silent(t)
		_, _ = io.WriteString(c, "POST /hold HTTP/1.1\r\nHost: api\r\nContent-Length: 100000000\r\n\r\n")
		for {
			_ = c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
			if _, err := c.Write(block); err != nil {
				break // as full as it gets
			}
		}
	}
	echoes("uploads that nobody reads")
	conns := map[any]bool{}
	for _, r := range api.records(func(r map[string]any) bool { return r["path"] == "/echo" }) {
		conns[r["connection"]] = true
	}
	if len(conns) != 1 {
		t.Errorf("%d connections between the sidecars", len(conns))
	}
}

// silent is a client's connection whose socket takes little.
func (w *workload) silent(t *testing.T) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", w.upstreams["api"])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	tcp := c.(*net.TCPConn)
	_, _ = tcp.SetReadBuffer(16<<10), tcp.SetWriteBuffer(16<<10)
	return tcp
}

// echo has 256 KB said back, within the time.
func (w *workload) echo(limit time.Duration) error {
	const size = 256 << 10
	client := &http.Client{Timeout: limit, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Post("http://"+w.upstreams["api"]+"/echo", "", io.LimitReader(zeros{}, size))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err != nil || resp.StatusCode != 200 || n != size {
		return fmt.Errorf("%s with %d bytes: %v", resp.Status, n, err)
	}
	return nil
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// standstill waits until nothing is sent any more.
func standstill(sent *atomic.Int64) {
	for last, same := int64(-1), 0; same < 5; time.Sleep(50 * time.Millisecond) {
		if n := sent.Load(); n != last || n == 0 {
			last, same = n, 0
		} else {
			same++
		}
	}
}

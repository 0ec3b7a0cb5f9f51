//go:build e2e

package mesh

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/interop/grpc_testing"
)

// load is the open-loop traffic of DESIGN 6: 500 requests a second, every other one a
// POST, client retries off. A workload with the upstream "rpc" makes 100 unary calls of
// gRPC a second besides, and opens and ends streams that live for half a second.
type load struct {
	w        *workload
	stop     chan struct{}
	wg       sync.WaitGroup
	sent     atomic.Int64
	calls    atomic.Int64
	streams  atomic.Int64
	mu       sync.Mutex
	failures []string
}

func startLoad(w *workload) *load {
	l := &load{w: w, stop: make(chan struct{})}
	// Its patience is that of a client on a host which is busy, too: what hangs does so for ever.
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 256, MaxIdleConns: 256}}
	l.pace(2*time.Millisecond, func(n int) { l.one(client, n) })
	if w.upstreams["rpc"] != "" {
		rpc := w.rpc("rpc")
		l.pace(10*time.Millisecond, func(int) { l.unary(rpc) })
		l.pace(100*time.Millisecond, func(int) { l.stream(rpc) })
	}
	return l
}

// pace calls one at an even rate, each on a goroutine of its own, until the load ends.
func (l *load) pace(every time.Duration, one func(n int)) {
	l.wg.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		began := time.Now()
		for n := 0; ; {
			select {
			case <-l.stop:
				return
			case <-tick.C:
			}
			// A tick that came late sends what is due since the last.
			for due := int(time.Since(began) / every); n < due; n++ {
				l.wg.Go(func() { one(n) })
			}
		}
	})
}

func (l *load) one(client *http.Client, n int) {
	method, body := http.MethodGet, []byte(nil)
	if n%2 == 1 {
		method, body = http.MethodPost, bytes.Repeat([]byte("x"), 1024)
	}
	// A reader that is not one of net/http's own cannot be replayed, so the
	// client does not retry.
	req, err := http.NewRequest(method, "http://"+l.w.upstreams["api"]+"/", struct{ io.Reader }{bytes.NewReader(body)})
	if err != nil {
		l.fail(err.Error())
		return
	}
	req.ContentLength = int64(len(body))
	if len(body) == 0 {
		req.Body = nil
	}
	l.sent.Add(1)
	resp, err := client.Do(req)
	if err != nil {
		l.fail(fmt.Sprintf("%s %s: %v", time.Now().Format("05.000"), method, err))
		return
	}
	b, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || resp.StatusCode != 200 {
		l.fail(fmt.Sprintf("%s %s: %d %q %v", time.Now().Format("05.000"), method, resp.StatusCode, b, err))
	}
}

func (l *load) unary(client grpc_testing.TestServiceClient) {
	l.calls.Add(1)
	if _, err := call(client, "", false); err != nil {
		l.fail(fmt.Sprintf("%s unary: %v", time.Now().Format("05.000"), err))
	}
}

// stream opens a stream, uses it for half a second, and ends it.
func (l *load) stream(client grpc_testing.TestServiceClient) {
	l.streams.Add(1)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	d, err := openDuplex(ctx, client)
	for range 5 {
		if err != nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
		err = d.beat()
	}
	if err == nil {
		err = d.end()
	}
	if err != nil {
		l.fail(fmt.Sprintf("%s stream: %v", time.Now().Format("05.000"), err))
	}
}

func (l *load) fail(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failures = append(l.failures, s)
}

func (l *load) end(t *testing.T, what string) {
	t.Helper()
	close(l.stop)
	l.wg.Wait()
	all := l.sent.Load() + l.calls.Load() + l.streams.Load()
	t.Logf("%s: %d requests, %d calls, %d streams; %d failed", what, l.sent.Load(), l.calls.Load(), l.streams.Load(), len(l.failures))
	for i, f := range l.failures {
		if i == 5 {
			break
		}
		t.Log(f)
	}
	if len(l.failures) > 0 {
		said := l.w.records(func(r map[string]any) bool { return r["code"] != 200.0 })
		t.Errorf("%s: %d of %d failed; of %d records of what was not 200 the last are %v", what, len(l.failures), all, len(said), said[max(0, len(said)-5):])
	}
}

// heldConns are TCP connections to "db" that stay open; between sidecars they are
// streams of one.
type heldConns struct {
	conns   []net.Conn
	readers []*bufio.Reader
}

func holdConns(t *testing.T, w *workload, n int) *heldConns {
	t.Helper()
	h := new(heldConns)
	for range n {
		w.m.eventually(5*time.Second, w.id+" reaches db", func() error {
			c, r, err := w.dial(t, "db")
			if err != nil {
				return err
			}
			h.conns, h.readers = append(h.conns, c), append(h.readers, r)
			return c.SetDeadline(time.Time{})
		})
	}
	return h
}

// check says something on each connection and wants it back.
func (h *heldConns) check(t *testing.T, what string) {
	t.Helper()
	for i, c := range h.conns {
		fmt.Fprintln(c, what)
		if s, err := h.readers[i].ReadString('\n'); err != nil || s != what+"\n" {
			t.Fatalf("held TCP connection %d: %q %v", i, s, err)
		}
	}
}

// heldStreams are gRPC streams that stay open and carry a message every 100 ms.
type heldStreams struct {
	instances map[string]int // how many are at each
	beats     atomic.Int64
	mu        sync.Mutex
	failures  []string
}

func hold(t *testing.T, client grpc_testing.TestServiceClient, n int) *heldStreams {
	t.Helper()
	h := &heldStreams{instances: map[string]int{}}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	for i := range n {
		d, err := openDuplex(ctx, client)
		if err != nil {
			t.Fatal(err)
		}
		h.instances[d.instance]++
		wg.Go(func() {
			tick := time.NewTicker(100 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				if err := d.beat(); err != nil {
					if ctx.Err() == nil {
						h.mu.Lock()
						h.failures = append(h.failures, fmt.Sprintf("%s stream %d at %s: %v", time.Now().Format("05.000"), i, d.instance, err))
						h.mu.Unlock()
					}
					return
				}
				h.beats.Add(1)
			}
		})
	}
	return h
}

// check fails the test when a stream has ended.
func (h *heldStreams) check(t *testing.T, what string) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	t.Logf("%s: %d messages on the held streams", what, h.beats.Swap(0))
	if len(h.failures) > 0 {
		t.Fatalf("%d held streams ended: %v", len(h.failures), h.failures)
	}
}

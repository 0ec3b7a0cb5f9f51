package hcm

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/filter/grpcbridge"
	"github.com/hauberk-mesh/hauberk/sidecar/overload"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// overloaded has the bed's process do things because of an overload. What it returns tells how
// often each was done.
func (b *bed) overloaded(kinds ...overload.Kind) (done func(k overload.Kind) int) {
	b.t.Helper()
	begin, done := b.overloads(kinds...)
	begin()
	return done
}

// overloads is overloaded of an overload that is there when it is begun.
func (b *bed) overloads(kinds ...overload.Kind) (begin func(), done func(k overload.Kind) int) {
	b.t.Helper()
	heap := atomic.Uint64{}
	cfg := &overload.Config{MaxHeap: 1, Refresh: time.Millisecond}
	for _, k := range kinds {
		cfg.Actions = append(cfg.Actions, overload.Action{Kind: k, Triggers: []overload.Trigger{{Resource: overload.Heap, Threshold: 1}}})
	}
	m := overload.New(cfg, overload.Options{Heap: heap.Load, Collect: func() {}})
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan struct{})
	go func() { m.Run(ctx); close(over) }()
	b.t.Cleanup(func() { cancel(); <-over })
	b.overload = m.Signals(false)
	begin = func() {
		heap.Store(1)
		b.eventually("the overload", func() (yes bool) {
			m.Shares(func(share float64, _ ...string) { yes = share == 1 })
			return yes
		})
	}
	return begin, func(k overload.Kind) (n int) {
		m.Done(func(value float64, labels ...string) {
			if labels[0] == k.String() {
				n = int(value)
			}
		})
		return n
	}
}

// TestKeepAliveEndsOnce: of the streams of a connection that ends already none ends it again.
func TestKeepAliveEndsOnce(t *testing.T) {
	arrived, release := make(chan struct{}, 3), make(chan struct{})
	b := versionedBed(t, 2, 1, func(w http.ResponseWriter, r *http.Request) { arrived <- struct{}{}; <-release })
	done := b.overloaded(overload.DisableKeepAlive)
	b.start()
	c := b.httpClient(2)
	answers := make(chan int, 3)
	for range 3 {
		go func() {
			resp, err := c.Get("http://" + b.addr + "/a")
			if err != nil {
				t.Error(err)
				answers <- 0
				return
			}
			_ = resp.Body.Close()
			answers <- resp.StatusCode
		}()
		<-arrived
	}
	for range 3 {
		release <- struct{}{}
		if status := <-answers; status != 200 {
			t.Errorf("status %d", status)
		}
		b.logged(1)
	}
	b.logged(3)
	if n := done(overload.DisableKeepAlive); n != 1 {
		t.Errorf("the connection was ended %d times", n)
	}
}

// TestShedHeadersLeavesTheAdmitted: a load shed point for new requests takes no memory from those that a host
// has done already: their clients would take them for failed.
func TestShedHeadersLeavesTheAdmitted(t *testing.T) {
	var begin func()
	b := newBed(t, versionedOrigin(t, 2, func(w http.ResponseWriter, r *http.Request) {
		begin()
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		_, _ = io.WriteString(w, strings.Repeat("x", 100_000))
		w.Header().Set("Grpc-Status", "0")
	}))
	b.http2Cluster()
	b.filter("bridge", &grpcbridge.Config{})
	begin, _ = b.overloads(overload.ShedHeaders)
	b.start()
	if resp, body := b.dial().do(call); resp.StatusCode != 200 || resp.Header.Get("Grpc-Status") != "0" || len(body) != 100_000 {
		t.Errorf("%d %v, %d bytes", resp.StatusCode, resp.Header, len(body))
	}
}

// TestShedBody: a request of HTTP/1 whose body is on its way is refused with the piece that arrives
// in an overload. One that was answered loses its connection, and its answer has no end.
func TestShedBody(t *testing.T) {
	for _, answered := range []bool{false, true} {
		arrived := make(chan struct{})
		b := versionedBed(t, 1, 1, func(w http.ResponseWriter, r *http.Request) {
			if answered {
				_ = http.NewResponseController(w).EnableFullDuplex()
				_, _ = io.WriteString(w, "begun")
				_ = http.NewResponseController(w).Flush()
			}
			// Whatever was sent before the overload has passed, or it would be refused for it.
			_, _ = io.CopyN(io.Discard, r.Body, 100_000)
			close(arrived)
			_, _ = io.Copy(io.Discard, r.Body)
		})
		begin, done := b.overloads(overload.ShedHTTP1)
		b.start()
		c := b.dial()
		c.send("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 200000\r\n\r\n" + strings.Repeat("x", 100_000))
		<-arrived
		begin()
		c.send("y")
		want := "POST /a 500 DPE overload"
		if answered {
			want = "POST /a 200 OM overload"
			resp, err := http.ReadResponse(c.r, nil)
			if err != nil {
				t.Fatal(err)
			}
			if body, err := io.ReadAll(resp.Body); !errors.Is(err, io.ErrUnexpectedEOF) || string(body) != "begun" {
				t.Errorf("the answer is %q, and then %v", body, err)
			}
			c.closed()
		} else if resp, body := c.answer("POST"); resp.StatusCode != 500 || body != "Internal Server Error" || !resp.Close {
			t.Errorf("%d %q %v", resp.StatusCode, body, resp.Header)
		}
		if line := b.logged(1)[0]; !strings.HasPrefix(line, want) || done(overload.ShedHTTP1) != 1 {
			t.Errorf("logged %q, done %d times", line, done(overload.ShedHTTP1))
		}
		if n := b.counted("hauberk_protocol_errors_total"); n != "" {
			t.Errorf("the client is blamed: %s", n)
		}
	}
}

// TestShedTunnel: an upgraded connection ends with what its client sends in an overload.
func TestShedTunnel(t *testing.T) {
	b := newBed(t, upgradeOrigin(t))
	b.cfg.Upgrades = []route.Upgrade{{Type: "websocket"}}
	begin, done := b.overloads(overload.ShedHTTP1)
	b.start()
	c := b.dial()
	c.send("GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n")
	if resp, err := http.ReadResponse(c.r, nil); err != nil || resp.StatusCode != 101 {
		t.Fatal(resp, err)
	}
	c.send("and back")
	echoed := make([]byte, len("hello AND BACK"))
	if _, err := io.ReadFull(c.r, echoed); err != nil || string(echoed) != "hello AND BACK" {
		t.Fatalf("%q %v", echoed, err)
	}
	begin()
	c.send("y")
	if x, err := c.r.ReadByte(); err == nil { // cut off: what came is not the whole
		t.Errorf("the tunnel goes on with %q", x)
	}
	if line := b.logged(1)[0]; !strings.HasPrefix(line, "GET /ws 101 OM overload") || done(overload.ShedHTTP1) != 1 {
		t.Errorf("logged %q, done %d times", line, done(overload.ShedHTTP1))
	}
}

// TestShedRest: a connection ends with what arrives in an overload of a body that was answered already. The answer
// is whole.
func TestShedRest(t *testing.T) {
	b := newBed(t)
	b.route().Forward, b.route().Direct = nil, &route.DirectResponse{Status: 200, Body: []byte("direct")}
	begin, done := b.overloads(overload.ShedHTTP1)
	b.start()
	c := b.dial()
	c.send("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n")
	if resp, body := c.answer("POST"); resp.StatusCode != 200 || body != "direct" {
		t.Fatal(resp, body)
	}
	begin()
	c.send("y")
	c.closed()
	if n := done(overload.ShedHTTP1); n != 1 {
		t.Errorf("done %d times", n)
	}
}

// TestShedStreams: a connection of HTTP/2 ends with what arrives in an overload, and its streams do.
func TestShedStreams(t *testing.T) {
	arrived, over := make(chan struct{}), make(chan struct{})
	defer close(over)
	b := versionedBed(t, 2, 1, func(w http.ResponseWriter, r *http.Request) { close(arrived); <-over })
	begin, done := b.overloads(overload.ShedGoAwayAndClose)
	b.start()
	c := b.httpClient(2)
	body, more := io.Pipe()
	failed := make(chan error, 1)
	go func() {
		resp, err := c.Post("http://"+b.addr+"/a", "", body)
		if err == nil {
			_ = resp.Body.Close()
		}
		failed <- err
	}()
	<-arrived
	begin()
	go func() { _, _ = more.Write([]byte("more")) }()
	if err := <-failed; err == nil {
		t.Error("the request was answered")
	}
	_ = more.Close()
	if line := b.logged(1)[0]; !strings.HasPrefix(line, "POST /a 0 OM overload") || done(overload.ShedGoAwayAndClose) == 0 {
		t.Errorf("logged %q", line)
	}
}

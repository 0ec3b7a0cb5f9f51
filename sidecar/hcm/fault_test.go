package hcm

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/panics/panicstest"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// atRest waits until nothing is under way at the bed's upstreams.
func (b *bed) atRest() {
	b.t.Helper()
	var text bytes.Buffer
	for range 200 {
		text.Reset()
		_ = b.metrics.Registry.WritePrometheus(&text)
		if !strings.Contains(text.String(), "hauberk_upstream_requests_active{") {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	b.t.Errorf("requests are still under way:\n%s", text.String())
}

// TestFaultInAnExchange: with HTTP/1 it ends the connection, with HTTP/2 the stream.
func TestFaultInAnExchange(t *testing.T) {
	for _, version := range []int{1, 2} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			panicstest.Expect(t, panics.Exchange, 1)
			b := versionedBed(t, version, 1, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.URL.Path) })
			var fault atomic.Bool
			b.change = func(m *Manager) {
				routes := m.routes
				m.routes = func() *route.Table {
					if fault.Swap(false) {
						panic("routes")
					}
					return routes()
				}
			}
			b.start()
			c := b.httpClient(version)
			for i, broken := range []bool{false, true, false} {
				fault.Store(broken)
				resp, err := c.Post("http://"+b.addr+"/x", "", strings.NewReader("body")) // not tried again by the client
				if (err != nil) != broken {
					t.Errorf("request %d: %v", i, err)
				}
				if err == nil {
					_, _ = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
				}
			}
			b.mu.Lock()
			conns := len(b.conns)
			b.mu.Unlock()
			if conns != 3-version {
				t.Errorf("%d connections", conns)
			}
			b.atRest()
			b.logged(3)
		})
	}
}

// explosive is a stream whose reads panic at a word.
type explosive struct{ stream.Stream }

func (e explosive) Read(p []byte) (int, error) {
	n, err := e.Stream.Read(p)
	if bytes.Contains(p[:n], []byte("boom")) {
		panic("boom")
	}
	return n, err
}

// TestFaultInAPump: a fault of the goroutine that sends a body ends the exchange, whether
// its answer has begun or not, and gives the upstream back.
func TestFaultInAPump(t *testing.T) {
	for _, version := range []int{1, 2} {
		for _, begun := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d %v", version, begun), func(t *testing.T) {
				panicstest.Expect(t, panics.Body, 1)
				got := make(chan struct{})
				b := versionedBed(t, 1, version, func(w http.ResponseWriter, r *http.Request) {
					if r.Method == "GET" {
						return
					}
					_ = http.NewResponseController(w).EnableFullDuplex()
					_, _ = io.ReadFull(r.Body, make([]byte, 4))
					if begun {
						fmt.Fprint(w, "first")
						_ = http.NewResponseController(w).Flush()
					}
					close(got)
					_, _ = io.Copy(io.Discard, r.Body)
				})
				b.route().Forward.Retry = &route.RetryPolicy{On: route.Retry5xx | route.RetryReset, NumRetries: 3}
				b.wrap = func(s stream.Stream) stream.Stream { return explosive{s} }
				b.start()
				c := b.dial()
				c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\nbody")
				<-got
				if begun { // and is relayed
					if _, err := c.r.Peek(len("HTTP/1.1 200 OK")); err != nil {
						t.Fatal(err)
					}
				}
				c.send("boom")
				all, _ := io.ReadAll(c.r)
				if answer := string(all); begun != strings.Contains(answer, "200 OK") || !begun && !strings.Contains(answer, "503 Service") {
					t.Errorf("%q", answer)
				}
				if resp, _ := b.dial().do("GET / HTTP/1.1\r\nHost: h\r\n\r\n"); resp.StatusCode != 200 {
					t.Errorf("afterwards: %d", resp.StatusCode)
				}
				b.atRest()
			})
		}
	}
}

// besides makes an exchange beside none, whose attempts panic: it has no cluster.
func besides(b *bed) *exchange {
	f := downstream.Facts{Place: &downstream.Place{Metrics: b.metrics.Service(telemetry.Inbound, "api")}}
	x := newExchange(b.m, downstream.New(f, nil), context.Background())
	x.begin()
	x.dog = &watchdog{}
	return x.beside(x.ctx)
}

// TestFaultsBeside: attempts that run beside the exchange end by themselves.
func TestFaultsBeside(t *testing.T) {
	b := newBed(t, "127.0.0.1:1").start()
	t.Run("hedge", func(t *testing.T) {
		panicstest.Expect(t, panics.Hedge, 1)
		h := &hedge{ctx: t.Context(), ended: make(chan *exchange)}
		y := besides(b)
		go h.try(y)
		if got := <-h.ended; got != y || y.outcome != reset || !y.wrecked {
			t.Errorf("outcome %d", y.outcome)
		}
		h.drop(y)
	})
	t.Run("mirror", func(t *testing.T) {
		panicstest.Expect(t, panics.Mirror, 1)
		y := besides(b)
		b.m.background.Go(y.runMirror)
		b.m.background.Wait()
		if !y.wrecked {
			t.Error("the copy is used again")
		}
	})
	if n := len(b.m.timers.entries); n != 0 {
		t.Errorf("%d timers are left", n)
	}
}

// detonator is a timer's owner that panics.
type detonator struct {
	timer  timer
	asleep bool
}

func (d *detonator) due(int64) (bool, int64) {
	if d.asleep {
		return true, 0
	}
	panic("due")
}
func (d *detonator) wake() { panic("wake") }

// bell is one that does not.
type bell struct {
	timer timer
	rung  chan struct{}
}

func (a *bell) due(int64) (bool, int64) { return true, 0 }
func (a *bell) wake()                   { close(a.rung) }

// TestFaultsOfTimers: the owner's timer is over; those of others fire.
func TestFaultsOfTimers(t *testing.T) {
	panicstest.Expect(t, panics.Timer, 2)
	ts := NewTimers()
	defer ts.Close()
	now := monotonic()
	for _, asleep := range []bool{false, true} {
		d := &detonator{asleep: asleep}
		d.timer.owner = d
		ts.add(&d.timer)
		d.timer.set(now + 1)
		defer ts.remove(&d.timer)
	}
	a := &bell{rung: make(chan struct{})}
	a.timer.owner = a
	ts.add(&a.timer)
	defer ts.remove(&a.timer)
	a.timer.set(now + int64(10*time.Millisecond))
	select {
	case <-a.rung:
	case <-time.After(5 * time.Second):
		t.Fatal("the timers stand still")
	}
}

package hcm

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
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
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
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
				routes := m.policy.routes
				m.policy.routes = func() *route.Table {
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
		d.timer.arm(now + 1)
		defer ts.remove(&d.timer)
	}
	a := &bell{rung: make(chan struct{})}
	a.timer.owner = a
	ts.add(&a.timer)
	defer ts.remove(&a.timer)
	a.timer.arm(now + int64(10*time.Millisecond))
	select {
	case <-a.rung:
	case <-time.After(5 * time.Second):
		t.Fatal("the timers stand still")
	}
}

// shaky is an upstream that panics where it is asked to.
type shaky struct {
	upstream
	at   string
	left []bool // each time, whether clean
}

func (s *shaky) interrupt() {}
func (s *shaky) resume() {
	if s.at == "resume" {
		panic("resume")
	}
}
func (s *shaky) leave(_ *attempt, clean bool) {
	if s.left = append(s.left, clean); s.at == "leave" {
		panic("leave")
	}
}

// TestFaultsGiveBack: wherever an attempt panics, what it holds of its host is given back
// once.
func TestFaultsGiveBack(t *testing.T) {
	b := newBed(t, rawOrigin(t, func(_ int, _ net.Conn, r *bufio.Reader) { _, _ = r.ReadByte() })).start()
	for name, tc := range map[string]struct {
		up      *shaky
		provoke func(*attempt)
		left    []bool
	}{
		"before it connects": {provoke: func(a *attempt) { a.try() }}, // there is no route
		"when it is connected": {provoke: func(a *attempt) {
			a.x.shadow, a.resp = true, nil
			a.try()
		}},
		"as its connection is left": {up: &shaky{at: "leave"}, left: []bool{true}},
		"as the watchdog is calmed": {up: &shaky{at: "resume"}, left: []bool{false}},
	} {
		t.Run(name, func(t *testing.T) {
			panicstest.Expect(t, panics.Exchange, 1)
			y := besides(b)
			defer y.leave()
			y.cluster, y.deadline, y.lifeEnd = b.clusters.Get("origin"), noDeadline, noDeadline
			a := y.attempt
			if a.choose() != responded {
				t.Fatal("no host")
			}
			func() {
				defer panics.Contain(panics.Exchange, nil, y.spoil)
				if tc.up == nil {
					tc.provoke(a)
					return
				}
				a.begin()
				a.up = tc.up
				y.dog.hold(&a.up)
				y.dog.timer.at.Store(fired)
				a.drop(true)
			}()
			y.spoil() // finds nothing more
			if tc.up != nil && !slices.Equal(tc.up.left, tc.left) {
				t.Errorf("the connection was given back %v", tc.up.left)
			}
			b.atRest()
			if h := b.clusters.Get("origin").Stats()[0]; h.Active != 0 || h.Connections != h.Idle {
				t.Errorf("%d active, %d connections, %d idle", h.Active, h.Connections, h.Idle)
			}
		})
	}
}

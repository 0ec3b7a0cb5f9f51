package hcm

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/filter"
	"github.com/hauberk-mesh/hauberk/sidecar/filter/grpcbridge"
	"github.com/hauberk-mesh/hauberk/sidecar/filter/headermutation"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

const call = "POST /a.B/C HTTP/1.1\r\nHost: h\r\nContent-Type: application/grpc\r\nContent-Length: 5\r\n\r\nhello"

// bridgedBed has the bridge between two filters that change every answer, and hosts of
// HTTP/2.
func bridgedBed(t *testing.T, h http.HandlerFunc) *bed {
	b := newBed(t, versionedOrigin(t, 2, h))
	b.http2Cluster()
	b.filter("nearer", &headermutation.Config{Response: []route.HeaderMutation{{Add: &route.HeaderAdd{Name: "x-added", Value: "nearer"}}}})
	b.filter("bridge", &grpcbridge.Config{})
	b.filter("farther", &headermutation.Config{Response: []route.HeaderMutation{{Add: &route.HeaderAdd{Name: "x-added", Value: "farther"}}}})
	return b.start()
}

// TestHeldAnswer: nothing of an answer is sent before it is whole, and each filter sees it
// once.
func TestHeldAnswer(t *testing.T) {
	for _, size := range []int{0, 5, 100 << 10, grpcbridge.MaxBytes} {
		b := bridgedBed(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set("Trailer", "Grpc-Status")
			_ = http.NewResponseController(w).Flush()
			_, _ = io.WriteString(w, strings.Repeat("x", size))
			w.Header().Set("Grpc-Status", "7")
		})
		c := b.dial()
		for range 2 {
			resp, body := c.do(call)
			if resp.StatusCode != 503 || resp.Header.Get("Grpc-Status") != "7" || len(body) != size || resp.ContentLength != int64(size) || len(resp.Trailer) != 0 {
				t.Errorf("%d bytes: %d %v, %d of them, trailers %v", size, resp.StatusCode, resp.Header, len(body), resp.Trailer)
			}
			if got := resp.Header.Values("X-Added"); len(got) != 2 {
				t.Errorf("the other filters: %q", got)
			}
		}
		for _, line := range b.logged(2) {
			if !strings.HasPrefix(line, "POST /a.B/C 503 - via_upstream ") {
				t.Errorf("log: %s", line)
			}
		}
	}
}

// TestHeldAnswerIsTooLong: no filter sees what is answered instead, and the host's stream
// ends; the client's connection goes on.
func TestHeldAnswerIsTooLong(t *testing.T) {
	over := make(chan struct{}, 1)
	b := bridgedBed(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/short" {
			return
		}
		for {
			if _, err := io.WriteString(w, strings.Repeat("x", 10_000)); err != nil || r.Context().Err() != nil {
				break
			}
		}
		over <- struct{}{}
	})
	c := b.dial()
	resp, _ := c.do(call)
	if resp.StatusCode != 200 || resp.Header.Get("Grpc-Status") != "2" || len(resp.Header.Values("X-Added")) != 0 {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
	select {
	case <-over:
	case <-time.After(5 * time.Second):
		t.Fatal("the host goes on")
	}
	if resp, _ := c.do("GET /short HTTP/1.1\r\nHost: h\r\n\r\n"); resp.StatusCode != 200 {
		t.Errorf("the next: %d", resp.StatusCode)
	}
	if line := b.logged(2)[0]; !strings.HasPrefix(line, "POST /a.B/C 200 - response_payload_too_large ") {
		t.Errorf("log: %s", line)
	}
}

// TestHeldAnswerBreaksOff: the client, which has nothing of it, is told.
func TestHeldAnswerBreaksOff(t *testing.T) {
	bubble(func(t *testing.T) {
		for _, c := range []struct {
			name   string
			change func(*route.Forward)
			host   http.HandlerFunc
			want   string // of the log
		}{
			{"reset", func(*route.Forward) {}, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
				"POST /a.B/C 200 UR upstream_reset_after_response_started{remote_reset} "},
			{"time", func(f *route.Forward) { f.Timeout = 100 * time.Millisecond },
				func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
				"POST /a.B/C 200 UT response_timeout "},
		} {
			b := newBed(t, versionedOrigin(t, 2, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/grpc")
				_, _ = io.WriteString(w, "wor")
				_ = http.NewResponseController(w).Flush()
				c.host(w, r)
			}))
			b.http2Cluster()
			c.change(b.route().Forward)
			b.filter("bridge", &grpcbridge.Config{})
			b.start()
			client := b.dial()
			for range 2 {
				resp, body := client.do(call)
				if resp.StatusCode != 200 || resp.Header.Get("Grpc-Status") != "14" || body != "" {
					t.Errorf("%s: %d %v %q", c.name, resp.StatusCode, resp.Header, body)
				}
			}
			for _, line := range b.logged(2) {
				if !strings.HasPrefix(line, c.want) {
					t.Errorf("%s: log: %s", c.name, line)
				}
			}
		}
	})(t)
}

// TestClientLeavesAHeldAnswer: the host's stream ends with it.
func TestClientLeavesAHeldAnswer(t *testing.T) {
	began, over := make(chan struct{}), make(chan struct{})
	b := bridgedBed(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		close(began)
		<-r.Context().Done()
		close(over)
	})
	c := b.dial()
	c.send(call)
	<-began
	_ = c.Close()
	select {
	case <-over:
	case <-time.After(5 * time.Second):
		t.Fatal("the host goes on")
	}
	if line := b.logged(1)[0]; !strings.HasPrefix(line, "POST /a.B/C 200 DC ") {
		t.Errorf("log: %s", line)
	}
}

// TestHeldAnswerHasRoom: what the listener allows a connection, and what all exchanges may
// keep, bounds what is held, which counts until its exchange is over.
func TestHeldAnswerHasRoom(t *testing.T) {
	for _, c := range []struct {
		name          string
		limit, others int64
		status        string
	}{
		{"room", 40_000, 0, "0"},
		{"the listener's limit", 20_000, 0, "2"},
		{"all keep much", 40_000, keepAll - 20_000, "2"},
	} {
		b := newBed(t, versionedOrigin(t, 2, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set("Trailer", "Grpc-Status")
			_, _ = io.WriteString(w, strings.Repeat("x", 30_000))
			w.Header().Set("Grpc-Status", "0")
		}))
		b.http2Cluster()
		limit := uint32(c.limit)
		b.cfg.BufferLimit = &limit
		b.filter("bridge", &grpcbridge.Config{})
		b.start()
		keeping.Add(c.others)
		resp, _ := b.dial().do(call)
		b.logged(1)
		if keeping.Add(-c.others) != 0 || resp.Header.Get("Grpc-Status") != c.status {
			t.Errorf("%s: %v; %d bytes count as kept", c.name, resp.Header, keeping.Load())
		}
	}
}

// TestHeldAnswerLeavesItsHost: a client that takes its time holds no place at the host.
func TestHeldAnswerLeavesItsHost(t *testing.T) {
	const size = 24 << 20 // more than sockets take
	b := newBed(t, versionedOrigin(t, 2, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat("x", size))
	}))
	b.http2Cluster()
	none := uint32(0)
	b.cfg.BufferLimit = &none
	f := &holder{size, make(chan bool, 1)}
	b.change = func(m *Manager) { m.policy.chain.links = []link{{name: "holder", filter: f}} }
	c := b.start().dial()
	c.send(simpleGet)
	if !<-f.whole {
		t.Fatal("the answer is not whole")
	}
	b.atRest()
	if _, body := c.answer("GET"); len(body) != size {
		t.Errorf("%d bytes", len(body))
	}
}

// holder holds whatever passes, up to a limit.
type holder struct {
	limit int
	whole chan bool
}

func (*holder) Request(*filter.Context) filter.Verdict { return filter.Continue }

func (h *holder) Response(c *filter.Context) {
	if c.Response.Body != nil {
		_, _, whole := c.HoldAnswer(h.limit)
		h.whole <- whole
	}
}

// TestTunnelsAreNotHeld: they have no end.
func TestTunnelsAreNotHeld(t *testing.T) {
	b := newBed(t, upgradeOrigin(t))
	b.cfg.Upgrades = []route.Upgrade{{Type: "websocket"}}
	f := &holder{10, make(chan bool, 1)}
	b.change = func(m *Manager) { m.policy.chain.links = []link{{name: "holder", filter: f}} }
	c := b.start().dial()
	c.send("GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n")
	if resp, err := http.ReadResponse(c.r, nil); err != nil || resp.StatusCode != 101 {
		t.Fatal(resp, err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(c.r, got); err != nil || string(got) != "hello" {
		t.Errorf("%q %v", got, err)
	}
	if <-f.whole {
		t.Error("a tunnel was held")
	}
}

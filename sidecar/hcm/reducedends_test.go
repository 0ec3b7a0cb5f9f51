package hcm

import (
	"io"
	"net/http"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/filter/fault"
	"github.com/hauberk-mesh/hauberk/sidecar/overload"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// TestFlushIsNotReduced: of a host's answer and of our own, where it is not what is reduced.
func TestFlushIsNotReduced(t *testing.T) {
	for name, target := range map[string]string{"host's": "/", "our own": "/a%2Fb"} {
		t.Run(name, bubble(func(t *testing.T) {
			b := newBed(t, httpOrigin(t, echo))
			reduce := b.reducing(overload.StreamFlush)
			b.route().Forward.Timeout = 0
			b.cfg.EscapedSlashes, b.cfg.StreamIdleTimeout = RejectEscaped, time.Minute
			b.wrap = func(s stream.Stream) stream.Stream { return &stuck{Stream: s, cut: make(chan struct{})} }
			b.start()
			reduce()
			time.Sleep(2 * time.Millisecond)
			c := b.dial()
			c.send("GET " + target + " HTTP/1.1\r\nHost: h\r\n\r\n")
			time.Sleep(59 * time.Second)
			if text, err := os.ReadFile(b.logPath); err != nil || len(text) > 0 {
				t.Errorf("%v, within the time: %s", err, text)
			}
			b.logged(1)
		}))
	}
}

// TestReducedDelay: a request that a fault delays has what is left of its stream's time, also where an overload
// begins meanwhile.
func TestReducedDelay(t *testing.T) {
	for name, after := range map[string]time.Duration{"before": 0, "meanwhile": time.Second} {
		t.Run(name, bubble(func(t *testing.T) {
			b := newBed(t, httpOrigin(t, echo))
			reduce := b.reducing()
			b.cfg.StreamIdleTimeout = time.Minute
			b.filter("f", &fault.Config{Delay: &fault.Delay{Fixed: time.Hour, Share: route.All}})
			b.start()
			if after == 0 {
				reduce()
				time.Sleep(2 * time.Millisecond)
			}
			start := time.Now()
			c := b.dial()
			c.send(simpleGet)
			if time.Sleep(after); after > 0 {
				reduce()
				time.Sleep(2 * time.Millisecond)
			}
			b.logged(1)
			if took := time.Since(start).Round(time.Second); took != 6*time.Second {
				t.Errorf("it ended after %v", took)
			}
		}))
	}
}

// TestReducedLife: of connections of both versions.
func TestReducedLife(t *testing.T) {
	bothInBubbles(t, func(t *testing.T, version int) {
		b := versionedBed(t, version, 1, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
		reduce := b.reducing()
		b.cfg.MaxConnectionDuration, b.cfg.IdleTimeout = 20*time.Minute, 10*time.Hour
		b.start()
		resp, err := b.httpClient(version).Get("http://" + b.addr + "/")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		reduce()
		time.Sleep(2 * time.Millisecond)
		open := func() int {
			b.m.timers.mu.Lock()
			defer b.m.timers.mu.Unlock()
			return len(b.m.timers.entries)
		}
		time.Sleep(time.Minute)
		before := open()
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if after := open(); before == 0 || after != 0 {
			t.Errorf("%d connections before, %d after", before, after)
		}
	})
}

// reducing has the bed's timeouts reduced to a tenth soon after the returned
// function was called.
func (b *bed) reducing(spared ...overload.Timeout) (reduce func()) {
	ts, set := reducing(b.t, spared...)
	b.options.Timers = ts
	return func() { set(true) }
}

package hcm

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// activeRequests are the lines of the requests that are under way.
func (b *bed) activeRequests() string {
	var text strings.Builder
	_ = b.metrics.Registry.WritePrometheus(&text)
	for line := range strings.Lines(text.String()) {
		if rest, ok := strings.CutPrefix(line, "hauberk_requests_active{"); ok {
			return strings.TrimSpace(rest[strings.IndexByte(rest, '}')+1:])
		}
	}
	return ""
}

// TestRequestsActive: a request is under way from its first byte to the end of its answer; a
// connection that waits for one, with a goroutine or without, or for its end, has none.
func TestRequestsActive(t *testing.T) {
	t.Run("HTTP/1", bubble(func(t *testing.T) {
		goOn := make(chan struct{})
		b := newBed(t, httpOrigin(t, func(w http.ResponseWriter, _ *http.Request) {
			<-goOn
			_, _ = io.WriteString(w, "hello")
		}))
		timers := NewTimers()
		defer timers.Close()
		b.options.Timers = timers
		timers.Expose(b.metrics)
		b.start()
		want := func(when, n string) {
			t.Helper()
			b.eventually(when, func() bool { return b.activeRequests() == n })
		}
		want("nobody is here", "")
		idle, c := b.dial(), b.dial()
		if _, err := io.WriteString(c, simpleGet[:10]); err != nil {
			t.Fatal(err)
		}
		want("a head has begun", "1")
		if _, err := io.WriteString(c, simpleGet[10:]); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		want("the answer is waited for", "1")
		if _, err := io.WriteString(idle, simpleGet); err != nil {
			t.Fatal(err)
		}
		want("there are two", "2")
		goOn <- struct{}{}
		goOn <- struct{}{}
		_, _ = c.answer("GET")
		_, _ = idle.answer("GET")
		want("both are answered", "")
		time.Sleep(3 * time.Duration(parkAfter))
		want("both wait for long", "")
	}))
}

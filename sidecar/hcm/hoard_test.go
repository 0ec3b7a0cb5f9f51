package hcm

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/http2"
	"github.com/hauberk-mesh/hauberk/sidecar/overload"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// endlessBody is a body without an end.
type endlessBody struct{}

func (endlessBody) Read(p []byte) (int, error) { return len(p), nil }

// hoard is what the tests take for much memory: more than the largest piece in which a body goes
// on, which a stream may have in its hands when all of it was sent.
const hoard = 400 << 10

// resetHoards waits for a stream that holds much memory, and resets all of them.
func resetHoards(b *bed) {
	b.t.Helper()
	b.eventually("a stream holds memory", func() bool { return len(http2.Hoards(hoard)) > 0 })
	for _, h := range http2.Hoards(hoard) {
		if h.Reset(); h.Reset() {
			b.t.Error("it was reset twice")
		}
	}
	b.eventually("nothing is held", func() bool { return len(http2.Hoards(1)) == 0 && keeping.Load() == 0 })
}

// TestHoardedRequest: a stream is reset because of the memory that it holds of a request, in
// its window or for another attempt. The client and the log are told as by Envoy, the host
// does not wait, nothing is tried again, and the connection goes on.
func TestHoardedRequest(t *testing.T) {
	for name, reads := range map[string]int64{"unread": 0, "kept": hoard + 100<<10} {
		t.Run(name, func(t *testing.T) {
			reached, over := make(chan struct{}), make(chan struct{})
			defer close(over)
			b := versionedBed(t, 2, 1, func(w http.ResponseWriter, r *http.Request) {
				if r.Method == "GET" {
					return
				}
				_, _ = io.CopyN(io.Discard, r.Body, reads)
				close(reached)
				<-over
			})
			b.route().Forward.Timeout = 0
			if reads > 0 {
				b.route().Forward.Retry = &route.RetryPolicy{On: route.Retry5xx | route.RetryReset, NumRetries: 3}
			}
			b.start()
			c := b.httpClient(2)
			failed := make(chan error, 1)
			go func() {
				resp, err := c.Post("http://"+b.addr+"/up", "", io.LimitReader(endlessBody{}, max(16<<20*(1-min(reads, 1)), reads)))
				if err == nil {
					_ = resp.Body.Close()
				}
				failed <- err
			}()
			<-reached
			resetHoards(b)
			if err := <-failed; err == nil || !strings.Contains(err.Error(), "NO_ERROR") {
				t.Errorf("the client got %v", err)
			}
			if resp, err := c.Get("http://" + b.addr + "/next"); err != nil || resp.StatusCode != 200 {
				t.Errorf("%v %v", resp, err)
			}
			// The first has ended when its client hears of it, or soon after.
			if lines := strings.Join(b.logged(2), "\n"); !strings.Contains(lines, "POST /up 0 OM overload everything") || strings.Contains(lines, "retries=1") {
				t.Errorf("logged %s", lines)
			}
		})
	}
}

// TestHoardedAnswer: so is one that holds much of an answer, which its client does not read,
// whatever that speaks.
func TestHoardedAnswer(t *testing.T) {
	for _, down := range []int{1, 2} {
		b := versionedBed(t, down, 2, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, endlessBody{}) })
		b.route().Forward.Timeout = 0
		b.start()
		resp, err := b.httpClient(down).Get("http://" + b.addr + "/down")
		if err != nil {
			t.Fatal(err)
		}
		resetHoards(b)
		if _, err := io.Copy(io.Discard, resp.Body); err == nil {
			t.Error("the answer ended as if it were whole")
		}
		_ = resp.Body.Close()
		if lines := b.logged(1); !strings.HasPrefix(lines[0], "GET /down 200 OM overload") {
			t.Errorf("HTTP/%d: logged %q", down, lines)
		}
	}
}

// TestHoardedWholeAnswer: so is one that has arrived as a whole, whose stream is over.
func TestHoardedWholeAnswer(t *testing.T) {
	for _, down := range []int{1, 2} {
		sent := make(chan struct{})
		b := versionedBed(t, down, 2, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.CopyN(w, endlessBody{}, 12<<20)
			close(sent)
		})
		b.route().Forward.Timeout = 0
		b.start()
		resp, err := b.httpClient(down).Get("http://" + b.addr + "/down")
		if err != nil {
			t.Fatal(err)
		}
		<-sent
		resetHoards(b)
		if _, err := io.Copy(io.Discard, resp.Body); err == nil {
			t.Error("the answer ended as if it were whole")
		}
		_ = resp.Body.Close()
		if lines := b.logged(1); !strings.HasPrefix(lines[0], "GET /down 200 OM overload") {
			t.Errorf("HTTP/%d: logged %q", down, lines)
		}
	}
}

// TestRefusedUnderLoad: a refusal for want of memory costs no connection, but that of a client
// of which more may come than requests; the log has no flag, as Envoy's.
func TestRefusedUnderLoad(t *testing.T) {
	m := overload.New(&overload.Config{MaxHeap: 1, Refresh: time.Millisecond, Actions: []overload.Action{
		{Kind: overload.RefuseRequests, Triggers: []overload.Trigger{{Resource: overload.Heap, Threshold: 1}}},
	}}, overload.Options{Heap: func() uint64 { return 1 }, Collect: func() {}})
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() { m.Run(ctx); close(over) }()
	defer func() { cancel(); <-over }()
	b := newBed(t)
	b.overload = m.Signals(false)
	b.start()
	b.eventually("requests are refused", b.overload.RefusesRequests)
	c := b.dial()
	for range 2 {
		if resp, body := c.do("GET /a HTTP/1.1\r\nHost: h\r\n\r\n"); resp.StatusCode != 503 || body != "envoy overloaded" || resp.Close {
			t.Errorf("%d %q %v", resp.StatusCode, body, resp.Header)
		}
	}
	for _, ends := range []string{"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", "CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n"} {
		c := b.dial()
		if resp, _ := c.do(ends); resp.StatusCode != 503 || !resp.Close {
			t.Errorf("%q: %d %v", ends, resp.StatusCode, resp.Header)
		}
		c.closed()
	}
	if lines := b.logged(4); !strings.HasPrefix(lines[0], "GET /a 503 - overload - -") {
		t.Errorf("logged %q", lines)
	}
}

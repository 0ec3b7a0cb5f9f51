package hcm

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// TestRetryOfAnUpload: a request that is tried again while its body still comes is sent
// whole, or not at all.
func TestRetryOfAnUpload(t *testing.T) {
	bubble(func(t *testing.T) {
		// What has come of the upload under way: its first attempt's answer, and its second.
		type upload struct{ refused, again chan struct{} }
		var now atomic.Pointer[upload]
		got := make(chan string, 1)
		b := newBed(t, rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			u := now.Load() // nothing has been answered that would end it
			if req.Header.Get("x-envoy-attempt-count") == "1" {
				_, _ = io.CopyN(io.Discard, req.Body, replayLimit*3/4)
				_, _ = io.WriteString(c, "HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
				u.refused <- struct{}{}
				_, _ = io.Copy(io.Discard, r)
				return
			}
			select {
			case u.again <- struct{}{}:
			default:
			}
			body, err := io.ReadAll(req.Body)
			select {
			case got <- fmt.Sprint(string(body), err):
			default:
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		}))
		b.cfg.Routes.VirtualHosts[0].AttemptCountInRequest = true
		b.route().Forward.Retry = &route.RetryPolicy{On: route.Retry5xx, NumRetries: 1, BackOffBase: time.Nanosecond}
		b.start()
		var whole strings.Builder
		for i := range 32 {
			fmt.Fprintf(&whole, "%04d%s", i, strings.Repeat(".", 4<<10-4))
		}
		for i := range 100 {
			u := &upload{make(chan struct{}, 1), make(chan struct{}, 1)}
			now.Store(u)
			c := b.dial()
			sent, over := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(sent)
				_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
				for rest := whole.String(); rest != ""; rest = rest[4<<10:] {
					// The rest comes while it is decided whether what is kept is sent again, or
					// after that.
					if whole.Len()-len(rest) == replayLimit*3/4 {
						until := u.refused
						if i%2 == 1 {
							until = u.again
						}
						select {
						case <-until:
						case <-over:
							return
						}
					}
					if _, err := fmt.Fprintf(c, "1000\r\n%s\r\n", rest[:4<<10]); err != nil {
						return
					}
				}
				_, _ = io.WriteString(c, "0\r\n\r\n")
			}()
			resp, _ := c.answer("POST")
			close(over)
			if resp.StatusCode == 200 {
				if body := <-got; body != whole.String()+"<nil>" {
					t.Fatalf("the second host got %d bytes of %d, ending in %q", len(body), whole.Len(), body[max(0, len(body)-40):])
				}
			} else if i%2 == 1 {
				t.Errorf("an upload of which little had come was not tried again: status %d", resp.StatusCode)
			}
			_ = c.Close()
			<-sent
		}
	})(t)
}

// TestRecordsDuringUploads: what is told of an exchange is safe to ask for while its
// body still comes.
func TestRecordsDuringUploads(t *testing.T) {
	bridges(t, func(t *testing.T, down, up int) {
		if down == 1 {
			return // net/http's HTTP/1 client does not read before it has written
		}
		b := versionedBed(t, down, up, func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).EnableFullDuplex()
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			_, _ = io.Copy(io.Discard, r.Body)
		})
		b.route().Headers = &route.HeaderMutations{ResponseAdd: []route.HeaderAdd{{Name: "so-far", Value: "%BYTES_RECEIVED%"}}}
		b.cfg.LogInterval = time.Hour
		b.start()
		c := b.httpClient(down)
		for range 20 {
			resp, err := c.Post("http://"+b.addr+"/", "", io.MultiReader(bytes.NewReader(make([]byte, 1<<20))))
			if err != nil || resp.StatusCode != 200 || resp.Header.Get("so-far") == "" {
				t.Fatal(resp, err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
	})
}

// TestAnswerBeforeTheLastWrite: a host that answers without taking the end of the body
// is heard at once.
func TestAnswerBeforeTheLastWrite(t *testing.T) {
	b := newBed(t, framesOrigin(t, func(f *http2.Framer, fr http2.Frame) {
		switch fr := fr.(type) {
		case *http2.HeadersFrame:
			if fr.StreamEnded() {
				answerFrame(f, fr.StreamID, "204")
			}
		case *http2.DataFrame:
			answerFrame(f, fr.StreamID, "413")
		}
	}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 5}))
	b.http2Cluster()
	c := b.start().httpClient(2)
	ask := func(method string, body io.Reader, length int64) (status int) {
		t.Helper()
		req, _ := http.NewRequest(method, "http://"+b.addr+"/", body)
		req.ContentLength = length
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	ask("GET", nil, 0) // from now on the host's window is known
	for name, body := range map[string]func() io.Reader{
		"whole": func() io.Reader { return strings.NewReader("0123456789") },
		"later": func() io.Reader {
			pr, pw := io.Pipe()
			go func() {
				time.Sleep(50 * time.Millisecond) // the head goes ahead
				_, _ = io.WriteString(pw, "0123456789")
				_ = pw.Close()
			}()
			return pr
		},
	} {
		began := time.Now()
		if status, took := ask("POST", body(), 10), time.Since(began); status != 413 || took > 2*time.Second {
			t.Errorf("%s: %d after %v", name, status, took)
		}
	}
}

// TestForgetReplay: what cannot be sent again is not kept, and what is about to be is.
func TestForgetReplay(t *testing.T) {
	x := &exchange{keep: true, keepUpTo: 8}
	p := &pump{}
	x.remember(p, []byte("12345"))
	p.forgetReplay() // an answer is being relayed
	x.remember(p, []byte("67"))
	if x.keep || string(x.store) != "12345" {
		t.Errorf("%q is kept of a request that was answered", x.store)
	}
	x = &exchange{keep: true, keepUpTo: 8}
	p = &pump{}
	x.remember(p, []byte("12345"))
	p.replay.Store(replayWanted)
	p.forgetReplay()
	x.remember(p, []byte("6789"))
	if !x.keep || string(x.store) != "123456789" {
		t.Errorf("%q is kept of a request that is sent again", x.store)
	}
}

// dripping is a body of small pieces. Those of a burst have come together.
type dripping struct {
	bursts [][]string
	at     int
}

func (d *dripping) Ready() bool               { return d.at < len(d.bursts[0]) }
func (d *dripping) Trailers() *message.Fields { return nil }
func (d *dripping) Next() ([]byte, bool, error) {
	if !d.Ready() {
		d.bursts, d.at = d.bursts[1:], 0
	}
	d.at++
	return []byte(d.bursts[0][d.at-1]), len(d.bursts) == 1 && d.at == len(d.bursts[0]), nil
}

// writes are those to an upstream; the last ends with a dot.
type writes struct {
	upstream
	got []string
}

func (w *writes) write(p []byte, last bool, _ *message.Fields) error {
	s := string(p)
	if last {
		s += "."
	}
	w.got = append(w.got, s)
	return nil
}

func (w *writes) stopReading() {}

// TestTinyPiecesGoTogether: what came together is written together, and nothing waits for what
// did not come.
func TestTinyPiecesGoTogether(t *testing.T) {
	b := newBed(t, "127.0.0.1:1").start()
	big, large := strings.Repeat("b", directWrite), strings.Repeat("s", directWrite-1)
	for name, tc := range map[string]struct {
		bursts [][]string
		want   []string
	}{
		"one by one":      {[][]string{{"a"}, {"b"}, {"c"}}, []string{"a", "b", "c."}},
		"all at once":     {[][]string{{"a", "b", "c"}}, []string{"abc."}},
		"in bursts":       {[][]string{{"a", "b"}, {"c"}, {"d", ""}}, []string{"ab", "c", "d."}},
		"an end alone":    {[][]string{{"a", "b"}, {""}}, []string{"ab", "."}},
		"before a big":    {[][]string{{"a", big, "c"}}, []string{"a" + big, "c."}},
		"more than fits":  {[][]string{{large, large, large, "d"}}, []string{large + large + large, "d."}},
		"big ones go on":  {[][]string{{big, big, "c"}}, []string{big, big, "c."}},
		"nothing but end": {[][]string{{""}}, []string{"."}},
	} {
		t.Run(name, func(t *testing.T) {
			x := besides(b)
			defer x.leave()
			x.complete = false
			x.req.Body = &dripping{bursts: tc.bursts}
			p, w := newPump(x), new(writes)
			p.up = w
			p.work()
			if !slices.Equal(w.got, tc.want) {
				t.Errorf("%.20q", w.got)
			}
			if all := strings.Join(tc.want, ""); p.sent != int64(len(all)-1) || p.received.Load() != p.sent {
				t.Errorf("%d sent, %d received", p.sent, p.received.Load())
			}
			x.complete = true
		})
	}
}

// TestPumpStartsAnew: who waits for a pump is not deceived by the end of an earlier run
// that nobody waited for, and one that still runs is left alone.
func TestPumpStartsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := &exchange{}
		p := newPump(x)
		p.reset()
		p.end()
		p.reset()
		if p.waitFor(time.Second) {
			t.Error("it is over before it ends")
		}
		over := make(chan struct{})
		go func() {
			defer close(over)
			p.wait()
		}()
		synctest.Wait()
		select {
		case <-over:
			t.Error("it is over before it ends")
		default:
		}
		p.end()
		<-over
		if !p.waitFor(time.Second) || !p.ended() {
			t.Error("it has ended")
		}
	})
	x := &exchange{dog: &watchdog{}, tunnel: true} // whose time the end of a body does not bound
	x.req = &x.request
	start := func() *pump {
		x.req.Body, x.complete = &dripping{bursts: [][]string{{"a"}}}, false
		x.startPump(new(writes), nil)
		return x.pump
	}
	first := start()
	first.wait()
	if second := start(); second != first {
		t.Error("one that was over is not started again")
	}
	first.wait()
	if first.sent != 1 || first.upErr != nil {
		t.Errorf("%d sent, %v", first.sent, first.upErr)
	}
	first.over.Store(false) // as if it ran
	second := start()
	if second == first {
		t.Error("one that runs is started again")
	}
	second.wait()
	first.over.Store(true)
}

// TestHeldPiecesAreForgotten: pieces that waited for what came with them, which was broken,
// are no part of the next body: that may be another client's.
func TestHeldPiecesAreForgotten(t *testing.T) {
	x := &exchange{dog: &watchdog{}, tunnel: true} // whose time the end of a body does not bound
	x.req = &x.request
	w := new(writes)
	for _, body := range []message.Body{
		&brokenBody{pieces: [][]byte{[]byte("secret")}},
		&dripping{bursts: [][]string{{"a"}}},
	} {
		x.req.Body, x.complete = body, false
		x.startPump(w, nil)
		x.pump.wait()
	}
	if want := []string{"a."}; !slices.Equal(w.got, want) || x.pump.sent != 1 {
		t.Errorf("%q was sent, %d bytes, want %q", w.got, x.pump.sent, want)
	}
}

package hcm

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	bodybuffer "github.com/hauberk-mesh/hauberk/sidecar/filter/buffer"
	"github.com/hauberk-mesh/hauberk/sidecar/http2"
	"github.com/hauberk-mesh/hauberk/sidecar/overload"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// refusesFirst answers the first request with 503 once it has all of it, and later ones with
// what it got.
func refusesFirst(seen *atomic.Int32) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if seen.Add(1) == 1 {
			w.WriteHeader(503)
			return
		}
		fmt.Fprint(w, n, err)
	}
}

// upload sends n bytes, in pieces that have no length together.
func (b *bed) upload(version, n int) (status int, body string) {
	b.t.Helper()
	resp, err := b.httpClient(version).Post("http://"+b.addr+"/", "", io.MultiReader(bytes.NewReader(make([]byte, n))))
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text)
}

func (b *bed) keepsNothing() {
	b.t.Helper()
	b.eventually("what was kept is given back", func() bool { return keeping.Load() == 0 })
}

// TestUploadIsTriedAgain: a body is kept for another attempt up to the limit that Envoy has.
// Envoy 1.40: 1 MiB of HTTP/1, or the listener's per_connection_buffer_limit_bytes, the
// window of a stream of HTTP/2, and in place of both what the route says.
func TestUploadIsTriedAgain(t *testing.T) {
	const mib = 1 << 20
	for _, tc := range []struct {
		name         string
		version      int
		limit        *uint32
		window       uint32
		route        *uint64
		kept, beyond int
	}{
		{"HTTP/1", 1, nil, 0, nil, mib, mib + 1},
		{"HTTP/2", 2, nil, 0, nil, mib, mib + 1},
		{"the listener's", 1, ptr(uint32(100_000)), 0, nil, 100_000, 100_001},
		{"none of the listener's", 1, ptr(uint32(0)), 0, nil, 3 * mib, 0},
		{"a stream's window", 2, ptr(uint32(1)), 100_000, nil, 100_000, 100_001},
		{"the route's", 1, ptr(uint32(100_000)), 0, ptr(uint64(2 * mib)), 2 * mib, 2*mib + 1},
		{"the route's, HTTP/2", 2, nil, 100_000, ptr(uint64(2 * mib)), 2 * mib, 2*mib + 1},
		{"nothing", 1, nil, 0, ptr(uint64(0)), 0, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, up := range []int{1, 2} {
				for _, n := range []int{tc.kept, tc.beyond} {
					var seen atomic.Int32
					b := versionedBed(t, tc.version, up, refusesFirst(&seen))
					b.route().Forward.Retry = &route.RetryPolicy{On: route.Retry5xx, NumRetries: 1, BackOffBase: 1}
					b.route().BufferLimit, b.cfg.BufferLimit = tc.route, tc.limit
					if tc.window > 0 {
						b.cfg.HTTP2 = http2.Default()
						b.cfg.HTTP2.StreamWindow = tc.window
					}
					b.start()
					wantStatus, want := 200, fmt.Sprint(n, nil)
					if n > tc.kept {
						wantStatus, want = 503, ""
					}
					if tc.beyond == 0 && n == 0 {
						continue
					}
					if status, body := b.upload(tc.version, n); status != wantStatus || body != want {
						t.Errorf("%d bytes to HTTP/%d: %d %q", n, up, status, body)
					}
					b.keepsNothing()
				}
			}
		})
	}
}

// TestUploadIsNotKeptInVain: where no policy could send a body again, no more of it is kept
// than an exchange has memory for.
func TestUploadIsNotKeptInVain(t *testing.T) {
	for name, tc := range map[string]struct {
		policy *route.RetryPolicy
		up     int
		kept   bool
	}{
		"no redirects":                  {nil, 1, false},
		"redirects":                     {nil, 1, true},
		"no policy":                     {nil, 1, false},
		"no retries":                    {&route.RetryPolicy{On: route.Retry5xx}, 1, false},
		"no condition":                  {&route.RetryPolicy{NumRetries: 1}, 1, false},
		"unsent, HTTP/1":                {&route.RetryPolicy{NumRetries: 1, On: route.RetryConnectFailure | route.RetryRefusedStream | route.RetryResetBeforeRequest}, 1, false},
		"unsent, HTTP/2":                {&route.RetryPolicy{NumRetries: 1, On: route.RetryConnectFailure}, 2, false},
		"refused, HTTP/2":               {&route.RetryPolicy{NumRetries: 1, On: route.RetryRefusedStream}, 2, true},
		"idempotent, which POST is not": {&route.RetryPolicy{NumRetries: 1, On: route.RetryResetIdempotent}, 1, false},
		"of others":                     {&route.RetryPolicy{NumRetries: 1, On: route.Retry5xx, RequestHeaders: []route.HeaderMatch{{Name: "x-none", Present: ptr(true)}}}, 1, false},
		"answers":                       {&route.RetryPolicy{NumRetries: 1, On: route.RetryRetriable4xx}, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			most, over := make(chan int64, 1), make(chan struct{})
			b := versionedBed(t, 1, tc.up, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				most <- keeping.Load()
				<-over
			})
			b.route().Forward.Retry = tc.policy
			switch name {
			case "no redirects":
				b.route().Forward.InternalRedirect = &route.InternalRedirect{Codes: []int{302}}
			case "redirects":
				b.route().Forward.InternalRedirect = &route.InternalRedirect{Codes: []int{302}, Max: 1}
			}
			b.start()
			go func() {
				defer close(over)
				if kept := <-most > 0; kept != tc.kept {
					t.Errorf("kept: %t", kept)
				}
			}()
			if status, _ := b.upload(1, 300_000); status != 200 {
				t.Error(status)
			}
		})
	}
}

// TestKeptIsGivenBack: once an answer is relayed nothing is sent again, however long it takes.
func TestKeptIsGivenBack(t *testing.T) {
	bridges(t, func(t *testing.T, down, up int) {
		over := make(chan struct{})
		b := versionedBed(t, down, up, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			<-over
		})
		b.route().Forward.Retry = &route.RetryPolicy{On: route.Retry5xx, NumRetries: 1}
		b.start()
		resp, err := b.httpClient(down).Post("http://"+b.addr+"/", "", strings.NewReader(strings.Repeat("x", 300_000)))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b.keepsNothing()
		close(over)
	})
}

// TestKeptByAllIsBounded: where exchanges keep as much as they may together, or memory runs
// short, a longer body is passed on and not tried again.
func TestKeptByAllIsBounded(t *testing.T) {
	var seen atomic.Int32
	b := versionedBed(t, 1, 1, refusesFirst(&seen))
	b.route().Forward.Retry = &route.RetryPolicy{On: route.Retry5xx, NumRetries: 1, BackOffBase: 1}
	b.start()
	keeping.Add(keepAll)
	status, _ := b.upload(1, 300_000)
	if keeping.Add(-keepAll) != 0 || status != 503 || seen.Load() != 1 {
		t.Errorf("%d after %d attempts", status, seen.Load())
	}
}

// TestLargeBodiesAreCopied: what is kept is also mirrored and hedged.
func TestLargeBodiesAreCopied(t *testing.T) {
	const n = 300_000
	for _, version := range []int{1, 2} {
		b, seen := mirrorBed(t, route.Mirror{Share: route.All})
		b.start()
		if status, _ := b.upload(version, n); status != 200 {
			t.Error(status)
		}
		if got := get(t, seen); !strings.HasSuffix(got, strings.Repeat("\x00", n)) {
			t.Errorf("HTTP/%d: the mirror saw %d bytes", version, len(got))
		}
		b.keepsNothing()
	}
	for _, version := range []int{1, 2} {
		b := newBed(t, httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
			n, _ := io.Copy(io.Discard, r.Body)
			if r.Header.Get("X-Envoy-Attempt-Count") == "1" {
				<-r.Context().Done()
			}
			fmt.Fprint(w, n)
		}))
		b.vhost().AttemptCountInRequest = true
		b.hedged(50 * time.Millisecond)
		b.start()
		resp, err := b.httpClient(version).Post("http://"+b.addr+"/", "", bytes.NewReader(make([]byte, n)))
		if err != nil {
			t.Fatal(err)
		}
		if body, _ := io.ReadAll(resp.Body); string(body) != fmt.Sprint(n) {
			t.Errorf("HTTP/%d: %q of a hedged upload", version, body)
		}
		_ = resp.Body.Close()
		b.keepsNothing()
	}
}

// TestCopiesHaveHalf: copies of what hosts do not answer take no other request's attempts away.
func TestCopiesHaveHalf(t *testing.T) {
	b, _ := mirrorBed(t, route.Mirror{Share: route.All})
	b.route().Forward.Retry = &route.RetryPolicy{On: route.Retry5xx, NumRetries: 1, BackOffBase: 1}
	b.cluster("failing", httpOrigin(t, refusesFirst(new(atomic.Int32))))
	b.route().Forward.Cluster = "failing"
	b.start()
	keeping.Add(keepAll / 2)
	status, _ := b.upload(1, 300_000)
	b.logged(1)
	keeping.Add(-keepAll / 2)
	b.keepsNothing()
	if copies := b.counted("hauberk_mirrored_requests_total"); status != 200 || copies != `hauberk_mirrored_requests_total{result="too_large"} 1` {
		t.Errorf("%d; %s", status, copies)
	}
}

// TestShortMemoryKeepsNothing: while requests are refused for want of memory no more is kept of
// those that are under way.
func TestShortMemoryKeepsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := overload.New(&overload.Config{MaxHeap: 1, Actions: []overload.Action{
			{Kind: overload.RefuseRequests, Triggers: []overload.Trigger{{Resource: overload.Heap, Threshold: 1}}},
		}}, overload.Options{Heap: func() uint64 { return 1 }, Collect: func() {}})
		x := &exchange{d: downstream.New(downstream.Facts{Place: &downstream.Place{Overload: m.Signals(false)}}, nil), keepUpTo: defaultKept}
		if !x.keepMore(make([]byte, replayLimit+1), false) {
			t.Error("nothing is kept while memory is there")
		}
		ctx, cancel := context.WithCancel(t.Context())
		go m.Run(ctx)
		time.Sleep(2 * time.Second)
		cancel()
		if x.keepMore(make([]byte, replayLimit), false) {
			t.Error("more is kept while memory is short")
		}
		if !x.keepMore(make([]byte, replayLimit), true) || len(x.payload) != 2*replayLimit+1 {
			t.Error("what is about to be sent again is not kept")
		}
		if x.dropKept(); keeping.Load() != 0 || x.store != nil {
			t.Errorf("%d bytes count as kept", keeping.Load())
		}
	})
}

// TestUploadsKeepApart: memory that goes from upload to upload is one's at a time.
func TestUploadsKeepApart(t *testing.T) {
	bridges(t, func(t *testing.T, down, up int) {
		b := versionedBed(t, down, up, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			if r.Header.Get("X-Envoy-Attempt-Count") != "3" {
				w.WriteHeader(503)
				return
			}
			_, _ = w.Write(body)
		})
		b.vhost().AttemptCountInRequest = true
		b.route().Forward.Retry = &route.RetryPolicy{On: route.Retry5xx, NumRetries: 2, BackOffBase: 1}
		b.start()
		c := b.httpClient(down)
		var all sync.WaitGroup
		for i := range 6 {
			all.Go(func() {
				for size := 50_000; size < 900_000; size += 70_000 + i {
					sent := bytes.Repeat([]byte{byte(i)}, size)
					resp, err := c.Post("http://"+b.addr+"/", "", bytes.NewReader(sent))
					if err != nil {
						t.Error(err)
						return
					}
					got, err := io.ReadAll(resp.Body)
					if _ = resp.Body.Close(); resp.StatusCode != 200 || !bytes.Equal(got, sent) {
						t.Errorf("%d bytes of %d, %d: %d, %v", len(got), len(sent), i, resp.StatusCode, err)
					}
				}
			})
		}
		all.Wait()
	})
}

// BenchmarkUpload is 1 MiB to a host that takes it all, and what keeping it costs.
func BenchmarkUpload(b *testing.B) {
	for _, version := range []int{1, 2} {
		for name, p := range map[string]*route.RetryPolicy{"passed": nil, "kept": {On: route.Retry5xx, NumRetries: 1}} {
			b.Run(fmt.Sprintf("HTTP/%d %s", version, name), func(b *testing.B) {
				x := quiet(versionedBed(b, version, version, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
				x.route().Forward.Retry = p
				c, body := x.start().httpClient(version), make([]byte, 1<<20)
				b.ReportAllocs()
				before := cpu()
				for b.Loop() {
					resp, err := c.Post("http://"+x.addr+"/", "", bytes.NewReader(body))
					if err != nil {
						b.Fatal(err)
					}
					_ = resp.Body.Close()
				}
				b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/op")
			})
		}
	}
}

// TestTunnelsForgetNothing: an answer does not end the need for what came early.
func TestTunnelsForgetNothing(t *testing.T) {
	x := &exchange{tunnel: true, store: make([]byte, keepBuffer+1)}
	x.payload = x.store
	if x.forgetKept(); len(x.payload) != keepBuffer+1 {
		t.Errorf("%d bytes are left", len(x.payload))
	}
}

// TestBufferedByAllIsBounded: a filter that wants the whole body has it within what all
// requests may keep; one for which there is no room is refused, as with too little memory.
func TestBufferedByAllIsBounded(t *testing.T) {
	for version := 1; version <= 2; version++ {
		b := versionedBed(t, version, 1, echo)
		b.filter("buffer", &bodybuffer.Config{MaxBytes: 1 << 20})
		b.start()
		keeping.Add(keepAll)
		if status, _ := b.upload(version, 300_000); status != 503 {
			t.Errorf("HTTP/%d: %d without room", version, status)
		}
		keeping.Add(-keepAll)
		if status, _ := b.upload(version, 300_000); status != 200 {
			t.Errorf("HTTP/%d: %d with room", version, status)
		}
		b.keepsNothing()
	}
}

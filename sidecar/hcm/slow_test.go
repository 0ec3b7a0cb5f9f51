package hcm

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/filter/fault"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// slowedBed has answers pass at so many KiB a second.
func slowedBed(t *testing.T, down, up int, kib uint32, h http.HandlerFunc) *bed {
	b := versionedBed(t, down, up, h)
	b.filter("fault", &fault.Config{Rate: &fault.Rate{KiB: kib, Share: route.All}})
	return b
}

// TestSlowedAnswers: a body takes as long as its rate has it, whatever the host's own time is, and
// comes whole, trailers included.
func TestSlowedAnswers(t *testing.T) {
	bubbles(t, func(t *testing.T, down, up int) {
		for _, c := range []struct {
			size int
			took time.Duration // sixteenths of a second behind the first
		}{{0, 0}, {640, 0}, {641, 1}, {10240, 15}, {40960, 63}} {
			b := slowedBed(t, down, up, 10, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Trailer", "X-Sum")
				_, _ = io.WriteString(w, strings.Repeat("x", c.size))
				w.Header().Set("X-Sum", "1")
			})
			b.route().Forward.Timeout = time.Second
			b.start()
			began := time.Now()
			resp, err := b.httpClient(down).Get("http://" + b.addr + "/")
			if err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took > 10*time.Millisecond {
				t.Errorf("the head took %v", took)
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil || len(body) != c.size || down == 2 && up == 2 && resp.Trailer.Get("X-Sum") != "1" {
				t.Errorf("%d of %d bytes, trailers %v: %v", len(body), c.size, resp.Trailer, err)
			}
			if took, want := time.Since(began), c.took*time.Second/16; took < want || took > want+10*time.Millisecond {
				t.Errorf("%d bytes took %v, not %v", c.size, took, want)
			}
			b.eventually("nothing is kept", func() bool { return keeping.Load() == 0 })
		}
	})
}

// TestSlowedStream: what a host says late is sent at once, as there was time for it.
func TestSlowedStream(t *testing.T) {
	bubble(func(t *testing.T) {
		b := slowedBed(t, 2, 2, 1, func(w http.ResponseWriter, _ *http.Request) {
			_ = http.NewResponseController(w).Flush()
			for i := range 3 {
				time.Sleep(time.Second)
				fmt.Fprintf(w, "%d%s", i, strings.Repeat("x", 1023))
				_ = http.NewResponseController(w).Flush()
			}
		}).start()
		began := time.Now()
		resp, err := b.httpClient(2).Get("http://" + b.addr + "/")
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(resp.Body); err != nil || len(body) != 3072 {
			t.Errorf("%d bytes, %v", len(body), err)
		}
		if took := time.Since(began); took < 3*time.Second || took > 3100*time.Millisecond {
			t.Errorf("it took %v", took)
		}
	})(t)
}

// TestSlowedAnswerEnds: with the longest duration of its exchange, and with its client.
func TestSlowedAnswerEnds(t *testing.T) {
	bothInBubbles(t, func(t *testing.T, version int) {
		b := slowedBed(t, version, 1, 1, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, strings.Repeat("x", 1<<20))
		})
		b.cfg.MaxStreamDuration = 5 * time.Second
		b.start()
		resp, err := b.httpClient(version).Get("http://" + b.addr + "/")
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(resp.Body); err == nil || len(body) < 4<<10 || len(body) > 6<<10 {
			t.Errorf("%d bytes, %v", len(body), err)
		}
		if got := b.logged(1)[0]; !strings.Contains(got, " 200 DT max_duration_timeout ") {
			t.Errorf("log: %s", got)
		}
		if resp, err = b.httpClient(version).Get("http://" + b.addr + "/"); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		_ = resp.Body.Close()
		if got := b.logged(2)[1]; !strings.Contains(got, " 200 D") || time.Since(began) > 2*time.Second {
			t.Errorf("after %v: %s", time.Since(began), got)
		}
		b.eventually("nothing is kept", func() bool { return keeping.Load() == 0 })
	})
}

// TestSlowedAnswerLeavesItsHost: once all of an answer is here its host has no part in it any more, and
// others may ask it.
func TestSlowedAnswerLeavesItsHost(t *testing.T) {
	bubbles(t, func(t *testing.T, down, up int) {
		b := slowedBed(t, down, up, 10, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", "X-Sum")
			_, _ = io.WriteString(w, strings.Repeat("x", 10240))
			w.Header().Set("X-Sum", r.URL.Path)
		})
		cfg := *b.clusters.Get("origin").Config()
		cfg.Limits.MaxRequests, cfg.TrackBudgets = 1, true
		if err := b.clusters.Update(&cfg); err != nil {
			t.Fatal(err)
		}
		b.route().Forward.Timeout = 4 * time.Second
		b.start()
		c := b.httpClient(down)
		ask := func(path string) *http.Response {
			resp, err := c.Get("http://" + b.addr + path)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != 200 {
				t.Fatalf("%s is answered %d", path, resp.StatusCode)
			}
			return resp
		}
		first := ask("/a")
		time.Sleep(100 * time.Millisecond)
		second := ask("/b")
		for path, resp := range map[string]*http.Response{"/a": first, "/b": second} {
			if body, err := io.ReadAll(resp.Body); err != nil || len(body) != 10240 || down == 2 && up == 2 && resp.Trailer.Get("X-Sum") != path {
				t.Errorf("%s: %d bytes, trailers %v: %v", path, len(body), resp.Trailer, err)
			}
		}
		for _, want := range []string{`_count{cluster="origin",of="request"} 2`, `_count{cluster="origin",of="attempt"} 2`} {
			b.eventually(want, func() bool { return b.metric("hauberk_upstream_timeout_budget_used_ratio" + want) })
		}
	})
}

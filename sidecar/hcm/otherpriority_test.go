package hcm

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// failover has the cluster "origin" of three priorities with the handlers, and retries that go
// to others.
func failover(t *testing.T, handlers [3]http.HandlerFunc) *bed {
	var addrs []string
	for _, h := range handlers {
		addrs = append(addrs, httpOrigin(t, h))
	}
	b := newBed(t, addrs...)
	cfg := *b.clusters.Get("origin").Config()
	at := *cfg.Endpoints
	l := at.Localities[0]
	at.Localities = nil
	for i, e := range l.Endpoints {
		next := l
		next.Priority, next.Endpoints = i, []cluster.Endpoint{e}
		at.Localities = append(at.Localities, next)
	}
	cfg.Endpoints = &at
	if err := b.clusters.Update(&cfg); err != nil {
		t.Fatal(err)
	}
	b.route().Forward.Retry = &route.RetryPolicy{On: route.Retry5xx, NumRetries: 9, OtherPriorities: 1}
	return b
}

// TestRetriesGoToOtherPriorities: in turn, also where there are more attempts than hosts are kept of.
func TestRetriesGoToOtherPriorities(t *testing.T) {
	var seen strings.Builder
	fails := func(name string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			seen.WriteString(name)
			w.WriteHeader(503)
		}
	}
	b := failover(t, [3]http.HandlerFunc{fails("0"), fails("1"), fails("2")})
	b.start()
	c := b.dial()
	for range 2 {
		seen.Reset()
		if c.do("GET / HTTP/1.1\r\nHost: h\r\n\r\n"); seen.String() != "0120120120" {
			t.Errorf("the attempts went to %s", &seen)
		}
	}
}

// TestHedgesGoToOtherPriorities: attempts side by side go to priorities that the others did not.
func TestHedgesGoToOtherPriorities(t *testing.T) {
	over := make(chan struct{})
	hangs := func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-over:
		case <-r.Context().Done():
		}
	}
	b := failover(t, [3]http.HandlerFunc{hangs, hangs, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "2") }})
	b.route().Forward.Hedge = &route.HedgePolicy{OnPerTryTimeout: true}
	b.route().Forward.Retry.NumRetries, b.route().Forward.Retry.PerTryTimeout = 2, 20*time.Millisecond
	b.start()
	resp, body := b.dial().do("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	close(over)
	if resp.StatusCode != 200 || body != "2" {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
}

// TestMirrorsExcludeNoPriority: a copy goes where a first attempt does, though the request's own retries
// went to other priorities.
func TestMirrorsExcludeNoPriority(t *testing.T) {
	seen := make(chan string, 1)
	origin := func(name string, status int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.Host, "-shadow") {
				seen <- name
				return
			}
			_ = http.NewResponseController(w).EnableFullDuplex()
			w.WriteHeader(status)
			_ = http.NewResponseController(w).Flush()
			if status == 200 {
				_, _ = io.Copy(io.Discard, r.Body)
			}
		}
	}
	b := failover(t, [3]http.HandlerFunc{origin("0", 503), origin("1", 200), origin("2", 200)})
	b.route().Forward.Mirrors = []route.Mirror{{Cluster: "origin", Share: route.All}}
	b.start()
	c := b.dial()
	c.send("PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n")
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	c.send("2\r\nlo\r\n0\r\n\r\n")
	if got := get(t, seen); got != "0" {
		t.Errorf("the copy went to %s", got)
	}
}

// TestFirstAttemptsKeepNoList: only a retry needs the list of what was tried.
func TestFirstAttemptsKeepNoList(t *testing.T) {
	p := &route.RetryPolicy{NumRetries: 1, OtherPriorities: 1}
	x := &exchange{sel: route.Selected{Retry: p}}
	h := &cluster.Host{}
	if n := testing.AllocsPerRun(100, func() { x.ntried = 0; x.noteTried(h) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	x.avoid(p)
	x.noteTried(h)
	if tried := x.pick.Tried; tried == nil || tried.Before() == nil || tried.Before().Before() != nil {
		t.Error("a retry does not know of both attempts")
	}
}

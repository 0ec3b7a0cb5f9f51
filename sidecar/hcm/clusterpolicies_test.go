package hcm

import (
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// TestRetriesOfACluster: its policy decides in place of the route's, whose times stay.
func TestRetriesOfACluster(t *testing.T) {
	for name, c := range map[string]struct {
		own, routes  *route.RetryPolicy
		asked        int32
		expectedTime string
	}{
		"in place of none":        {&route.RetryPolicy{On: route.Retry5xx, NumRetries: 2, PerTryTimeout: time.Second, BackOffBase: 1}, nil, 3, "5000"},
		"in place of the route's": {&route.RetryPolicy{}, &route.RetryPolicy{On: route.Retry5xx, NumRetries: 2, PerTryTimeout: 2 * time.Second, BackOffBase: 1}, 1, "2000"},
		"none":                    {nil, &route.RetryPolicy{On: route.Retry5xx, NumRetries: 1, BackOffBase: 1}, 2, "5000"},
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int32
			var told atomic.Value
			addr := httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
				if asked.Add(1) == 1 {
					told.Store(r.Header.Get("x-envoy-expected-rq-timeout-ms"))
				}
				w.WriteHeader(503)
				_, _ = io.WriteString(w, "no")
			})
			b := newBed(t, addr)
			if err := b.clusters.Update(&cluster.Config{Name: "origin", Endpoints: endpoints("origin", addr), ConnectTimeout: time.Second, HTTP: cluster.HTTP{Retry: c.own}}); err != nil {
				t.Fatal(err)
			}
			b.route().Forward.Retry = c.routes
			b.start()
			if resp, _ := b.dial().do("GET / HTTP/1.1\r\nHost: h\r\n\r\n"); resp.StatusCode != 503 || asked.Load() != c.asked || told.Load() != c.expectedTime {
				t.Errorf("%d after %d attempts, which were told of %v ms", resp.StatusCode, asked.Load(), told.Load())
			}
		})
	}
}

// TestConnectionsOfAClient: whether clients share connections is for the cluster to say that the route
// names, whatever those within it say.
func TestConnectionsOfAClient(t *testing.T) {
	for name, c := range map[string]struct{ outer, inner, within, shared bool }{
		"apart": {outer: true}, "shared": {shared: true},
		"apart over shared": {within: true, outer: true}, "shared over apart": {within: true, inner: true, shared: true},
	} {
		t.Run(name, func(t *testing.T) {
			addr := httpOrigin(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.RemoteAddr) })
			b := newBed(t, addr)
			host := cluster.Config{Name: "origin", Endpoints: endpoints("origin", addr), HTTP: cluster.HTTP{PerClient: c.outer}}
			if c.within {
				host = cluster.Config{Name: "host", Endpoints: endpoints("host", addr), HTTP: cluster.HTTP{PerClient: c.inner}}
				if err := b.clusters.Update(&cluster.Config{Name: "origin", Type: cluster.Aggregate, Aggregate: []string{"host"}, HTTP: cluster.HTTP{PerClient: c.outer}}); err != nil {
					t.Fatal(err)
				}
			}
			if err := b.clusters.Update(&host); err != nil {
				t.Fatal(err)
			}
			b.start()
			var seen []string
			for range 2 {
				client := b.dial()
				for range 2 {
					_, from := client.do("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
					seen = append(seen, from)
				}
			}
			if seen[0] == "" || seen[0] != seen[1] || seen[2] != seen[3] || (seen[0] == seen[2]) != c.shared {
				t.Errorf("upstream connections %q", seen)
			}
		})
	}
}

// TestHashOfACluster: its policy decides in place of the route's.
func TestHashOfACluster(t *testing.T) {
	says := func(name string) string {
		return httpOrigin(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name) })
	}
	hosts := endpoints("origin", says("a"))
	for _, name := range []string{"b", "c"} {
		hosts.Localities[0].Endpoints = append(hosts.Localities[0].Endpoints, endpoints("origin", says(name)).Localities[0].Endpoints...)
	}
	b := newBed(t)
	if err := b.clusters.Update(&cluster.Config{Name: "origin", LB: cluster.RingHash, Endpoints: hosts,
		HTTP: cluster.HTTP{Hash: []route.HashPolicy{{Header: "x-own"}}}}); err != nil {
		t.Fatal(err)
	}
	b.route().Forward.Hash = []route.HashPolicy{{Header: "x-of-the-route"}}
	b.start()
	client := b.dial()
	ask := func(own, other int) string {
		_, body := client.do(fmt.Sprintf("GET / HTTP/1.1\r\nHost: h\r\nX-Own: %d\r\nX-Of-The-Route: %d\r\n\r\n", own, other))
		return body
	}
	byOwn, byOther := map[string]bool{}, map[string]bool{}
	for i := range 20 {
		byOwn[ask(i, 0)], byOther[ask(0, i)] = true, true
	}
	if len(byOwn) < 2 || len(byOther) != 1 {
		t.Errorf("hosts by its own header %v, by the route's %v", byOwn, byOther)
	}
}

// TestErrorsOfACluster: which answers eject its host is for it to say.
func TestErrorsOfACluster(t *testing.T) {
	yes := true
	addr := httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/500" {
			w.WriteHeader(500)
		}
		if r.URL.Path == "/error" {
			w.Header().Set("X-Fail", "1")
		}
	})
	b := newBed(t, addr)
	if err := b.clusters.Update(&cluster.Config{Name: "origin", Endpoints: endpoints("origin", addr), PanicThreshold: new(float64),
		Outlier: &cluster.Outlier{Consecutive5xx: 1, EnforcingConsecutive5xx: 100, MaxEjectionPercent: 100},
		HTTP:    cluster.HTTP{Errors: &route.AnswerMatch{Headers: []route.HeaderMatch{{Name: "x-fail", Present: &yes}}}}}); err != nil {
		t.Fatal(err)
	}
	b.start()
	c := b.dial()
	for _, step := range []struct {
		path   string
		status int
	}{{"/500", 500}, {"/500", 500}, {"/error", 200}, {"/", 503}} {
		if resp, _ := c.do("GET " + step.path + " HTTP/1.1\r\nHost: h\r\n\r\n"); resp.StatusCode != step.status {
			t.Errorf("%s: %d", step.path, resp.StatusCode)
		}
	}
}

// TestMirrorsOfACluster: its copies are made in place of the route's.
func TestMirrorsOfACluster(t *testing.T) {
	b, seen := mirrorBed(t, route.Mirror{Cluster: "nowhere", Share: route.All})
	own, err := route.NewMirrors([]route.Mirror{{Cluster: "mirror", Share: route.All}, {Cluster: "mirror"}})
	if err != nil {
		t.Fatal(err)
	}
	c := *b.clusters.Get("origin").Config()
	c.HTTP.Mirrors = own
	if err := b.clusters.Update(&c); err != nil {
		t.Fatal(err)
	}
	b.start()
	if _, body := b.dial().do("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"); body != "POST|5|hello" {
		t.Errorf("%q", body)
	}
	if got := get(t, seen); got != "POST / h-shadow |hello" {
		t.Errorf("the mirror saw %q", got)
	}
	if len(seen) > 0 {
		t.Errorf("it saw %q besides", <-seen)
	}
}

// TestHashOfABalancer: its own policies decide in place of the cluster's and the route's, within an
// aggregate too, and make no cookies.
func TestHashOfABalancer(t *testing.T) {
	says := func(name string) string {
		return httpOrigin(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name) })
	}
	hosts := endpoints("hosts", says("a"))
	for _, name := range []string{"b", "c"} {
		hosts.Localities[0].Endpoints = append(hosts.Localities[0].Endpoints, endpoints("hosts", says(name)).Localities[0].Endpoints...)
	}
	for name, first := range map[string]*cluster.Config{
		"hosts":        nil,
		"an aggregate": {Name: "origin", Type: cluster.Aggregate, Aggregate: []string{"hosts"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			ring := cluster.Config{Name: "hosts", LB: cluster.RingHash, Endpoints: hosts, HTTP: cluster.HTTP{Hash: []route.HashPolicy{{Header: "x-other"}}},
				Hash: &cluster.HashTable{Policies: []route.HashPolicy{{Header: "x-own", Terminal: true}, {Cookie: &route.CookieHash{Name: "c", TTL: new(time.Duration)}}}}}
			b.route().Forward.Cluster = "hosts"
			if first != nil {
				b.route().Forward.Cluster = "origin"
				if err := b.clusters.Update(first); err != nil {
					t.Fatal(err)
				}
			}
			if err := b.clusters.Update(&ring); err != nil {
				t.Fatal(err)
			}
			b.route().Forward.Hash = []route.HashPolicy{{Header: "x-other"}}
			b.start()
			client := b.dial()
			ask := func(own, other int) string {
				resp, body := client.do(fmt.Sprintf("GET / HTTP/1.1\r\nHost: h\r\nX-Own: %d\r\nX-Other: %d\r\n\r\n", own, other))
				if resp.Header.Get("Set-Cookie") != "" {
					t.Errorf("a cookie was made: %v", resp.Header)
				}
				return body
			}
			byOwn, byOther := map[string]bool{}, map[string]bool{}
			for i := range 20 {
				byOwn[ask(i, 0)], byOther[ask(0, i)] = true, true
			}
			if len(byOwn) < 2 || len(byOther) != 1 {
				t.Errorf("hosts by its own header %v, by the other %v", byOwn, byOther)
			}
		})
	}
}

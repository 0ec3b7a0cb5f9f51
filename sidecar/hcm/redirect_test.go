package hcm

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/overload"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// redirectBed has a route of "/" whose redirects are followed, to an origin that answers each of
// its first requests with one of the redirects, and routes of "/to" and "/own" to another. What
// that other got is on the channel.
func redirectBed(t *testing.T, redirects ...string) (*bed, chan string) {
	var n atomic.Int32
	b := newBed(t, httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		i := int(n.Add(1)) - 1
		if i >= len(redirects) {
			fmt.Fprintf(w, "%s|%s", r.RequestURI, body)
			return
		}
		status := 302
		_, _ = fmt.Sscan(r.Header.Get("X-Status"), &status)
		w.Header().Set("Location", redirects[i])
		w.WriteHeader(status)
		fmt.Fprint(w, "moved")
	}))
	seen := make(chan string, 10)
	b.cluster("other", httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		seen <- fmt.Sprintf("%s %s %s %d %s %s", r.Method, r.Host, r.RequestURI, len(body), r.Header.Get("X-Envoy-Original-Url"), r.Trailer.Get("X-T"))
		fmt.Fprint(w, "other")
	}))
	vh := &b.cfg.Routes.VirtualHosts[0]
	all := vh.Routes[0]
	all.Forward.InternalRedirect = &route.InternalRedirect{Max: 1, Codes: []int{302, 303, 307}, CrossScheme: true}
	vh.Routes = nil
	for _, name := range []string{"to", "own"} {
		vh.Routes = append(vh.Routes, route.Route{Name: name, Match: route.Match{Prefix: ptr("/" + name)}, Forward: &route.Forward{Cluster: "other", Timeout: 5 * time.Second}})
	}
	vh.Routes = append(vh.Routes, all)
	return b, seen
}

// redirecting is the route whose redirects are followed.
func (b *bed) redirecting() *route.Forward { return b.cfg.Routes.VirtualHosts[0].Routes[2].Forward }

const followed = `hauberk_upstream_internal_redirects_total{cluster="origin",result="followed"} `

func TestRedirects(t *testing.T) {
	large := strings.Repeat("x", 200<<10)
	for _, tc := range []struct{ name, raw, to, want, log string }{
		{"GET", "GET /a?b HTTP/1.1\r\nHost: h\r\n\r\n", "http://o:80/to?x#y", "GET o:80 /to?x 0 http://h/a?b ", "GET /a?b 302 - internal_redirect everything "},
		{"POST", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello", "http://h/to", "POST h /to 5 http://h/a ", "POST /a 302 - internal_redirect everything "},
		{"POST as GET", "POST /a HTTP/1.1\r\nHost: h\r\nX-Status: 303\r\nContent-Length: 5\r\n\r\nhello", "http://h/to", "GET h /to 0 http://h/a ", "POST /a 303 - internal_redirect everything "},
		{"chunks and trailers", "POST /a HTTP/1.1\r\nHost: h\r\nX-Status: 307\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n5\r\nhello\r\n0\r\nX-T: t\r\n\r\n", "http://h/to", "POST h /to 5 http://h/a t", "POST /a 307 - internal_redirect everything "},
		{"more than is kept without a policy", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 204800\r\n\r\n" + large, "http://h/to", "POST h /to 204800 http://h/a ", "POST /a 302 - internal_redirect everything "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b, seen := redirectBed(t, tc.to)
			b.start()
			c := b.dial()
			if resp, body := c.do(tc.raw); resp.StatusCode != 200 || body != "other" {
				t.Fatalf("%d %q", resp.StatusCode, body)
			}
			if got := get(t, seen); got != tc.want {
				t.Errorf("the other saw %q, want %q", got, tc.want)
			}
			lines := b.logged(2)
			if !strings.HasPrefix(lines[0], tc.log) || !strings.Contains(lines[1], " 200 - via_upstream to ") {
				t.Errorf("logged %q", lines)
			}
			if !b.metric(followed + "1") {
				t.Error("the redirect was not counted")
			}
			// Nothing of it is left for the next request on the connection.
			if resp, body := c.do("GET /next HTTP/1.1\r\nHost: h\r\n\r\n"); resp.StatusCode != 200 || body != "/next|" {
				t.Errorf("%d %q", resp.StatusCode, body)
			}
		})
	}
}

// TestSchemeOfARedirect: the request that is sent on keeps its scheme when the answer that named it
// is gone.
func TestSchemeOfARedirect(t *testing.T) {
	b, _ := redirectBed(t, "http://h/to")
	b.cfg.AccessLog[0].Format = "%REQ(:SCHEME)%\n"
	b.start()
	if resp, body := b.dial().do("GET /a HTTP/1.1\r\nHost: h\r\n\r\n"); resp.StatusCode != 200 || body != "other" {
		t.Fatalf("%d %q", resp.StatusCode, body)
	}
	if got := b.logged(2); got[0] != "http" || got[1] != "http" {
		t.Errorf("the schemes are %q", got)
	}
}

// TestRedirectConnection: an origin that redirects keeps its connection.
func TestRedirectConnection(t *testing.T) {
	var conns atomic.Int32
	b, _ := redirectBed(t)
	b.cluster("origin", rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
		conns.Add(1)
		for {
			if _, _, err := readRequest(r); err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 302 Found\r\nLocation: http://h/to\r\nContent-Length: 5\r\n\r\nmoved")
		}
	}))
	b.start()
	c := b.dial()
	for range 3 {
		if resp, _ := c.do("GET /a HTTP/1.1\r\nHost: h\r\n\r\n"); resp.StatusCode != 200 {
			t.Fatal(resp.StatusCode)
		}
	}
	if n := conns.Load(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// TestRedirectBeforeTheLastWrite: a host that redirects without taking the end of a body that is
// here is not waited for.
func TestRedirectBeforeTheLastWrite(t *testing.T) {
	for _, tc := range []struct {
		version int
		status  string
		want    string
	}{
		{1, "307", "POST h /to 10 http://h/a "},
		{2, "307", "POST h /to 10 http://h/a "},
		{1, "303", "GET h /to 0 http://h/a "},
	} {
		t.Run(fmt.Sprintf("HTTP %d: %s", tc.version, tc.status), func(t *testing.T) {
			b, seen := redirectBed(t)
			b.cluster("origin", framesOrigin(t, func(f *http2.Framer, fr http2.Frame) {
				switch fr := fr.(type) {
				case *http2.HeadersFrame:
					if fr.StreamEnded() {
						answerFrame(f, fr.StreamID, "204")
					}
				case *http2.DataFrame:
					answerFrame(f, fr.StreamID, tc.status, hpack.HeaderField{Name: "location", Value: "http://h/to"})
				}
			}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 5}))
			b.http2Cluster()
			c := b.start().httpClient(tc.version)
			ask := func(method, body string) (status int) {
				req, _ := http.NewRequest(method, "http://"+b.addr+"/a", strings.NewReader(body))
				req.Host = "h"
				resp, err := c.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				_ = resp.Body.Close()
				return resp.StatusCode
			}
			ask("GET", "") // from now on the host's window is known
			if status := ask("POST", "0123456789"); status != 200 {
				t.Fatal(status)
			}
			if got := get(t, seen); got != tc.want {
				t.Errorf("the other saw %q, want %q", got, tc.want)
			}
			b.atRest()
		})
	}
}

// TestRedirectForgetsTheBody: what is not sent again is not kept as long as the last answer takes.
func TestRedirectForgetsTheBody(t *testing.T) {
	b, _ := redirectBed(t, "http://h/to")
	over := make(chan struct{})
	b.cluster("other", httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-over
	}))
	b.cfg.Routes.VirtualHosts[0].Routes[0].Forward.Timeout = 0
	b.start()
	req, _ := http.NewRequest("POST", "http://"+b.addr+"/a", strings.NewReader(strings.Repeat("x", 300_000)))
	req.Header.Set("X-Status", "303")
	resp, err := b.httpClient(1).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b.keepsNothing()
	close(over)
}

// TestRedirectUnderLoad: the route of a redirect that is refused for want of memory has no part in
// the answer.
func TestRedirectUnderLoad(t *testing.T) {
	var heap atomic.Uint64
	m := overload.New(&overload.Config{MaxHeap: 1, Refresh: time.Millisecond, Actions: []overload.Action{
		{Kind: overload.RefuseRequests, Triggers: []overload.Trigger{{Resource: overload.Heap, Threshold: 1}}},
	}}, overload.Options{Heap: heap.Load, Collect: func() {}})
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() { m.Run(ctx); close(over) }()
	defer func() { cancel(); <-over }()
	b, _ := redirectBed(t)
	b.overload = m.Signals(false)
	b.cluster("origin", httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		heap.Store(1)
		b.eventually("requests are refused", b.overload.RefusesRequests)
		w.Header().Set("Location", "http://h/to")
		w.WriteHeader(302)
	}))
	b.cfg.Routes.VirtualHosts[0].Routes[0].Headers = &route.HeaderMutations{ResponseAdd: []route.HeaderAdd{{Name: "x-to", Value: "1"}}}
	b.start()
	resp, _ := b.dial().do("GET /a HTTP/1.1\r\nHost: h\r\n\r\n")
	if resp.StatusCode != 503 || resp.Header.Get("X-To") != "" {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
	if lines := b.logged(2); !strings.HasPrefix(lines[1], "GET /to 503 - overload - -") {
		t.Errorf("logged %q", lines)
	}
}

// TestRedirectForgetsRewrites: what the first route made of path and host is not told of the
// request that it was redirected to, by the log's format neither.
func TestRedirectForgetsRewrites(t *testing.T) {
	b, _ := redirectBed(t, "http://h/to")
	b.redirecting().Rewrite = &route.Rewrite{Prefix: "/rewritten/", Host: "inside"}
	seen := make(chan http.Header, 1)
	b.cluster("other", httpOrigin(t, func(w http.ResponseWriter, r *http.Request) { seen <- r.Header }))
	b.cfg.AccessLog[0].Format = "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%\n"
	b.start()
	b.dial().do("GET /a HTTP/1.1\r\nHost: h\r\n\r\n")
	h := <-seen
	for name, want := range map[string]string{"Path": "", "Host": "", "Url": "http://inside/rewritten/a"} {
		if got := h.Get("X-Envoy-Original-" + name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if lines := b.logged(2); strings.Join(lines, " ") != "/a /to" {
		t.Errorf("logged %q", lines)
	}
}

// TestRedirectIsAuthorized: a redirect leads nobody to where he may not go, however it is
// written, and whoever's rules forbid it.
func TestRedirectIsAuthorized(t *testing.T) {
	nowhere := authz.HTTPFilter{Rules: &authz.Rules{Action: authz.Deny, Policies: []authz.Policy{{
		Name: "not to", Permissions: []authz.Permission{{URLPath: &route.StringMatch{Prefix: ptr("/to")}}}, Principals: []authz.Principal{{Any: true}},
	}}}}
	nobody := &authz.HTTPFilter{Rules: &authz.Rules{Action: authz.Allow}}
	for _, tc := range []struct {
		to     string
		status int
	}{
		{"http://h/to", 403},
		{"http://h/x/../to", 403},
		{"http://h/x/%2e%2E/to", 403},
		{"http://h//to", 403},
		{"http://h/%74o", 403},
		{"http://h/x%2f..%2fto", 400},
		{"http://h/own", 403},
		{"http://h/x/../own", 403},
		{"http://h/free", 200},
	} {
		t.Run(tc.to, func(t *testing.T) {
			b, seen := redirectBed(t, tc.to)
			b.cfg.NormalizePath, b.cfg.MergeSlashes, b.cfg.EscapedSlashes = true, true, RejectEscaped
			b.rbac(nowhere)
			b.cfg.Routes.VirtualHosts[0].Routes[1].Filters = override("rbac0", nobody)
			b.start()
			if resp, _ := b.dial().do("GET /a HTTP/1.1\r\nHost: h\r\n\r\n"); resp.StatusCode != tc.status {
				t.Errorf("%d, want %d", resp.StatusCode, tc.status)
			}
			if len(seen) > 0 {
				t.Errorf("the other saw %q", <-seen)
			}
		})
	}
}

// TestRedirectIsPassedOn has what is not followed, and why.
func TestRedirectIsPassedOn(t *testing.T) {
	for _, tc := range []struct {
		name, to, result string
		change           func(*bed)
	}{
		{"relative", "/to", "bad_location", nil},
		{"no more", "http://h/to", "too_many", func(b *bed) { b.redirecting().InternalRedirect.Max = 0 }},
		{"https", "https://h/to", "scheme", func(b *bed) { b.redirecting().InternalRedirect.CrossScheme = false }},
		{"a predicate", "http://h/to", "predicate", func(b *bed) {
			b.redirecting().InternalRedirect.Predicates = []route.RedirectPredicate{{Kind: route.AllowListedRoutes, Routes: []string{"own"}}}
		}},
		{"no route", "http://h/to", "no_route", func(b *bed) {
			b.cfg.Routes.VirtualHosts[0].Routes = b.cfg.Routes.VirtualHosts[0].Routes[2:]
			b.route().Match.Prefix = ptr("/a")
		}},
		{"a body over the limit", "http://h/to", "incomplete_request", func(b *bed) { b.cfg.Routes.VirtualHosts[0].BufferLimit = ptr(uint64(4)) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b, seen := redirectBed(t, tc.to)
			if tc.change != nil {
				tc.change(b)
			}
			b.start()
			resp, body := b.dial().do("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello")
			if resp.StatusCode != 302 || body != "moved" || resp.Header.Get("Location") != tc.to {
				t.Errorf("%d %q %q", resp.StatusCode, body, resp.Header.Get("Location"))
			}
			if len(seen) > 0 {
				t.Errorf("the other saw %q", <-seen)
			}
			if lines := b.logged(1); len(lines) != 1 || !strings.HasPrefix(lines[0], "POST /a 302 - via_upstream everything ") {
				t.Errorf("logged %q", lines)
			}
			if !b.metric(fmt.Sprintf("hauberk_upstream_internal_redirects_total{cluster=%q,result=%q} 1", "origin", tc.result)) {
				t.Errorf("not counted as %s", tc.result)
			}
		})
	}
}

// TestRedirectAfterAnUpdate: who decides now is not who admitted the request, and is asked by the
// client itself.
func TestRedirectAfterAnUpdate(t *testing.T) {
	b, seen := redirectBed(t)
	ask, answer := make(chan bool), make(chan bool)
	b.cluster("origin", httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		ask <- true
		<-answer
		w.Header().Set("Location", "http://h/to")
		w.WriteHeader(302)
	}))
	b.start()
	c := b.dial()
	c.send("GET /a HTTP/1.1\r\nHost: h\r\n\r\n")
	<-ask
	next := *b.cfg
	next.AccessLog = nil
	now, err := New(&next, Options{Clusters: b.clusters, Routes: func() *route.Table { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	b.conns[0].SetPolicy(now.Policy())
	b.mu.Unlock()
	_ = now.Close()
	answer <- true
	if resp, _ := c.answer("GET"); resp.StatusCode != 302 || len(seen) > 0 {
		t.Errorf("%d, and the other saw %d requests", resp.StatusCode, len(seen))
	}
}

// TestEndlessRedirects: a request that is redirected for ever ends, and what it keeps does not grow
// for ever.
func TestEndlessRedirects(t *testing.T) {
	to := "http://h/" + strings.Repeat("x", 30<<10)
	var n atomic.Int32
	b := newBed(t, httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		w.Header().Set("Location", to)
		w.WriteHeader(302)
	}))
	b.route().Forward.InternalRedirect = &route.InternalRedirect{Max: 500, Codes: []int{302}}
	b.start()
	if resp, _ := b.dial().do("GET /a HTTP/1.1\r\nHost: h\r\n\r\n"); resp.StatusCode != 302 {
		t.Errorf("%d, want 302", resp.StatusCode)
	}
	if got := n.Load(); got < 3 || got > 20 {
		t.Errorf("%d requests", got)
	}
}

// TestRedirectOfAHedge: the answer of whichever attempt is followed.
func TestRedirectOfAHedge(t *testing.T) {
	b, seen := redirectBed(t)
	var n atomic.Int32
	b.cluster("origin", rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
		if _, _, err := readRequest(r); err != nil {
			return
		}
		if n.Add(1) == 1 {
			_, _ = r.ReadByte() // the first hangs
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 302 Found\r\nLocation: http://h/to\r\nContent-Length: 0\r\n\r\n")
	}))
	f := b.redirecting()
	f.Retry = &route.RetryPolicy{On: route.Retry5xx, NumRetries: 1, PerTryTimeout: 50 * time.Millisecond}
	f.Hedge = &route.HedgePolicy{OnPerTryTimeout: true}
	b.start()
	if resp, body := b.dial().do("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"); resp.StatusCode != 200 || body != "other" {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
	if got := get(t, seen); got != "POST h /to 5 http://h/a " {
		t.Errorf("the other saw %q", got)
	}
}

func TestLocation(t *testing.T) {
	for uri, want := range map[string]string{
		"http://h":            "http h /",
		"HTTPS://H:443/a?b#c": "https H:443 /a?b",
		"http://h?x":          "http h /?x",
		"http://[::1]:8/":     "http [::1]:8 /",
		"http://h/a\\b":       "http h /a\\b",
		"http://h/a/../%2e/":  "http h /a/../%2e/",
		"":                    "", "/a": "", "//h/a": "", "ftp://h/a": "", "http:/h/a": "", "http:///a": "", "http://u@h/a": "",
		"http://h:99999/": "", "http://h\\@i/": "", "http://h/a b": "", "http://h/\x7f": "", "http://h/\u00e9": "",
	} {
		l, ok := parseLocation(uri)
		got := fmt.Sprintf("%s %s %s", l.scheme, l.authority, l.target)
		if !ok {
			got = ""
		}
		if got != want {
			t.Errorf("%q is %q, want %q", uri, got, want)
		}
	}
}

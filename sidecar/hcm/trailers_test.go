package hcm

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/filter/headermutation"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

func appendTrailer(name, value string) route.HeaderMutation {
	return route.HeaderMutation{Add: &route.HeaderAdd{Name: name, Value: value}}
}

// TestTrailersAreChanged: by filters in their order, those of requests once, whether the body was
// there at once or came while the host was asked, or is sent a second time.
func TestTrailersAreChanged(t *testing.T) {
	const head = "POST /p HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n"
	for _, tc := range []struct {
		name   string
		pieces []string
		fail   bool
	}{
		{"at once", []string{head + "1\r\nx\r\n0\r\nX-Req: 7\r\nX-Gone: 1\r\n\r\n"}, false},
		{"in pieces", []string{head + "1\r\nx\r\n", "1\r\ny\r\n", "0\r\nX-Req: 7\r\nX-Gone: 1\r\n\r\n"}, false},
		{"sent again", []string{head + "1\r\nx\r\n0\r\nX-Req: 7\r\nX-Gone: 1\r\n\r\n"}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			trailers, arrived := make(chan http.Header, 2), make(chan bool, 8)
			failed := false
			b := newBed(t, httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
				arrived <- true
				_, _ = io.Copy(io.Discard, r.Body)
				trailers <- r.Trailer
				if tc.fail && !failed {
					failed = true
					w.WriteHeader(503)
					return
				}
				w.Header().Set("Trailer", "X-Sum, X-Gone")
				_, _ = io.WriteString(w, "body")
				w.Header().Set("X-Sum", "1")
				w.Header().Set("X-Gone", "1")
			}))
			b.route().Forward.Retry = &route.RetryPolicy{On: route.Retry5xx, NumRetries: 1}
			one := &headermutation.Config{
				RequestTrailers:  []route.HeaderMutation{{Remove: "x-gone"}, appendTrailer("x-path", "%REQ(:PATH)%"), appendTrailer("x-who", "one")},
				ResponseTrailers: []route.HeaderMutation{{Remove: "x-gone"}, appendTrailer("x-code", "%RESPONSE_CODE%"), appendTrailer("x-seen", "%TRAILER(x-code)%%TRAILER(x-sum)%%TRAILER(x-gone)%"), appendTrailer("x-who", "one")},
			}
			two := &headermutation.Config{RequestTrailers: []route.HeaderMutation{appendTrailer("x-who", "two")}, ResponseTrailers: []route.HeaderMutation{appendTrailer("x-who", "two")}}
			b.filter("one", one)
			b.filter("two", &headermutation.Config{})
			b.route().Filters = override("two", two)
			b.cfg.AccessLog[0].Format = "%TRAILER(x-who)% %TRAILER(x-gone)%\n"
			c := b.start().dial()
			for _, p := range tc.pieces {
				c.send(p)
				if len(tc.pieces) > 1 && strings.HasPrefix(p, "POST") {
					<-arrived
				}
			}
			resp, body := c.answer("POST")
			if resp.StatusCode != 200 || body != "body" {
				t.Fatal(resp.StatusCode, body)
			}
			if got := resp.Trailer; got.Get("X-Code") != "200" || got.Get("X-Seen") != "2001" || strings.Join(got.Values("X-Who"), " ") != "two one" || got.Get("X-Gone") != "" {
				t.Errorf("the client got %v", got)
			}
			for range 1 + map[bool]int{true: 1}[tc.fail] {
				if got := <-trailers; got.Get("X-Req") != "7" || got.Get("X-Path") != "/p" || strings.Join(got.Values("X-Who"), " ") != "one two" || got.Get("X-Gone") != "" {
					t.Errorf("the host got %v", got)
				}
			}
			if got := b.logged(1)[0]; got != "two -" {
				t.Errorf("the log says %q", got)
			}
		})
	}
}

// TestTrailersOfARedirect: of a request that a redirect leads to, filters change the trailers that the
// client sent, and not what those of the request before made of them.
func TestTrailersOfARedirect(t *testing.T) {
	for sent, each := range map[string]string{"X-Req: 7\r\nX-Gone: 1\r\n": "each", "X-Gone: 1\r\n": ""} {
		first, second := make(chan http.Header, 1), make(chan http.Header, 1)
		b := newBed(t, httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			first <- r.Trailer
			w.Header().Set("Location", "http://h/to")
			w.WriteHeader(307)
		}))
		b.cluster("other", httpOrigin(t, func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			second <- r.Trailer
		}))
		vh := &b.cfg.Routes.VirtualHosts[0]
		from, to := vh.Routes[0], route.Route{Name: "to", Match: route.Match{Prefix: ptr("/to")}, Forward: &route.Forward{Cluster: "other", Timeout: 5 * time.Second}}
		from.Forward.InternalRedirect = &route.InternalRedirect{Max: 1, Codes: []int{307}}
		from.Filters = override("two", &headermutation.Config{RequestTrailers: []route.HeaderMutation{{Remove: "x-gone"}, {Remove: "x-req"}}})
		to.Filters = override("two", &headermutation.Config{RequestTrailers: []route.HeaderMutation{appendTrailer("x-who", "to")}})
		vh.Routes = []route.Route{to, from}
		b.filter("one", &headermutation.Config{RequestTrailers: []route.HeaderMutation{appendTrailer("x-who", each)}})
		b.filter("two", &headermutation.Config{})
		c := b.start().dial()
		if resp, _ := c.do("POST /p HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n" + sent + "\r\n"); resp.StatusCode != 200 {
			t.Fatal(resp.StatusCode)
		}
		if got := <-first; strings.Join(got.Values("X-Who"), " ") != each || got.Get("X-Gone") != "" {
			t.Errorf("the first host got %v of %q", got, sent)
		}
		if got := <-second; strings.TrimSpace(strings.Join(got.Values("X-Who"), " ")) != strings.TrimSpace(each+" to") || len(got) != 1+strings.Count(sent, ":") || got.Get("X-Gone") != "1" {
			t.Errorf("the other host got %v of %q", got, sent)
		}
	}
}

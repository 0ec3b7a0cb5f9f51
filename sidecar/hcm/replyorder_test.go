package hcm

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// TestReplyOrder: the route changes an answer of our own before it has its type and
// before the rules of local replies; what is no answer of the route is not changed by it.
func TestReplyOrder(t *testing.T) {
	direct := func(body string) func(*bed) {
		return func(b *bed) {
			b.route().Forward, b.route().Direct = nil, &route.DirectResponse{Status: 200, Body: []byte(body)}
		}
	}
	typed := func(action route.AppendAction) *route.HeaderMutations {
		return &route.HeaderMutations{ResponseAdd: []route.HeaderAdd{{Name: "content-type", Value: "application/json", Action: action}}}
	}
	marked := &route.HeaderMutations{ResponseAdd: []route.HeaderAdd{{Name: "x-by", Value: "route"}, {Name: "x-by", Value: "again", Action: route.OverwriteIfExists}}}
	mapped := func(b *bed) {
		b.cfg.LocalReplies = &LocalReplies{Mappers: []ReplyMapper{{
			Filter: telemetry.StatusFilter{Op: telemetry.Equal, Value: 200}, Add: []route.HeaderAdd{{Name: "x-by", Value: "mapper"}},
		}}}
	}
	for name, tc := range map[string]struct {
		change  []func(*bed)
		headers *route.HeaderMutations
		field   string
		want    []string
	}{
		"appended":                  {[]func(*bed){direct("{}")}, typed(route.AppendIfExistsOrAdd), "Content-Type", []string{"application/json"}},
		"where there is none":       {[]func(*bed){direct("{}")}, typed(route.AddIfAbsent), "Content-Type", []string{"application/json"}},
		"where there is one":        {[]func(*bed){direct("{}")}, typed(route.OverwriteIfExists), "Content-Type", []string{"text/plain"}},
		"removed":                   {[]func(*bed){direct("{}")}, &route.HeaderMutations{ResponseRemove: []string{"content-type"}}, "Content-Type", []string{"text/plain"}},
		"of no body":                {[]func(*bed){direct("")}, typed(route.AppendIfExistsOrAdd), "Content-Type", nil},
		"before the rules":          {[]func(*bed){direct("x"), mapped}, marked, "X-By", []string{"route", "mapper"}},
		"a direct response, denied": {[]func(*bed){direct("x"), func(b *bed) { b.rbac(authz.HTTPFilter{Rules: &authz.Rules{Action: authz.Allow}}) }}, marked, "X-By", nil},
		"a forward route, denied":   {[]func(*bed){func(b *bed) { b.rbac(authz.HTTPFilter{Rules: &authz.Rules{Action: authz.Allow}}) }}, marked, "X-By", []string{"route"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			for _, change := range tc.change {
				change(b)
			}
			b.route().Headers = tc.headers
			b.start()
			resp, _ := b.dial().do(simpleGet)
			if got := resp.Header.Values(tc.field); !slices.Equal(got, tc.want) {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}

// TestGRPCMessage: the line feed that ends JSON is no part of a message, that of a text is,
// and an answer to HEAD has no message.
func TestGRPCMessage(t *testing.T) {
	for _, tc := range []struct {
		method string
		format telemetry.AccessLogConfig
		want   string
	}{
		{"GET", telemetry.AccessLogConfig{JSON: true, Fields: map[string]any{"code": "%RESPONSE_CODE%"}}, `{"code":503}`},
		{"GET", telemetry.AccessLogConfig{Format: "%RESPONSE_CODE%\n"}, "503%0A"},
		{"HEAD", telemetry.AccessLogConfig{Format: "%RESPONSE_CODE%\n"}, ""},
	} {
		b := newBed(t)
		b.cfg.LocalReplies = &LocalReplies{Body: &telemetry.BodyFormat{Format: tc.format}}
		b.start()
		resp, _ := b.dial().do(tc.method + " / HTTP/1.1\r\nHost: h\r\nContent-Type: application/grpc\r\n\r\n")
		if got := resp.Header.Get("Grpc-Message"); got != tc.want || resp.Header.Get("Grpc-Status") != "14" {
			t.Errorf("%s: %q, want %q: %v", tc.method, got, tc.want, resp.Header)
		}
	}
}

// TestCookiesOfTheHash: the route's changes of the answer see them, those of the request
// come before the hash, and an answer of our own has none.
func TestCookiesOfTheHash(t *testing.T) {
	for name, tc := range map[string]struct {
		origins []string
		headers *route.HeaderMutations
		rewrite *route.Rewrite
		want    int
	}{
		"there":                        {[]string{reflectOrigin(t)}, nil, nil, 1},
		"removed":                      {[]string{reflectOrigin(t)}, &route.HeaderMutations{ResponseRemove: []string{"set-cookie"}}, nil, 0},
		"nobody has served":            {[]string{deadAddr(t)}, nil, nil, 0},
		"a header that the route adds": {[]string{reflectOrigin(t)}, &route.HeaderMutations{RequestAdd: []route.HeaderAdd{{Name: "x-h", Value: "1"}}}, nil, 0},
		"a parameter of the rewrite":   {[]string{reflectOrigin(t)}, nil, &route.Rewrite{Path: "/x?k=1"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			if err := b.clusters.Update(&cluster.Config{Name: "origin", LB: cluster.RingHash, Endpoints: endpoints("origin", tc.origins...), ConnectTimeout: time.Second}); err != nil {
				t.Fatal(err)
			}
			f := b.route().Forward
			f.Rewrite = tc.rewrite
			f.Hash = []route.HashPolicy{{Header: "x-h", Terminal: true}, {Query: "k", Terminal: true}, {Cookie: &route.CookieHash{Name: "stick", TTL: ptr(time.Minute)}}}
			b.route().Headers = tc.headers
			b.start()
			resp, _ := b.dial().do(simpleGet)
			if got := resp.Header.Values("Set-Cookie"); len(got) != tc.want {
				t.Errorf("%q, want %d", got, tc.want)
			}
		})
	}
}

// TestFirstAttemptInHeaders: a host is told of the attempt that it gets.
func TestFirstAttemptInHeaders(t *testing.T) {
	b := newBed(t, reflectOrigin(t))
	b.route().Headers = &route.HeaderMutations{RequestAdd: []route.HeaderAdd{{Name: "x-attempts", Value: "%UPSTREAM_REQUEST_ATTEMPT_COUNT%"}}}
	b.start()
	if _, body := b.dial().do(simpleGet); !strings.Contains(body, "X-Attempts: 1\r\n") {
		t.Error(body)
	}
}

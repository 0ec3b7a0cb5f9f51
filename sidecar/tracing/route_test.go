package tracing

import (
	"strings"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// Who names a span: a configured operation, else the other side, else the route.
func TestNamesOfSpans(t *testing.T) {
	ours, quiet := &Decorator{Operation: "ours", Propagate: true}, &Decorator{Operation: "ours"}
	for name, tc := range map[string]struct {
		direction            Direction
		operation            string
		route                *RouteConfig
		decorator            *Decorator
		client, server       string // what they say in the header
		named, sent, answers string // the span's name, and the headers that go on
	}{
		"inbound":                 {named: "ingress"},
		"inbound, decorated":      {decorator: ours, server: "x", named: "ours", answers: "ours"},
		"inbound, quiet":          {decorator: quiet, server: "x", named: "ours", answers: "x"},
		"inbound, told":           {decorator: ours, client: "theirs", named: "theirs"},
		"inbound, nothing told":   {decorator: quiet, client: "-", named: "ours"},
		"outbound":                {direction: telemetry.Outbound, named: "egress shop"},
		"outbound, decorated":     {direction: telemetry.Outbound, decorator: ours, client: "x", named: "ours", sent: "ours"},
		"outbound, quiet":         {direction: telemetry.Outbound, decorator: quiet, client: "x", named: "ours", sent: "x"},
		"outbound, told":          {direction: telemetry.Outbound, decorator: ours, server: "theirs", named: "theirs", sent: "ours"},
		"configured":              {operation: "%REQ(:METHOD)%", decorator: ours, client: "c", server: "s", named: "GET", sent: "c", answers: "s"},
		"configured, outbound":    {direction: telemetry.Outbound, operation: "%REQ(:METHOD)%", decorator: ours, named: "GET"},
		"configured by the route": {operation: "x", route: &RouteConfig{Operation: "r %REQ(:METHOD)%"}, decorator: ours, named: "r GET"},
		"left by the route":       {operation: "x", route: &RouteConfig{UpstreamOperation: "y"}, named: "x"},
	} {
		t.Run(name, func(t *testing.T) {
			c := everything()
			c.Operation, c.SpawnUpstream = tc.operation, true
			tr := mustTracer(t, c)
			if tc.route != nil {
				if err := tc.route.Compile(); err != nil {
					t.Fatal(err)
				}
			}
			r := request("x-request-id", requestID)
			r.Method, r.Authority = "GET", "shop"
			if tc.client != "" {
				r.Fields.Add("X-Envoy-Decorator-Operation", strings.Trim(tc.client, "-"))
			}
			var s Span
			tr.Start(&s, r, &Request{Direction: tc.direction, Begun: time.Now(), Route: tc.route, Decorator: tc.decorator})
			var resp message.Response
			if tc.server != "" {
				resp.Fields.Add("X-Envoy-Decorator-Operation", tc.server)
			}
			s.Answer(&resp.Fields)
			if name == "outbound, told" {
				resp.Reset() // an answer of our own comes in its place
				resp.Fields.Add("content-type", "text/plain; charset=utf-8")
				resp.Fields.Add("X-Envoy-Decorator-Operation", tc.answers)
				resp.Fields.Del(decoratorHeader)
			}
			rec := &telemetry.Record{RequestHeaders: r, Cluster: "c"}
			if got := string(tr.appendName(nil, &s, rec)); got != tc.named {
				t.Errorf("the span is %q, want %q", got, tc.named)
			}
			if got := field(r, decoratorHeader); got != tc.sent {
				t.Errorf("the server is told %q, want %q", got, tc.sent)
			}
			if got, _ := resp.Fields.Get(decoratorHeader); got != tc.answers {
				t.Errorf("the client is told %q, want %q", got, tc.answers)
			}
		})
	}
}

// A route's shares stand in for the connection manager's, its tags go before them.
func TestTracingOfARoute(t *testing.T) {
	route := &RouteConfig{Sampling: Sampling{Overall: Percent(100)}, UpstreamOperation: "to %UPSTREAM_CLUSTER%",
		Tags: []Tag{{Name: "team", Literal: true, Value: "route"}, {Name: "more", Literal: true, Value: "m"}}}
	if err := route.Compile(); err != nil {
		t.Fatal(err)
	}
	c := everything()
	c.SpawnUpstream = true
	c.Tags = []Tag{{Name: "team", Literal: true, Value: "listener"}, {Name: "kept", Literal: true, Value: "k"}}
	c.Provider = reporting(&Zipkin{}).Provider
	tr := mustOpen(t, newCollector(t).tracers(t), c)
	var got string
	tr.encode = func(dst []byte, p *report, t *Tracer) []byte {
		got = string(appendZipkin(nil, p, t))
		return append(dst, got...)
	}
	r := request("x-request-id", requestID)
	var s Span
	if tr.Start(&s, r, &Request{Route: route}); s.Reason != NotTraceable || s.Sampled {
		t.Error("traced, although the route samples nothing")
	}
	route.Random = Percent(100)
	var a Attempt
	tr.Start(&s, r, &Request{Route: route})
	tr.Begin(&s, &a, r)
	rec := &telemetry.Record{RequestHeaders: r, Cluster: "c", Code: 200}
	tr.FinishAttempt(&s, &a, rec, 0, 0)
	for _, want := range []string{`"name":"to c"`, `"kept":"k"`, `"team":"route"`, `"more":"m"`} {
		if strings.Count(got, want) != 1 {
			t.Errorf("%s is not in %s", want, got)
		}
	}
	if strings.Contains(got, "listener") {
		t.Error(got)
	}
}

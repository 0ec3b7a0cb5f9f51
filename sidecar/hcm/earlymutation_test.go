package hcm

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

func setting(name, value string) route.HeaderMutation {
	return route.HeaderMutation{Add: &route.HeaderAdd{Name: name, Value: value, Action: route.OverwriteIfExistsOrAdd}}
}

// TestEarlyMutations: they see the path as it is forwarded, and nobody has looked at a header yet.
func TestEarlyMutations(t *testing.T) {
	for _, tc := range []struct {
		name      string
		steps     []route.HeaderMutation
		change    func(*Config)
		fields    []string
		want, not []string // lines
		client    string   // in the access log
	}{
		{name: "one after the other", steps: []route.HeaderMutation{setting("x-a", "%REQ(x-b)%"), {Remove: "x-b"}, setting("x-c", "%REQ(x-b)%")}, fields: []string{"X-B: 1"}, want: []string{"x-a: 1"}, not: []string{"x-b:", "x-c:"}},
		{name: "the client", steps: []route.HeaderMutation{setting("x-forwarded-for", "10.1.1.1"), setting("x-peer", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%")}, fields: []string{"X-Forwarded-For: 1.1.1.1"},
			change: func(c *Config) { c.Internal = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} }, want: []string{"x-forwarded-for: 10.1.1.1", "x-peer: 127.0.0.1", "x-envoy-internal: true"}, client: "10.1.1.1"},
		{name: "no claim to be internal", steps: []route.HeaderMutation{setting("x-envoy-internal", "true"), setting("x-envoy-retry-on", "5xx")}, not: []string{"x-envoy-internal", "x-envoy-retry-on"}},
		{name: "at an edge", steps: []route.HeaderMutation{{Remove: "x-forwarded-for"}, setting("x-envoy-external-address", "1.1.1.1"), setting("x-request-id", "ours")}, fields: []string{"X-Forwarded-For: 1.1.1.1"},
			change: func(c *Config) { c.UseRemoteAddress, c.GenerateRequestID = true, true }, want: []string{"x-forwarded-for: 127.0.0.1", "x-envoy-external-address: 127.0.0.1"}, not: []string{"x-request-id: ours"}},
		{name: "the request id", steps: []route.HeaderMutation{setting("x-request-id", "ours")}, change: func(c *Config) { c.GenerateRequestID = true }, want: []string{"x-request-id: ours"}},
		{name: "headers of internal clients", steps: []route.HeaderMutation{setting("x-secret", "1")}, change: func(c *Config) { c.Routes.InternalOnly = []string{"x-secret"} }, not: []string{"x-secret"}},
		{name: "the route", steps: []route.HeaderMutation{setting("x-role", "admin")}, change: func(c *Config) {
			h := &c.Routes.VirtualHosts[0]
			special := h.Routes[0]
			special.Match.Headers = []route.HeaderMatch{{Name: "x-role", Value: &route.StringMatch{Exact: ptr("admin")}}}
			special.Headers = &route.HeaderMutations{RequestAdd: []route.HeaderAdd{{Name: "x-special", Value: "1"}}}
			h.Routes = []route.Route{special, h.Routes[0]}
		}, want: []string{"x-special: 1"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bothInBubbles(t, func(t *testing.T, version int) {
				b := newBed(t, httpOrigin(t, told))
				b.route().Forward.Timeout = 0
				b.cfg.EarlyMutations = tc.steps
				b.cfg.AccessLog = []telemetry.AccessLogConfig{{Path: b.logPath, Format: "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%\n"}}
				if tc.change != nil {
					tc.change(b.cfg)
				}
				b.start()
				_, body := b.ask(version, tc.fields...)
				for _, line := range tc.want {
					if !strings.Contains("\n"+body, "\n"+line+"\n") {
						t.Errorf("%q is missing in\n%s", line, body)
					}
				}
				for _, begin := range tc.not {
					if strings.Contains("\n"+body, "\n"+begin) {
						t.Errorf("%q is in\n%s", begin, body)
					}
				}
				if tc.client != "" {
					b.wantLog(tc.client)
				}
			})
		})
	}
}

// TestEarlyMutationsAreChecked: a value that cannot be made is refused where it is configured.
func TestEarlyMutationsAreChecked(t *testing.T) {
	b := newBed(t)
	defer b.clusters.Close()
	b.cfg.EarlyMutations = []route.HeaderMutation{setting("x-a", "%NOSUCH%")}
	if err := Check(b.cfg); err == nil || !strings.Contains(err.Error(), "early header mutations: ") {
		t.Errorf("Check: %v", err)
	}
	if _, err := New(b.cfg, Options{Clusters: b.clusters}); err == nil {
		t.Error("New took it")
	}
}

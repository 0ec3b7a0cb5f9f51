package hcm

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// told answers with the request's fields as they arrived, one a line.
func told(w http.ResponseWriter, r *http.Request) {
	var lines []string
	for name, values := range r.Header {
		for _, v := range values {
			lines = append(lines, strings.ToLower(name)+": "+v)
		}
	}
	lines = append(lines, "host: "+r.Host)
	slices.Sort(lines)
	_, _ = io.WriteString(w, strings.Join(lines, "\n")+"\n")
}

// ask sends a GET with fields ("Name: value") and returns the response and its body.
func (b *bed) ask(version int, fields ...string) (*http.Response, string) {
	b.t.Helper()
	req, err := http.NewRequest("GET", "http://"+b.addr+"/x", nil)
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header["User-Agent"] = nil
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		if name == "Host" {
			req.Host = value
		} else {
			req.Header.Add(name, value)
		}
	}
	resp, err := b.httpClient(version).Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return resp, string(body)
}

// bothVersions runs a test for clients of HTTP/1 and of HTTP/2.
func bothVersions(t *testing.T, test func(t *testing.T, version int)) {
	for _, v := range []int{1, 2} {
		t.Run(fmt.Sprintf("HTTP/%d", v), func(t *testing.T) { test(t, v) })
	}
}

// TestWhoAsks: Envoy's rules on x-forwarded-for and what hangs on it. The client is at
// 127.0.0.1.
func TestWhoAsks(t *testing.T) {
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8")}
	for _, tc := range []struct {
		name   string
		trust  Trust
		fields []string
		want   []string // lines
		not    []string // beginnings of lines
		client string   // in the access log
	}{
		{name: "nothing said", not: []string{"x-forwarded-for", "x-envoy"}, want: []string{"x-forwarded-proto: http"}, client: "127.0.0.1"},
		{name: "the last of the list", fields: []string{"X-Forwarded-For: 1.1.1.1, 2.2.2.2"}, want: []string{"x-forwarded-for: 1.1.1.1, 2.2.2.2"}, client: "2.2.2.2"},
		{name: "lines are joined", fields: []string{"X-Forwarded-For: 1.1.1.1", "X-Forwarded-For: 2.2.2.2"}, want: []string{"x-forwarded-for: 1.1.1.1,2.2.2.2"}, client: "2.2.2.2"},
		{name: "trusted hops", trust: Trust{XFFTrustedHops: 1}, fields: []string{"X-Forwarded-For: 1.1.1.1, 2.2.2.2"}, client: "1.1.1.1"},
		{name: "more hops than addresses", trust: Trust{XFFTrustedHops: 2}, fields: []string{"X-Forwarded-For: 1.1.1.1, 2.2.2.2"}, client: "127.0.0.1"},
		{name: "no address", fields: []string{"X-Forwarded-For: somebody"}, client: "127.0.0.1"},
		{name: "with a port", fields: []string{"X-Forwarded-For: 1.1.1.1:80"}, client: "127.0.0.1"},
		{name: "IPv6", fields: []string{"X-Forwarded-For: 2001:db8::1"}, client: "2001:db8::1"},
		{name: "internal by the list", trust: Trust{Internal: loopback}, fields: []string{"X-Forwarded-For: 10.1.2.3"}, want: []string{"x-envoy-internal: true"}, client: "10.1.2.3"},
		{name: "not internal behind a hop", trust: Trust{Internal: loopback}, fields: []string{"X-Forwarded-For: 1.1.1.1, 10.1.2.3"}, not: []string{"x-envoy-internal"}, client: "10.1.2.3"},
		{name: "a claim to be internal", fields: []string{"X-Envoy-Internal: true"}, not: []string{"x-envoy-internal"}, client: "127.0.0.1"},
		{name: "edge", trust: Trust{UseRemoteAddress: true}, fields: []string{"X-Forwarded-For: 1.1.1.1", "X-Forwarded-Proto: https", "X-Request-Id: mine", "X-Envoy-External-Address: 9.9.9.9"},
			want: []string{"x-forwarded-for: 1.1.1.1,127.0.0.1", "x-forwarded-proto: http", "x-envoy-external-address: 127.0.0.1"}, not: []string{"x-request-id: mine", "x-envoy-internal"}, client: "127.0.0.1"},
		{name: "edge, an empty list", trust: Trust{UseRemoteAddress: true}, fields: []string{"X-Forwarded-For: "}, want: []string{"x-forwarded-for: 127.0.0.1"}, client: "127.0.0.1"},
		{name: "edge, id kept without a decision to trace", trust: Trust{UseRemoteAddress: true, PreserveRequestID: true}, fields: []string{"X-Request-Id: 11111111-1111-a111-8111-111111111111"}, want: []string{"x-request-id: 11111111-1111-4111-8111-111111111111"}, client: "127.0.0.1"},
		{name: "inside, its decision holds", fields: []string{"X-Request-Id: 11111111-1111-a111-8111-111111111111"}, want: []string{"x-request-id: 11111111-1111-a111-8111-111111111111"}, client: "127.0.0.1"},
		{name: "edge, id kept", trust: Trust{UseRemoteAddress: true, PreserveRequestID: true}, fields: []string{"X-Request-Id: mine"}, want: []string{"x-request-id: mine"}, client: "127.0.0.1"},
		{name: "edge, nothing appended", trust: Trust{UseRemoteAddress: true, SkipXFFAppend: true}, fields: []string{"X-Forwarded-For: 1.1.1.1"}, want: []string{"x-forwarded-for: 1.1.1.1"}, client: "127.0.0.1"},
		{name: "edge with a trusted hop", trust: Trust{UseRemoteAddress: true, XFFTrustedHops: 1}, fields: []string{"X-Forwarded-For: 1.1.1.1", "X-Forwarded-Proto: https", "X-Forwarded-Port: 99"},
			want: []string{"x-forwarded-for: 1.1.1.1,127.0.0.1", "x-forwarded-proto: https", "x-envoy-external-address: 1.1.1.1", "x-forwarded-port: 99"}, client: "1.1.1.1"},
		{name: "internal by the connection", trust: Trust{UseRemoteAddress: true, Internal: loopback}, fields: []string{"X-Request-Id: mine"},
			want: []string{"x-envoy-internal: true", "x-forwarded-for: 127.0.0.1", "x-request-id: mine"}, not: []string{"x-envoy-external-address"}, client: "127.0.0.1"},
		{name: "mapped", trust: Trust{UseRemoteAddress: true, MapIPv4: true}, want: []string{"x-forwarded-for: ::ffff:127.0.0.1", "x-envoy-external-address: 127.0.0.1"}, client: "127.0.0.1"},
		{name: "controls are taken from nobody", trust: Trust{UseRemoteAddress: true, Internal: loopback},
			fields: []string{"X-Envoy-Retry-On: 5xx", "X-Envoy-Max-Retries: 9", "X-Envoy-Upstream-Rq-Timeout-Ms: 1", "X-Envoy-Upstream-Rq-Per-Try-Timeout-Ms: 1", "X-Envoy-Hedge-On-Per-Try-Timeout: true", "X-Envoy-Retry-Grpc-On: internal", "X-Envoy-Decorator-Operation: op"},
			want:   []string{"x-envoy-decorator-operation: op"}, not: []string{"x-envoy-retry", "x-envoy-max", "x-envoy-upstream", "x-envoy-hedge"}, client: "127.0.0.1"},
		{name: "claims of strangers", fields: []string{"X-Envoy-Decorator-Operation: op", "X-Envoy-Retry-On: 5xx"}, want: []string{"x-envoy-decorator-operation: op"}, not: []string{"x-envoy-retry"}, client: "127.0.0.1"},
		{name: "claims at the edge", trust: Trust{UseRemoteAddress: true}, fields: []string{"X-Envoy-Decorator-Operation: op", "X-Envoy-Retry-On: 5xx"}, not: []string{"x-envoy-d", "x-envoy-r"}, client: "127.0.0.1"},
		{name: "via and user agent", trust: Trust{Via: "edge", AddUserAgent: true}, fields: []string{"Via: 1.1 other"},
			want: []string{"via: 1.1 other, edge", "user-agent: shop", "x-envoy-downstream-service-cluster: shop", "x-envoy-downstream-service-node: n1"}, client: "127.0.0.1"},
		{name: "the user agent stays", trust: Trust{AddUserAgent: true}, fields: []string{"User-Agent: curl"}, want: []string{"user-agent: curl"}, client: "127.0.0.1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bothInBubbles(t, func(t *testing.T, version int) {
				b := newBed(t, httpOrigin(t, told))
				b.route().Forward.Timeout = 0
				b.cfg.Trust, b.cfg.GenerateRequestID = tc.trust, true
				b.options.ServiceCluster, b.options.Node = "shop", "n1"
				b.cfg.AccessLog = []telemetry.AccessLogConfig{{Path: b.logPath, Format: "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%\n"}}
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
				b.wantLog(tc.client + " 127.0.0.1")
			})
		})
	}
}

func TestForwardedPort(t *testing.T) {
	b := newBed(t, httpOrigin(t, told))
	b.cfg.AppendForwardedPort = true
	b.start()
	_, port, _ := strings.Cut(b.addr, ":")
	if _, body := b.ask(1); !strings.Contains(body, "x-forwarded-port: "+port+"\n") {
		t.Error(body)
	}
	if _, body := b.ask(2, "X-Forwarded-Port: 1"); !strings.Contains(body, "x-forwarded-port: 1\n") {
		t.Error(body)
	}
}

func TestScheme(t *testing.T) {
	for _, tc := range []struct {
		scheme, proto, want string
		match               bool
	}{
		{"", "https", "https https", false},
		{"", "gopher", "http gopher", false},
		{"https", "", "https https", false},
		{"", "https", "http https", true},
	} {
		b := versionedBed(t, 1, 2, func(w http.ResponseWriter, r *http.Request) { told(w, r) })
		b.cfg.Scheme, b.cfg.MatchUpstreamScheme = tc.scheme, tc.match
		b.cfg.AccessLog = []telemetry.AccessLogConfig{{Path: b.logPath, Format: "%REQ(:SCHEME)% %REQ(X-FORWARDED-PROTO)%\n"}}
		b.start()
		var fields []string
		if tc.proto != "" {
			fields = append(fields, "X-Forwarded-Proto: "+tc.proto)
		}
		b.ask(1, fields...)
		b.wantLog(tc.want)
	}
}

func TestHostRules(t *testing.T) {
	bothVersions(t, func(t *testing.T, version int) {
		for _, tc := range []struct {
			rules      HostRules
			host, want string
		}{
			{HostRules{}, "a.example.:80", "a.example.:80"},
			{HostRules{StripDot: true}, "a.example.", "a.example"},
			{HostRules{StripDot: true}, "a.example.:443", "a.example:443"},
			{HostRules{StripPort: StripAnyPort}, "a.example:443", "a.example"},
			{HostRules{StripPort: StripAnyPort}, "[::1]:443", "[::1]"},
			{HostRules{StripPort: StripAnyPort}, "[::1]", "[::1]"},
			{HostRules{StripPort: StripOwnPort}, "a.example:443", "a.example:443"},
			{HostRules{StripPort: StripOwnPort}, "a.example:PORT", "a.example"},
			{HostRules{StripPort: StripAnyPort, StripDot: true}, "a.example.:1", "a.example"},
		} {
			b := newBed(t, httpOrigin(t, told))
			b.cfg.HostRules = tc.rules
			b.start()
			_, port, _ := strings.Cut(b.addr, ":")
			if _, body := b.ask(version, "Host: "+strings.Replace(tc.host, "PORT", port, 1)); !strings.Contains(body, "host: "+tc.want+"\n") {
				t.Errorf("%+v %s: %s", tc.rules, tc.host, body)
			}
		}
	})
}

// TestResponseMarks: what every response has.
func TestResponseMarks(t *testing.T) {
	bothVersions(t, func(t *testing.T, version int) {
		for _, tc := range []struct {
			set    func(*Config)
			server string
			local  string // of an answer of our own
		}{
			{func(c *Config) {}, "origin", ""},
			{func(c *Config) { c.ServerName = "us" }, "us", "us"},
			{func(c *Config) { c.ServerName, c.ServerIfAbsent = "us", true }, "origin", "us"},
		} {
			b := newBed(t, httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Server", "origin")
				w.Header().Set("Via", "1.1 inner")
			}))
			b.cfg.Via, b.cfg.RequestIDInResponse = "us", true
			tc.set(b.cfg)
			b.start()
			resp, _ := b.ask(version, "X-Request-Id: 17")
			if h := resp.Header; h.Get("Server") != tc.server || h.Get("Via") != "1.1 inner, us" || h.Get("X-Request-Id") != "17" {
				t.Error(h)
			}
			b.cluster("origin")
			if resp, _ = b.ask(version); resp.StatusCode != 503 || resp.Header.Get("Server") != tc.local {
				t.Error(resp.StatusCode, resp.Header)
			}
		}
	})
}

// FuzzForwardedFor: whatever the list, the answer is an address or nothing.
func FuzzForwardedFor(f *testing.F) {
	f.Add("1.1.1.1, 2.2.2.2,", uint8(1))
	f.Add("[::1]", uint8(0))
	f.Fuzz(func(t *testing.T, list string, skip uint8) {
		a, only := lastForwardedFor(list, int(skip))
		if a.IsValid() && !strings.Contains(list, a.String()) && !a.Is6() || only && (!a.IsValid() || strings.Contains(list, ",")) {
			t.Errorf("%q: %v %v", list, a, only)
		}
	})
}

//go:build e2e

package differential

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// checkedHost is a host that keeps the headers of the last check of each kind.
type checkedHost struct {
	net.Listener
	mu   sync.Mutex
	seen map[string]http.Header
}

func newCheckedHost(t *testing.T) *checkedHost {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &checkedHost{Listener: l, seen: map[string]http.Header{}}
	s := &http.Server{Handler: h, Protocols: new(http.Protocols)}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return h
}

func (h *checkedHost) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seen[r.URL.Path] = r.Header.Clone()
}

func (h *checkedHost) of(path string) http.Header {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.seen[path]
}

// formats are the operators that a check's headers may have, by the names of headers.
func formats() map[string]string {
	out := map[string]string{
		"with-text": "a%PROTOCOL%b", "percent": "100%%", "two": "%UPSTREAM_HOST_NAME% %PROTOCOL%", "cut": "%ENVIRONMENT(HOME):2%", "none-and-text": "<%REQ(x)%>",
		"own": "%REQ(user-agent)%", "method": "%REQ(:method)%", "metadata": "%UPSTREAM_METADATA(envoy.lb:name)%", "whole": "%UPSTREAM_METADATA(envoy.lb)%",
		"cluster-metadata": "%CLUSTER_METADATA(a:b)%", "year": "%START_TIME(%Y)%", "home": "%ENVIRONMENT(HOME)%", "unset": "%ENVIRONMENT(NOT_SET)%",
		"first": `%COALESCE({"operators": ["ROUTE_NAME", "PROTOCOL"]})%`, "empty": "",
	}
	for _, o := range telemetry.OperatorDocs() {
		if o.Argument == "" && !strings.HasPrefix(o.Name, "HAUBERK_") {
			out["op-"+strings.ToLower(strings.ReplaceAll(o.Name, "_", "-"))] = "%" + o.Name + "%"
		}
	}
	return out
}

// TestChecksBesideEnvoy compares the headers of health checks.
func TestChecksBesideEnvoy(t *testing.T) {
	envoy, hauberk, certs := programs(t)
	// Those that differ with every program, process and check.
	unsteady := map[string]bool{"User-Agent": true, "Op-Start-Time": true, "Op-Duration": true, "Op-Start-Time-Local": true, "Op-Stream-Id": true, "Op-Unique-Id": true}
	kinds := []string{"/http1", "/http2", "/grpc.health.v1.Health/Check"}
	var got []map[string]http.Header
	for i, command := range []func(string) []string{envoy, hauberk} {
		name := []string{"envoy", "hauberk"}[i]
		h := newCheckedHost(t)
		var adds []map[string]any
		for _, k := range slices.Sorted(maps.Keys(formats())) {
			adds = append(adds, map[string]any{"header": map[string]any{"key": k, "value": formats()[k]}})
		}
		for _, a := range []string{"APPEND_IF_EXISTS_OR_ADD", "ADD_IF_ABSENT", "OVERWRITE_IF_EXISTS_OR_ADD", "OVERWRITE_IF_EXISTS"} {
			for _, k := range []string{"a-", "b-"} {
				key := k + strings.ToLower(strings.ReplaceAll(a, "_", "-"))
				if k == "a-" {
					adds = append(adds, map[string]any{"header": map[string]any{"key": key, "value": "was"}})
				}
				adds = append(adds, map[string]any{"header": map[string]any{"key": key, "value": "%PROTOCOL%"}, "append_action": a})
			}
		}
		adds = append(adds, map[string]any{"header": map[string]any{"key": "kept", "value": "%REQ(x)%"}, "keep_empty_value": true})
		check := func(kind string, of map[string]any) map[string]any {
			e := map[string]any{"endpoint": map[string]any{"address": socketAddress(h.Addr().(*net.TCPAddr).Port), "hostname": "named"},
				"metadata": map[string]any{"filter_metadata": map[string]any{"envoy.lb": map[string]any{"name": "m", "n": 2}}}}
			return map[string]any{"name": kind, "metadata": map[string]any{"filter_metadata": map[string]any{"a": map[string]any{"b": "c"}}},
				"load_assignment": map[string]any{"cluster_name": "x", "endpoints": []any{map[string]any{"lb_endpoints": []any{e}}}},
				"typed_extension_protocol_options": map[string]any{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": map[string]any{
					"@type": apiType + "extensions.upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": map[string]any{"http2_protocol_options": map[string]any{}}}},
				"health_checks": []any{of}}
		}
		with := func(more map[string]any) map[string]any {
			maps.Copy(more, map[string]any{"timeout": "3s", "interval": "0.05s", "no_traffic_interval": "0.05s", "unhealthy_threshold": 1, "healthy_threshold": 1})
			return more
		}
		g := &Group{Name: "checks", About: "checks", Configs: []Config{{Name: "all", Routes: []map[string]any{{"match": map[string]any{"prefix": "/"}, "route": map[string]any{"cluster": "origin"}}}}},
			Clusters: []map[string]any{
				check("h1", with(map[string]any{"http_health_check": map[string]any{"path": "/http1", "request_headers_to_add": adds}})),
				check("h2", with(map[string]any{"http_health_check": map[string]any{"path": "/http2", "codec_client_type": "HTTP2", "request_headers_to_add": adds}})),
				check("grpc", with(map[string]any{"grpc_health_check": map[string]any{"initial_metadata": adds}})),
			}}
		p, err := g.start(name, t.TempDir(), certs, command, freePort)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.stop)
		seen := map[string]http.Header{}
		for _, k := range kinds {
			for end := time.Now().Add(10 * time.Second); h.of(k) == nil; time.Sleep(10 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("%s does not check %s: %s", name, k, p.log.String())
				}
			}
			seen[k] = h.of(k)
			for n, v := range seen[k] {
				if len(v) == 1 {
					seen[k][n] = []string{strings.ReplaceAll(v[0], fmt.Sprint(h.Addr().(*net.TCPAddr).Port), "PORT")}
				}
			}
		}
		got = append(got, seen)
	}
	for _, k := range kinds {
		all := maps.Clone(got[0][k])
		maps.Copy(all, got[1][k])
		for _, n := range slices.Sorted(maps.Keys(all)) {
			if a, b := got[0][k][n], got[1][k][n]; !unsteady[n] && !slices.Equal(a, b) {
				t.Errorf("%s %s: %q and %q", k, n, a, b)
			}
		}
	}
}

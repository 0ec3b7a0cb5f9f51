//go:build e2e

package differential

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestPoolsBesideEnvoy compares which requests have an upstream connection together.
func TestPoolsBesideEnvoy(t *testing.T) {
	envoy, hauberk, certs := programs(t)
	var got []string
	for i, command := range []func(string) []string{envoy, hauberk} {
		origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.RemoteAddr) }))
		t.Cleanup(origin.Close)
		of := func(name string, apart bool) map[string]any {
			return map[string]any{"name": name, "connection_pool_per_downstream_connection": apart, "load_assignment": map[string]any{"cluster_name": "x", "endpoints": []any{
				map[string]any{"lb_endpoints": []any{map[string]any{"endpoint": map[string]any{"address": socketAddress(origin.Listener.Addr().(*net.TCPAddr).Port)}}}}}}}
		}
		over := func(name, within string, apart bool) map[string]any {
			return map[string]any{"name": name, "connection_pool_per_downstream_connection": apart, "lb_policy": "CLUSTER_PROVIDED", "cluster_type": map[string]any{
				"name": "envoy.clusters.aggregate", "typed_config": map[string]any{
					"@type": "type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig", "clusters": []any{within}}}}
		}
		g := &Group{Name: "pools", About: "pools", Clusters: []map[string]any{of("apart", true), of("shared", false), over("apart-over-shared", "shared", true), over("shared-over-apart", "apart", false)}, Configs: []Config{{Name: "all", Routes: []map[string]any{
			{"match": map[string]any{"prefix": "/apart-over-shared"}, "route": map[string]any{"cluster": "apart-over-shared"}},
			{"match": map[string]any{"prefix": "/apart"}, "route": map[string]any{"cluster": "apart"}},
			{"match": map[string]any{"prefix": "/shared-over-apart"}, "route": map[string]any{"cluster": "shared-over-apart"}},
			{"match": map[string]any{"prefix": "/shared"}, "route": map[string]any{"cluster": "shared"}}}}}}
		p, err := g.start([]string{"envoy", "hauberk"}[i], t.TempDir(), certs, command, freePort)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.stop)
		clients := []*http.Client{{Transport: &http.Transport{}}, {Transport: &http.Transport{}}}
		var seen []string
		numbers := map[string]int{}
		for _, path := range []string{"/apart", "/shared", "/apart-over-shared", "/shared-over-apart"} {
			for _, client := range []int{0, 1, 0, 1} {
				r, err := clients[client].Get("http://" + p.addr("all") + path)
				if err != nil {
					t.Fatal(err)
				}
				b, err := io.ReadAll(r.Body)
				_ = r.Body.Close()
				if err != nil || r.StatusCode != 200 {
					t.Fatal(r.StatusCode, err)
				}
				if _, ok := numbers[string(b)]; !ok {
					numbers[string(b)] = len(numbers)
				}
				seen = append(seen, fmt.Sprint(path, " of client ", client, " on ", numbers[string(b)]))
			}
		}
		for _, c := range clients {
			c.CloseIdleConnections()
		}
		got = append(got, strings.Join(seen, "\n"))
	}
	if got[0] != got[1] {
		t.Errorf("envoy:\n%s\nhauberk:\n%s", got[0], got[1])
	}
	t.Log(got[0])
}

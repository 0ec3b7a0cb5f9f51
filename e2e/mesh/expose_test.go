//go:build e2e

package mesh

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"testing"

	consulapi "github.com/hashicorp/consul/api"
)

// TestExposedPaths: a path that a registration exposes is answered to who is outside the mesh,
// in plaintext; nothing else is, and nobody passes for a peer. So do a Hauberk sidecar
// and an Envoy.
func TestExposedPaths(t *testing.T) {
	m := newMesh(t)
	app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s xfcc=%s", r.URL.Path, r.Header.Get("X-Forwarded-Client-Cert"))
	})
	exposed := map[string]int{}
	for _, id := range []string{"api-1", "legacy-1"} {
		w := m.register(spec{id: id, service: id[:len(id)-2], handler: app})
		_, port, err := net.SplitHostPort(w.app)
		if err != nil {
			t.Fatal(err)
		}
		local, err := strconv.Atoi(port)
		if err != nil {
			t.Fatal(err)
		}
		exposed[id] = freePort(t)
		w.reg.Connect.SidecarService.Proxy.Expose = consulapi.ExposeConfig{Paths: []consulapi.ExposePath{
			{Path: "/metrics", ListenerPort: exposed[id], LocalPathPort: local}}}
		if err := m.catalog.Agent().ServiceRegister(w.reg); err != nil {
			t.Fatal(err)
		}
		if id == "api-1" {
			m.sidecarFor(id, w)
		} else {
			m.envoyFor(id, w)
		}
	}
	for id, port := range exposed {
		ask := func(path string) (int, string, error) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", port, path), nil)
			if err != nil {
				return 0, "", err
			}
			req.Header.Set("X-Forwarded-Client-Cert", "URI=spiffe://"+trustDomain+"/ns/default/dc/dc1/svc/web")
			resp, err := httpClient.Do(req)
			if err != nil {
				return 0, "", err
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			return resp.StatusCode, string(b), err
		}
		m.eventually(20*second, id+" answers on its exposed path", func() error {
			if code, body, err := ask("/metrics"); err != nil || code != 200 || body != "/metrics xfcc=" {
				return fmt.Errorf("%d %q %v", code, body, err)
			}
			return nil
		})
		for path, want := range map[string]int{"/": 404, "/metrics/more": 404, "/x/../metrics": 200, "/metrics?q": 200, "/METRICS": 404, "/metrics%2F..": 400} {
			if code, body, err := ask(path); err != nil || code != want {
				t.Errorf("%s %s: %d %q %v, want %d", id, path, code, body, err, want)
			}
		}
	}
}

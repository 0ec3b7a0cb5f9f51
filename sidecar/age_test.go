package sidecar

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/hauberk-mesh/hauberk/xds/ads"
	"github.com/hauberk-mesh/hauberk/xds/adstest"
	"github.com/hauberk-mesh/hauberk/xds/client"
)

// lines is a log that may be read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// aged runs a sidecar for which everything is too old at once, with a control
// plane that can be ended.
func aged(t *testing.T, a *authority) (s *Sidecar, log *lines, end func()) {
	t.Helper()
	a.issue("api")
	a.issue("db")
	log = &lines{}
	lis, g := bufconn.Listen(1<<20), grpc.NewServer()
	ads.New(ads.Config{Provider: adstest.NewBoard()}).Register(g)
	var served sync.WaitGroup
	served.Go(func() { _ = g.Serve(lis) })
	end = sync.OnceFunc(func() { g.Stop(); served.Wait() })
	t.Cleanup(end)
	s = run(t, server(a, application(t), echo(t)), func(c *Config) {
		c.StaleAfter, c.Log = time.Nanosecond, slog.New(slog.NewTextHandler(log, nil))
		c.Servers = []client.Server{{Name: "cp", Dial: func(context.Context) (grpc.ClientConnInterface, error) {
			return grpc.NewClient("passthrough:///cp", grpc.WithTransportCredentials(insecure.NewCredentials()),
				grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
		}}}
	})
	return s, log, end
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("%s: not in time", what)
		}
		<-time.After(2 * time.Millisecond)
	}
}

func page(t *testing.T, s *Sidecar, path string) string {
	t.Helper()
	resp, err := http.Get("http://" + s.Addrs().Admin.String() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestStaleConfigurationIsAlarmed: configuration whose control plane is away
// stands, is counted and is warned of.
func TestStaleConfigurationIsAlarmed(t *testing.T) {
	a := newAuthority(t)
	s, log, end := aged(t, a)
	until(t, "in sync", func() bool { return s.status().Synced })
	if got := page(t, s, "/stats?filter=config_age"); got != "hauberk_config_age_seconds 0\n" {
		t.Errorf("connected: %q", got)
	}
	end()
	until(t, "the end of the stream", func() bool { return !s.status().Connected })
	if got := page(t, s, "/stats?filter=config_age"); got == "hauberk_config_age_seconds 0\n" || !strings.HasPrefix(got, "hauberk_config_age_seconds ") {
		t.Errorf("away: %q", got)
	}
	if ok, why := s.Ready(); !ok {
		t.Errorf("stale configuration is no reason to stop: %s", why)
	}
	logged(t, s, log, "the configuration: last confirmed", "kept in use", "intentions are not known here")
}

// logged looks once at what is too old, as the sidecar does now and then.
func logged(t *testing.T, s *Sidecar, log *lines, want ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.watchAge(ctx)
	for _, w := range want {
		if !strings.Contains(log.String(), w) {
			t.Errorf("the log lacks %q: %s", w, log.String())
		}
	}
}

// TestStaleTrustIsAlarmed: a bundle that cannot be read any more stands, ages, and
// is shown and warned of by name.
func TestStaleTrustIsAlarmed(t *testing.T) {
	a := newAuthority(t)
	s, log, _ := aged(t, a)
	bundle := filepath.Join(a.dir, "ca.crt")
	series := `hauberk_trust_age_seconds{source="` + bundle + `"} `
	if got := page(t, s, "/stats?filter=trust_age"); got != series+"0\n" {
		t.Errorf("in order: %q", got)
	}
	a.write("ca.crt", "CERTIFICATE", []byte("no certificate"))
	s.tls.contexts.Refresh()
	if got := page(t, s, "/stats?filter=trust_age"); got == series+"0\n" || !strings.HasPrefix(got, series) {
		t.Errorf("damaged: %q", got)
	}
	var certs struct {
		Trust   []trustView           `json:"trust"`
		Bundles map[string][]certView `json:"trust_bundles"`
	}
	if err := json.Unmarshal([]byte(page(t, s, "/certs")), &certs); err != nil {
		t.Fatal(err)
	}
	if len(certs.Trust) != 1 || certs.Trust[0].Source != bundle || !strings.Contains(certs.Trust[0].Warning, "the trust bundle of "+bundle) {
		t.Errorf("/certs: %+v", certs.Trust)
	}
	if len(certs.Bundles["td"]) == 0 {
		t.Error("the last good bundle is gone")
	}
	logged(t, s, log, "the trust bundle of "+bundle+": last confirmed", "kept in use")
}

package admin

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type fake struct {
	mu       sync.Mutex
	ready    bool
	drained  []string
	quit     int
	reopened int
}

func (f *fake) Ready() (bool, string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ready {
		return true, "ready"
	}
	return false, "waiting for the node's identity"
}
func (f *fake) ConfigDump() any { return map[string]string{"a": "b"} }
func (f *fake) Clusters() any   { return []string{"c"} }
func (f *fake) Certs() any      { return []string{"d"} }
func (f *fake) Listeners() any  { return []string{"e"} }
func (f *fake) WriteMetrics(w io.Writer, used bool) error {
	text := "# HELP x y\nx_total 1\ny_total{a=\"b\"} 2\n"
	if !used {
		text += "z_total 0\n"
	}
	_, err := io.WriteString(w, text)
	return err
}
func (f *fake) Drain(_ context.Context, inbound bool, wait time.Duration) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	kind := "all"
	if inbound {
		kind = "inbound"
	}
	f.drained = append(f.drained, kind+" "+wait.String())
	return nil
}
func (f *fake) Quit()       { f.mu.Lock(); f.quit++; f.mu.Unlock() }
func (f *fake) ReopenLogs() { f.mu.Lock(); f.reopened++; f.mu.Unlock() }

type server struct {
	*Server
	view   *fake
	level  *slog.LevelVar
	socket string
	stop   func() // and wait for what is being answered
}

func start(t *testing.T) *server {
	t.Helper()
	return startWith(t, func(*Options) {})
}

func startWith(t *testing.T, change func(*Options)) *server {
	t.Helper()
	s := &server{view: &fake{}, level: new(slog.LevelVar), socket: filepath.Join(t.TempDir(), "admin.sock")}
	var err error
	o := Options{Admin: "127.0.0.1:0", Metrics: "127.0.0.1:0", Ready: "127.0.0.1:0", Socket: s.socket, View: s.view, Level: s.level}
	change(&o)
	s.Server, err = Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = s.Close()
	})
	t.Cleanup(s.stop)
	return s
}

// do makes one request over a connection of its own.
func (s *server) do(t *testing.T, method, network, addr, path, host string) (int, string) {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}}}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+host+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func (s *server) admin(t *testing.T, method, path string) (int, string) {
	return s.do(t, method, "tcp", s.Addrs().Admin.String(), path, "localhost")
}

func (s *server) change(t *testing.T, method, path string) (int, string) {
	return s.do(t, method, "unix", s.socket, path, "localhost")
}

func TestReads(t *testing.T) {
	s := start(t)
	for path, want := range map[string]string{
		"/": "hauberk-sidecar", "/config_dump": `"a": "b"`, "/clusters": `"c"`, "/certs": `"d"`, "/listeners": `"e"`,
		"/stats/prometheus": "# HELP x y", "/stats?filter=^y": "y_total{a=\"b\"} 2",
	} {
		if code, body := s.admin(t, "GET", path); code != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	if _, body := s.admin(t, "GET", "/stats?filter=^y"); strings.Contains(body, "x_total") || strings.Contains(body, "#") {
		t.Errorf("the filter let through: %s", body)
	}
	for _, path := range []string{"/stats", "/stats/prometheus"} {
		if _, body := s.admin(t, "GET", path); !strings.Contains(body, "z_total 0") {
			t.Errorf("%s: %s", path, body)
		}
		if _, body := s.admin(t, "GET", path+"?usedonly"); strings.Contains(body, "z_total") || !strings.Contains(body, "x_total 1") {
			t.Errorf("%s?usedonly: %s", path, body)
		}
	}
	if code, _ := s.admin(t, "GET", "/stats?filter=("); code != 400 {
		t.Errorf("a bad filter: %d", code)
	}
}

func TestReadiness(t *testing.T) {
	s := start(t)
	addr := s.Addrs().Ready.String()
	if code, body := s.do(t, "GET", "tcp", addr, "/ready", "probe"); code != 503 || !strings.Contains(body, "identity") {
		t.Errorf("%d %s", code, body)
	}
	s.view.mu.Lock()
	s.view.ready = true
	s.view.mu.Unlock()
	if code, _ := s.do(t, "GET", "tcp", addr, "/ready", "probe"); code != 200 {
		t.Error(code)
	}
	if code, _ := s.do(t, "GET", "tcp", addr, "/config_dump", "probe"); code != 404 {
		t.Errorf("the readiness listener shows more: %d", code)
	}
	if code, body := s.do(t, "GET", "tcp", s.Addrs().Metrics.String(), "/metrics", "prom"); code != 200 || !strings.Contains(body, "x_total 1") {
		t.Errorf("%d %s", code, body)
	}
}

// A page in a browser of this host can send requests to loopback, but not with a
// Host of its choice.
func TestForeignHostIsRefused(t *testing.T) {
	s := start(t)
	for host, want := range map[string]int{
		"evil.example": 403, "evil.example:15000": 403, "10.0.0.1": 403, "localhost.evil.example": 403,
		"localhost": 200, "127.0.0.1:15000": 200, "[::1]:15000": 200,
	} {
		if code, _ := s.do(t, "GET", "tcp", s.Addrs().Admin.String(), "/config_dump", host); code != want {
			t.Errorf("Host %s: %d, want %d", host, code, want)
		}
	}
}

func TestChangesNeedTheSocket(t *testing.T) {
	s := start(t)
	for _, path := range []string{"/drain", "/quit", "/logging?level=debug", "/reopen_logs"} {
		if code, _ := s.admin(t, "POST", path); code != 404 && code != 405 {
			t.Errorf("POST %s over TCP: %d", path, code)
		}
	}
	if s.view.quit+s.view.reopened+len(s.view.drained) != 0 || s.level.Level() != slog.LevelInfo {
		t.Error("something changed over TCP")
	}
	info, err := os.Stat(s.socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v %v", info.Mode(), err)
	}
	for _, path := range []string{"/drain?inbound&wait=5s", "/drain", "/quit", "/logging?level=debug", "/reopen_logs"} {
		if code, body := s.change(t, "POST", path); code != 200 {
			t.Errorf("POST %s: %d %s", path, code, body)
		}
		if code, _ := s.change(t, "GET", path); code != 405 && code != 404 {
			t.Errorf("GET %s: %d", path, code)
		}
	}
	if got := strings.Join(s.view.drained, ","); got != "inbound 5s,all 0s" || s.view.quit != 1 || s.view.reopened != 1 || s.level.Level() != slog.LevelDebug {
		t.Errorf("%q %+v %v", got, s.view, s.level)
	}
	for _, path := range []string{"/logging?level=loud", "/drain?wait=soon"} {
		if code, _ := s.change(t, "POST", path); code != 400 {
			t.Errorf("POST %s: %d", path, code)
		}
	}
}

func TestListenRefuses(t *testing.T) {
	for addr, want := range map[string]string{"0.0.0.0:0": "must be a loopback address", "1.2.3.4:0": "must be a loopback address", "x": "missing port"} {
		if _, err := Listen(Options{Admin: addr, View: &fake{}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", addr, err)
		}
	}
	s := start(t)
	if _, err := Listen(Options{Socket: s.socket, View: &fake{}}); err == nil || !strings.Contains(err.Error(), "another process serves it") {
		t.Error(err)
	}
	if _, err := Listen(Options{Metrics: s.Addrs().Metrics.String(), View: &fake{}}); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Error(err)
	}
}

// A socket that a killed process left behind does not stop the next one.
func TestStaleSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	_ = ln.Close()
	s, err := Listen(Options{Socket: path, View: &fake{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Close()); err != nil {
		t.Fatal(err)
	}
}

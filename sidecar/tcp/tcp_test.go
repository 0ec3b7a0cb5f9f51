package tcp

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// upstream runs serve for each connection to a cluster named "up".
func upstream(t *testing.T, serve func(*net.TCPConn)) *cluster.Manager {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serve(c.(*net.TCPConn))
			_ = c.Close()
		}
	}()
	m := clusterAt(t, l.Addr().(*net.TCPAddr).Port)
	t.Cleanup(func() { _ = l.Close(); <-done })
	return m
}

func clusterAt(t *testing.T, port int) *cluster.Manager {
	t.Helper()
	m := cluster.NewManager(cluster.Options{})
	t.Cleanup(func() { _ = m.Close() })
	err := m.Update(&cluster.Config{Name: "up", Endpoints: &cluster.Assignment{Cluster: "up", Localities: []cluster.Locality{{
		Endpoints: []cluster.Endpoint{{Host: "127.0.0.1", Port: port}}}}}})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// lastPoller is that of the connection which was served last, lastConn.
var (
	lastPoller *stream.Poller
	lastConn   *downstream.Conn
)

// waitParked returns when that connection has no goroutine any more.
func waitParked(t *testing.T) {
	t.Helper()
	deadline := time.After(5 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for lastPoller.Waiting() != 1 {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("the connection keeps its goroutines")
		}
	}
}

// owner closes a channel when its connection is finished.
type owner chan struct{}

func (o owner) Finished(*downstream.Conn) { close(o) }

// serve runs the proxy for one connection and returns the client's end; the log
// line is complete when done is closed.
func serve(t *testing.T, cfg Config, m *cluster.Manager) (client *net.TCPConn, line func() string) {
	t.Helper()
	return serveTo(t, cfg, m, nil)
}

// lastMetrics are those of the proxy that serveTo made last.
var lastMetrics *telemetry.Metrics

// serveTo is serve for a client whose destination is made of the listener's
// address; a nil destination is that address.
func serveTo(t *testing.T, cfg Config, m *cluster.Manager, destination func(own netip.AddrPort) netip.AddrPort) (client *net.TCPConn, line func() string) {
	t.Helper()
	logs := telemetry.NewLogs(nil)
	path := filepath.Join(t.TempDir(), "log")
	format := "%RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_CLUSTER% %CONNECTION_TERMINATION_DETAILS%"
	if len(cfg.AccessLog) > 0 {
		format = cfg.AccessLog[0].Format
	}
	cfg.AccessLog = []telemetry.AccessLogConfig{{Path: path, Format: format}}
	lastMetrics = telemetry.NewMetrics()
	p, err := New(&cfg, Options{Clusters: m, Logs: logs, Metrics: lastMetrics})
	if err != nil {
		t.Fatal(err)
	}
	c, server := socketPair(t)
	s, err := stream.NewSocket(server, nil)
	if err != nil {
		t.Fatal(err)
	}
	to := server.LocalAddr().(*net.TCPAddr).AddrPort()
	if destination != nil {
		to = destination(to)
	}
	conn := downstream.New(downstream.Facts{Stream: s, Peer: authz.NewPeer(s.Info(), to), Accepted: time.Now(), Place: &downstream.Place{Listener: "in"}}, nil)
	poller, err := stream.NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	lastPoller, lastConn = poller, conn
	done, finished := make(chan struct{}), make(chan struct{})
	conn.Attach(&downstream.Server{Handler: p, Context: t.Context(), Poller: poller}, owner(finished))
	go func() {
		defer close(done)
		conn.Serve()
		<-finished
		_ = s.Close()
		_ = poller.Close()
	}()
	t.Cleanup(func() { _ = c.Close(); _ = s.Close(); <-done; _ = p.Close(); logs.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return c, func() string {
		<-done
		logs.Flush()
		b, _ := os.ReadFile(path)
		return strings.TrimSpace(string(b))
	}
}

func TestHalfCloseBothWays(t *testing.T) {
	none := time.Duration(0)
	for name, idle := range map[string]*time.Duration{"with idle timeout": nil, "without, spliced": &none} {
		t.Run(name, func(t *testing.T) {
			// The upstream answers only when it has seen the end of what was sent.
			m := upstream(t, func(c *net.TCPConn) {
				b, _ := io.ReadAll(c)
				_, _ = c.Write(b)
			})
			client, line := serve(t, Config{Cluster: "up", IdleTimeout: idle}, m)
			sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB
			if _, err := client.Write(sent); err != nil {
				t.Fatal(err)
			}
			if err := client.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(client)
			if err != nil || !bytes.Equal(got, sent) {
				t.Fatalf("%d bytes of %d, %v", len(got), len(sent), err)
			}
			if want := "- 1048576 1048576 up -"; line() != want {
				t.Errorf("log %q, want %q", line(), want)
			}
		})
	}
}

// TestMoments: a plain connection has those of its upstream connection.
func TestMoments(t *testing.T) {
	m := upstream(t, func(c *net.TCPConn) { _, _ = io.ReadAll(c) })
	client, line := serve(t, Config{Cluster: "up", AccessLog: []telemetry.AccessLogConfig{{
		Format: "%UPSTREAM_CONNECTION_POOL_READY_DURATION% %COMMON_DURATION(DS_RX_BEG:US_CX_BEG:ns)% %COMMON_DURATION(US_CX_BEG:US_CX_END:ns)% %COMMON_DURATION(US_CX_END:US_HS_END:ns)% %COMMON_DURATION(DS_CX_BEG:US_CX_BEG:ns)% %COMMON_DURATION(US_CX_END:DS_CX_END:ns)%"}}}, m)
	_ = client.CloseWrite()
	_, _ = io.ReadAll(client)
	var ready, before, connecting, since, after int
	if n, err := fmt.Sscanf(line(), "%d %d %d - %d %d", &ready, &before, &connecting, &since, &after); n != 5 || err != nil || before <= 0 || connecting <= 0 || since != before || after <= 0 {
		t.Errorf("log %q: %v", line(), err)
	}
}

func TestIdleTimeoutClosesBothEnds(t *testing.T) {
	idle := 50 * time.Millisecond
	m := upstream(t, func(c *net.TCPConn) { _, _ = io.ReadAll(c) })
	client, line := serve(t, Config{Cluster: "up", IdleTimeout: &idle}, m)
	if _, err := client.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Errorf("got %v", err)
	}
	if !strings.HasSuffix(line(), "idle_timeout") {
		t.Errorf("log %q", line())
	}
}

func TestFailuresHaveFlags(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	_ = l.Close()
	for _, tc := range []struct{ cluster, want string }{{"up", "UF,URX"}, {"missing", "NC"}} {
		client, line := serve(t, Config{Cluster: tc.cluster, MaxConnectAttempts: 2}, clusterAt(t, port))
		if _, err := client.Read(make([]byte, 1)); err == nil {
			t.Error("the connection is served")
		}
		if !strings.HasPrefix(line(), tc.want+" 0 0") {
			t.Errorf("log %q, want %s", line(), tc.want)
		}
	}
}

// Consul's gateways name clusters by sni_cluster alone.
func TestNoClusterButTheServerNames(t *testing.T) {
	if _, err := New(&Config{}, Options{Clusters: clusterAt(t, 1)}); err == nil {
		t.Error("a proxy that leads nowhere")
	}
	p, err := New(&Config{ServerNameCluster: true}, Options{Clusters: clusterAt(t, 1)})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"up", ""} {
		if got, _ := p.pick(name); got != name {
			t.Errorf("server name %q: cluster %q", name, got)
		}
	}
	client, line := serve(t, Config{ServerNameCluster: true}, clusterAt(t, 1))
	if _, err := client.Read(make([]byte, 1)); err == nil {
		t.Error("a connection without a server name is served")
	}
	if !strings.HasPrefix(line(), "NC 0 0") {
		t.Errorf("log %q", line())
	}
}

func TestWeights(t *testing.T) {
	p, err := New(&Config{Weighted: []WeightedCluster{{Cluster: "a", Weight: 90}, {Cluster: "b", Weight: 10}, {Cluster: "never"}}}, Options{Clusters: clusterAt(t, 1)})
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for range 10_000 {
		name, _ := p.pick("")
		count[name]++
	}
	// Six standard deviations of a binomial with p = 0.1.
	if b := count["b"]; b < 820 || b > 1180 || count["never"] > 0 {
		t.Errorf("%v", count)
	}
	if _, err := New(&Config{}, Options{Clusters: clusterAt(t, 1)}); err == nil {
		t.Error("a proxy without a cluster was accepted")
	}
}

// TestOriginalDestination: a redirected connection goes on to where it wanted to
// go, and one that wanted the listener goes nowhere, least of all round in a loop.
func TestOriginalDestination(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	m := cluster.NewManager(cluster.Options{})
	t.Cleanup(func() { _ = m.Close() })
	if err := m.Update(&cluster.Config{Name: "up", Type: cluster.OriginalDestination}); err != nil {
		t.Fatal(err)
	}
	client, line := serveTo(t, Config{Cluster: "up"}, m, func(netip.AddrPort) netip.AddrPort { return l.Addr().(*net.TCPAddr).AddrPort() })
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_, _ = c.Write([]byte("hello"))
	_ = c.Close()
	if b, err := io.ReadAll(client); err != nil || string(b) != "hello" {
		t.Errorf("%q %v", b, err)
	}
	_ = client.Close()
	line()
	client, line = serveTo(t, Config{Cluster: "up"}, m, nil)
	if b, _ := io.ReadAll(client); len(b) != 0 {
		t.Errorf("%q", b)
	}
	if got := line(); !strings.HasPrefix(got, "UH ") {
		t.Errorf("logged %q", got)
	}
}

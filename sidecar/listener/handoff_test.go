package listener

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// TestHandOffByFamily: a listener of all addresses of IPv6 is none of a destination of IPv4, unless it says so,
// and not where there is one of all addresses of IPv4. Which listener it is does not depend on chance.
func TestHandOffByFamily(t *testing.T) {
	unbound := func(name, address string, both bool) *Config {
		cfg := echoConfig(name)
		cfg.Address, cfg.Unbound, cfg.Chains[0].Name, cfg.Socket.IPv4Compat = address, true, name, both
		return cfg
	}
	m := newTestManager(t, telling)
	first := echoConfig("first")
	first.Filters, first.HandOff = []Filter{{ProxyProtocol: &ProxyProtocol{}}}, true
	for _, cfg := range []*Config{
		first, unbound("four", "0.0.0.0:80", false), unbound("six", "[::]:80", false), unbound("mixed", "[::]:81", true),
		unbound("sixonly", "[::]:82", false), unbound("four83", "0.0.0.0:83", false), unbound("mixed83", "[::]:83", true),
		unbound("very", "[::ffff:192.0.2.2]:84", true), unbound("any84", "0.0.0.0:84", false),
		unbound("a", "192.0.2.2:85", false), unbound("b", "192.0.2.2:85", false),
	} {
		mustApply(t, m, cfg)
	}
	const four, six = "PROXY TCP4 192.0.2.1 192.0.2.2 1234 ", "PROXY TCP6 2001:db8::1 2001:db8::2 1234 "
	for send, want := range map[string]string{
		four + "80": "four ", six + "80": "six ", four + "81": "mixed ", six + "81": "mixed ", four + "82": "c ", six + "82": "sixonly ",
		four + "83": "four83 ", six + "83": "mixed83 ", four + "84": "very ", six + "84": "c ", four + "85": "a ",
	} {
		for range 8 { // the table of listeners has no order
			if got := told(t, m, "first", send+"\r\n"); !strings.HasPrefix(got, want) {
				t.Errorf("%s: told %q, want %q", send, got, want)
			}
		}
	}
}

// seeker tells where a connection goes that an original-destination cluster has, and what the log says of it.
type seeker struct{}

func (seeker) ServeStream(_ context.Context, c *downstream.Conn) {
	r := c.NewRecord()
	defer r.Release()
	_, _ = io.WriteString(c.Stream, cluster.Redirected(c.Destination, c.Info).String()+" "+r.DownstreamLocal.String())
}

// TestWhereAProxiedClientWentTo: where a PROXY header says that a client went is a destination as one that a
// firewall redirected, and not the socket's own address. That of the listener itself is none.
func TestWhereAProxiedClientWentTo(t *testing.T) {
	m := newTestManager(t, func(o *Options) {
		o.NewHandler = func(*Config, *FilterChain) (downstream.Handler, error) { return seeker{}, nil }
	})
	cfg := echoConfig("l")
	cfg.Filters = []Filter{{ProxyProtocol: &ProxyProtocol{}}}
	mustApply(t, m, cfg)
	own := m.Addrs()["l"].(*net.TCPAddr)
	port := own.String()[strings.LastIndexByte(own.String(), ':')+1:]
	for send, want := range map[string]string{
		"PROXY TCP4 192.0.2.1 192.0.2.2 1234 80\r\n":           "192.0.2.2:80",
		"PROXY TCP4 192.0.2.1 127.0.0.1 1234 " + port + "\r\n": "invalid AddrPort",
		"PROXY UNKNOWN\r\n": "invalid AddrPort",
	} {
		if got := told(t, m, "l", send); got != want+" "+own.String() {
			t.Errorf("%q: told %q, want %q and %s", send, got, want, own)
		}
	}
}

// TestListenersLogNamesNoOccasion: as in Envoy the occasion is that of a filter chain's line. Who is refused went
// where a PROXY header says, too.
func TestListenersLogNamesNoOccasion(t *testing.T) {
	logs := telemetry.NewLogs(nil)
	t.Cleanup(logs.Close)
	m := newTestManager(t, func(o *Options) { o.Logs = logs })
	cfg, dir := echoConfig("l"), t.TempDir()
	log := func(name string) []telemetry.AccessLogConfig {
		return []telemetry.AccessLogConfig{{Connections: true, Path: filepath.Join(dir, name),
			Format: "%ACCESS_LOG_TYPE% %CONNECTION_TERMINATION_DETAILS% %DOWNSTREAM_LOCAL_ADDRESS%"}}
	}
	cfg.AccessLog, cfg.Chains[0].TCP.AccessLog = log("listener"), log("chain")
	cfg.Filters = []Filter{{ProxyProtocol: &ProxyProtocol{}}}
	cfg.Chains[0].ConnectionLimits = []ConnectionLimit{{Max: 1}}
	mustApply(t, m, cfg)
	const header = "PROXY TCP4 192.0.2.1 192.0.2.2 1234 80\r\n"
	served := dial(t, m, "l")
	_, _ = io.WriteString(served, header)
	if err := roundTrip(served); err != nil {
		t.Fatal(err)
	}
	if got := told(t, m, "l", header); got != "" {
		t.Errorf("one too many is served: %q", got)
	}
	lines := func(name string) string {
		logs.Flush()
		b, _ := os.ReadFile(filepath.Join(dir, name))
		return string(b)
	}
	if got, want := lines("chain"), "TcpConnectionEnd connection_limit 192.0.2.2:80\n"; got != want {
		t.Errorf("the chain's log has %q, want %q", got, want)
	}
	_ = served.Close()
	waitFor(t, func() bool { return strings.Count(lines("listener"), "\n") == 2 })
	if got, want := lines("listener"), "NotSet connection_limit 192.0.2.2:80\nNotSet - 192.0.2.2:80\n"; got != want {
		t.Errorf("the listener's log has %q, want %q", got, want)
	}
}

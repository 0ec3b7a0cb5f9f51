package listener

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
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

// TestOwnAddressIsNoHandOff: who says that a client went where it has come, has not sent it elsewhere, as in Envoy.
func TestOwnAddressIsNoHandOff(t *testing.T) {
	m := newTestManager(t, telling)
	first := echoConfig("second")
	first.Filters, first.HandOff = []Filter{{ProxyProtocol: &ProxyProtocol{}}}, true
	mustApply(t, m, first)
	own := m.Addrs()["second"].(*net.TCPAddr).AddrPort()
	other := echoConfig("first")
	other.Address, other.Unbound, other.Chains[0].Name = own.String(), true, "other"
	mustApply(t, m, other)
	if got := told(t, m, "second", fmt.Sprintf("PROXY TCP4 192.0.2.1 %s 1234 %d\r\n", own.Addr(), own.Port())); !strings.HasPrefix(got, "c ") {
		t.Errorf("told %q", got)
	}
}

// shower tells where rules of requests have it that a connection went.
type shower struct{}

func (shower) ServeStream(_ context.Context, c *downstream.Conn) {
	_, _ = io.ReadFull(c.Stream, make([]byte, 4))
	_, _ = io.WriteString(c.Stream, c.Peer.Destination.String()+"\n")
	_ = c.Stream.CloseWrite()
}

// TestRulesOnWhereAProxiedClientWentTo: to rules of connections and of requests the destination is what a PROXY
// header says, and not the socket's own address, whatever the connection is encrypted with.
func TestRulesOnWhereAProxiedClientWentTo(t *testing.T) {
	const meant = "192.0.2.2:80"
	allow := func(prefix string, port uint16) authz.NetworkFilter {
		p := netip.MustParsePrefix(prefix)
		return authz.NetworkFilter{StatPrefix: "test", Rules: &authz.Rules{Action: authz.Allow, Policies: []authz.Policy{{Name: "p",
			Permissions: []authz.Permission{{And: []authz.Permission{{Destination: &p}, {Port: port}}}}, Principals: []authz.Principal{{Any: true}}}}}}
	}
	for _, encrypted := range []bool{false, true} {
		m := newTestManager(t, func(o *Options) {
			o.TLS = testTLS{selfSigned(t, apiID)}
			o.NewHandler = func(*Config, *FilterChain) (downstream.Handler, error) { return shower{}, nil }
		})
		ask := func(rule authz.NetworkFilter) string {
			cfg := echoConfig("in", rule)
			if encrypted {
				cfg = mtlsConfig(rule)
			}
			cfg.Filters = []Filter{{ProxyProtocol: &ProxyProtocol{}}}
			mustApply(t, m, cfg)
			c := dial(t, m, "in")
			_, _ = io.WriteString(c, "PROXY TCP4 192.0.2.1 192.0.2.2 1234 80\r\n")
			if encrypted {
				c = tls.Client(c, &tls.Config{ServerName: "api.example", InsecureSkipVerify: true, Certificates: []tls.Certificate{selfSigned(t, webID)}})
			}
			_, _ = io.WriteString(c, "ping")
			b, _ := io.ReadAll(c)
			return strings.TrimSuffix(string(b), "\n")
		}
		if got := ask(allow("192.0.2.2/32", 80)); got != meant {
			t.Errorf("encrypted %v: where it went: %q", encrypted, got)
		}
		own := m.Addrs()["in"].(*net.TCPAddr)
		if got := ask(allow("127.0.0.0/8", uint16(own.Port))); got != "" {
			t.Errorf("encrypted %v: by the socket's address: %q", encrypted, got)
		}
	}
}

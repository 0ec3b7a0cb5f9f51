package listener

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/internal/tokenbucket"
	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/overload"
	"github.com/hauberk-mesh/hauberk/sidecar/sockopt"
)

// teller tells each connection what is known of it, then ends it.
type teller struct{ chain string }

func (w teller) ServeStream(_ context.Context, c *downstream.Conn) {
	r := c.NewRecord()
	defer r.Release()
	_, _ = io.WriteString(c.Stream, strings.Join([]string{w.chain, c.Info.Remote.String(), c.Destination.String(), c.Info.SNI, r.DownstreamDirect.String()}, " "))
}

func telling(o *Options) {
	o.NewHandler = func(_ *Config, f *FilterChain) (downstream.Handler, error) { return teller{f.Name}, nil }
}

// told sends bytes and returns what the listener tells.
func told(t *testing.T, m *Manager, name, send string) string {
	t.Helper()
	c := dial(t, m, name)
	_, _ = io.WriteString(c, send)
	b, _ := io.ReadAll(c)
	return string(b)
}

func proxyV2Header(command, family byte, body []byte) string {
	b := append([]byte(proxyV2), command, family)
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	return string(append(b, body...))
}

func TestProxyProtocol(t *testing.T) {
	v4 := []byte{10, 0, 0, 1, 10, 0, 0, 2, 0x10, 0x01, 0x00, 0x50}
	v6 := append(append(netip.MustParseAddr("2001:db8::1").AsSlice(), netip.MustParseAddr("2001:db8::2").AsSlice()...), 0x10, 0x01, 0x00, 0x50)
	tlv := append(v4[:len(v4):len(v4)], 0x04, 0, 2, 'x', 'y')
	for _, tc := range []struct {
		name, send string
		cfg        ProxyProtocol
		want       string // a part of what is told; empty when refused
	}{
		{"v1", "PROXY TCP4 192.0.2.1 192.0.2.2 1234 80\r\nhello", ProxyProtocol{}, "c 192.0.2.1:1234 192.0.2.2:80"},
		{"v1 over IPv6", "PROXY TCP6 2001:db8::1 2001:db8::2 1234 80\r\n", ProxyProtocol{}, "c [2001:db8::1]:1234 [2001:db8::2]:80"},
		{"v1 unknown", "PROXY UNKNOWN whatever\r\n", ProxyProtocol{}, "c 127.0.0.1:"},
		{"v2", proxyV2Header(0x21, 0x11, v4), ProxyProtocol{}, "c 10.0.0.1:4097 10.0.0.2:80"},
		{"v2 over IPv6", proxyV2Header(0x21, 0x21, v6), ProxyProtocol{}, "c [2001:db8::1]:4097"},
		{"v2 with extensions", proxyV2Header(0x21, 0x11, tlv), ProxyProtocol{}, "c 10.0.0.1:4097"},
		{"v2 local", proxyV2Header(0x20, 0x00, nil), ProxyProtocol{}, "c 127.0.0.1:"},
		{"none", "GET / HTTP/1.1\r\n", ProxyProtocol{}, ""},
		{"none where it is optional", "GET / HTTP/1.1\r\n", ProxyProtocol{Optional: true}, "c 127.0.0.1:"},
		{"v1 not allowed", "PROXY TCP4 192.0.2.1 192.0.2.2 1234 80\r\n", ProxyProtocol{NoV1: true}, ""},
		{"v2 not allowed", proxyV2Header(0x21, 0x11, v4), ProxyProtocol{NoV2: true}, ""},
		{"malformed, not allowed and optional", proxyV2Header(0x2f, 0x11, v4), ProxyProtocol{NoV2: true, Optional: true}, "c 127.0.0.1:"},
		{"not allowed and optional", "PROXY TCP4 192.0.2.1 192.0.2.2 1234 80\r\n", ProxyProtocol{NoV1: true, Optional: true}, "c 127.0.0.1:"},
		{"wrong family", "PROXY TCP4 2001:db8::1 192.0.2.2 1234 80\r\n", ProxyProtocol{}, ""},
		{"wrong port", "PROXY TCP4 192.0.2.1 192.0.2.2 99999 80\r\n", ProxyProtocol{}, ""},
		{"to nowhere", "PROXY TCP4 192.0.2.1 0.0.0.0 1234 80\r\n", ProxyProtocol{}, ""},
		{"to nowhere of IPv6", "PROXY TCP6 2001:db8::1 :: 1234 80\r\n", ProxyProtocol{}, ""},
		{"to nowhere of IPv4 in IPv6", "PROXY TCP6 2001:db8::1 ::ffff:0.0.0.0 1234 80\r\n", ProxyProtocol{}, ""},
		{"from a group", "PROXY TCP4 224.0.0.1 192.0.2.2 1234 80\r\n", ProxyProtocol{}, ""},
		{"to all", "PROXY TCP4 192.0.2.1 255.255.255.255 1234 80\r\n", ProxyProtocol{}, ""},
		{"v2 to nowhere", proxyV2Header(0x21, 0x11, append(append([]byte{192, 0, 2, 1, 0, 0, 0, 0}, 4, 210), 0, 80)), ProxyProtocol{}, ""},
		{"datagrams", proxyV2Header(0x21, 0x12, v4), ProxyProtocol{}, "c 10.0.0.1:4097 10.0.0.2:80"},
		{"no family", proxyV2Header(0x21, 0x00, nil), ProxyProtocol{}, ""},
		{"a family without addresses", proxyV2Header(0x21, 0x11, v4[:8]), ProxyProtocol{}, ""},
		{"a Unix socket", proxyV2Header(0x21, 0x31, make([]byte, 216)), ProxyProtocol{}, ""},
		{"no kind of connection", proxyV2Header(0x21, 0x10, v4), ProxyProtocol{}, ""},
		{"too long", "PROXY TCP4 " + strings.Repeat("1", 200), ProxyProtocol{}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := newTestManager(t, telling)
			cfg := echoConfig("l")
			cfg.Filters = []Filter{{ProxyProtocol: &tc.cfg}}
			mustApply(t, m, cfg)
			got := told(t, m, "l", tc.send)
			if tc.want == "" && got != "" || !strings.HasPrefix(got, tc.want) {
				t.Errorf("told %q, want %q", got, tc.want)
			}
		})
	}
}

// The client that a header names is also the one that chains are matched by; the
// direct source stays the proxy's.
func TestProxiedSourceChoosesTheChain(t *testing.T) {
	m := newTestManager(t, telling)
	cfg := echoConfig("l")
	cfg.Filters = []Filter{{ProxyProtocol: &ProxyProtocol{}}}
	cfg.Chains[0].Match = Match{Source: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, DirectSource: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, DestinationPort: 8443}
	mustApply(t, m, cfg)
	if got := told(t, m, "l", "PROXY TCP4 192.0.2.7 192.0.2.2 1234 8443\r\n"); !strings.HasPrefix(got, "c 192.0.2.7:1234") {
		t.Errorf("told %q", got)
	}
	if got := told(t, m, "l", "PROXY TCP4 198.51.100.7 192.0.2.2 1234 8443\r\n"); got != "" {
		t.Errorf("another source is served: %q", got)
	}
}

// The access log's direct address is the proxy's.
func TestDirectAddressOfAProxiedClient(t *testing.T) {
	m := newTestManager(t, telling)
	cfg := echoConfig("l")
	cfg.Filters = []Filter{{ProxyProtocol: &ProxyProtocol{Optional: true}}}
	mustApply(t, m, cfg)
	for _, send := range []string{"PROXY TCP4 192.0.2.7 192.0.2.2 1234 8443\r\n", "GET / HTTP/1.1\r\n"} {
		c := dial(t, m, "l")
		_, _ = io.WriteString(c, send)
		b, _ := io.ReadAll(c)
		if want := " " + c.LocalAddr().String(); !strings.HasSuffix(string(b), want) {
			t.Errorf("told %q, want %q at the end", b, want)
		}
	}
}

func FuzzProxyHeader(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.1 192.0.2.2 1234 80\r\n"))
	f.Add([]byte(proxyV2Header(0x21, 0x11, []byte{10, 0, 0, 1, 10, 0, 0, 2, 0x10, 0x01, 0x00, 0x50})))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseProxyHeader(b)
		if err != nil {
			return
		}
		if h.length <= 0 || h.length > len(b) || h.source.IsValid() != h.destination.IsValid() {
			t.Errorf("%+v of %d bytes", h, len(b))
		}
		// Bytes after the header change nothing, and any part of it is not one.
		if again, err := parseProxyHeader(append(b[:h.length:h.length], "rest"...)); err != nil || again != h {
			t.Errorf("%+v became %+v, %v", h, again, err)
		}
		if _, err := parseProxyHeader(b[:h.length-1]); err == nil {
			t.Error("a part of a header is taken for one")
		}
	})
}

func TestHTTPInspector(t *testing.T) {
	for in, want := range map[string]string{
		"GET / HTTP/1.1\r\n": "http/1.1", "POST /a HTTP/1.0\n": "http/1.0", http2Preface: "h2c",
		"\x16\x03\x01": "", "GET / HTTP/3\r\n": "", "SSH-2.0-x\r\n": "", "GET\x00/ HTTP/1.1\r\n": "", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n": "",
	} {
		if got, err := httpProtocol([]byte(in)); got != want || err != nil && want != "" {
			t.Errorf("%q is %q, %v; want %q", in, got, err, want)
		}
		for i := range in {
			if got, err := httpProtocol([]byte(in[:i])); want != "" && (got != "" || !errors.Is(err, errMoreBytes)) {
				t.Errorf("%q is %q, %v", in[:i], got, err)
			}
		}
	}
	m := newTestManager(t, telling)
	cfg := echoConfig("l")
	cfg.Filters = []Filter{{HTTPInspector: true}, {TLSInspector: true}}
	cfg.Chains[0].Match.ApplicationProtocols = []string{"http/1.1"}
	cfg.Default = &FilterChain{Name: "other", TCP: cfg.Chains[0].TCP}
	mustApply(t, m, cfg)
	for send, want := range map[string]string{"GET / HTTP/1.1\r\n": "c ", "EHLO mail\r\n": "other "} {
		if got := told(t, m, "l", send); !strings.HasPrefix(got, want) {
			t.Errorf("%q is told %q", send, got)
		}
	}
}

// A filter that is disabled for a port does not run; one that takes too long ends
// the connection, unless the listener goes on without it.
func TestDisabledAndSlowFilters(t *testing.T) {
	m := newTestManager(t, telling)
	cfg := echoConfig("l")
	any := Predicate{IsRange: true, From: 1}
	cfg.Filters = []Filter{{ProxyProtocol: &ProxyProtocol{}, Disabled: &Predicate{And: []Predicate{any, {Not: &Predicate{Or: []Predicate{{IsRange: true, From: 1, To: 2}}}}}}}}
	mustApply(t, m, cfg)
	if got := told(t, m, "l", "hello"); !strings.HasPrefix(got, "c ") {
		t.Errorf("told %q", got)
	}
	cfg = echoConfig("l")
	cfg.Filters, cfg.FilterTimeout = []Filter{{TLSInspector: true}}, 50*time.Millisecond
	mustApply(t, m, cfg)
	if got := told(t, m, "l", ""); got != "" {
		t.Errorf("a silent client is told %q", got)
	}
	cfg = echoConfig("l")
	cfg.Filters, cfg.FilterTimeout, cfg.ContinueOnTimeout = []Filter{{TLSInspector: true}}, 50*time.Millisecond, true
	mustApply(t, m, cfg)
	if got := told(t, m, "l", ""); !strings.HasPrefix(got, "c ") {
		t.Errorf("a silent client is told %q", got)
	}
}

// TestBeginningWithoutItsEnd: who has ended its side within what a filter looks at sends no more of
// it, so that nothing is waited for.
func TestBeginningWithoutItsEnd(t *testing.T) {
	m := newTestManager(t, telling)
	hello := string(helloBytes(t, "a.example"))
	for _, tc := range []struct {
		filter Filter
		send   string
		served bool
	}{
		{Filter{ProxyProtocol: &ProxyProtocol{}}, "PROXY TCP4 192.0.2.1", false},
		{Filter{ProxyProtocol: &ProxyProtocol{Optional: true}}, "PRO", false},
		{Filter{ProxyProtocol: &ProxyProtocol{}}, "PROXY UNKNOWN\r\n", true},
		{Filter{TLSInspector: true}, hello[:len(hello)/2], false},
		{Filter{TLSInspector: true}, hello, true},
		{Filter{HTTPInspector: true}, "GET /", false},
	} {
		cfg := echoConfig("l")
		cfg.Filters, cfg.FilterTimeout = []Filter{tc.filter}, time.Hour
		mustApply(t, m, cfg)
		for _, pieces := range [][]string{{tc.send}, {tc.send[:2], tc.send[2:]}} {
			c := dial(t, m, "l")
			for _, p := range pieces {
				_, _ = io.WriteString(c, p)
			}
			_ = c.(*net.TCPConn).CloseWrite()
			if b, _ := io.ReadAll(c); strings.HasPrefix(string(b), "c ") != tc.served {
				t.Errorf("%q, and no more: told %q", tc.send, b)
			}
		}
	}
}

// A ClientHello is not looked at beyond its limit, and where TLS is all there may be, nothing
// else is served.
func TestLimitsOfTLSInspection(t *testing.T) {
	m := newTestManager(t, telling)
	hello := helloBytes(t, "a.example")
	for what, c := range map[string]struct {
		filter Filter
		send   []byte
		served bool
	}{
		"as long as the limit":     {Filter{TLSInspector: true, MaxClientHello: len(hello)}, hello, true},
		"longer":                   {Filter{TLSInspector: true, MaxClientHello: len(hello) - 1}, hello, false},
		"longer, but no TLS":       {Filter{TLSInspector: true, MaxClientHello: 8}, []byte("EHLO mail\r\n"), true},
		"no TLS, where TLS is due": {Filter{TLSInspector: true, TLSOnly: true}, []byte("EHLO mail\r\n"), false},
		"TLS, where it is due":     {Filter{TLSInspector: true, TLSOnly: true}, hello, true},
	} {
		cfg := echoConfig("l")
		cfg.Filters = []Filter{c.filter}
		mustApply(t, m, cfg)
		if got := told(t, m, "l", string(c.send)); strings.HasPrefix(got, "c ") != c.served {
			t.Errorf("%s: told %q", what, got)
		}
	}
}

// A connection goes to the listener of its destination, which need not be bound.
func TestHandOff(t *testing.T) {
	m := newTestManager(t, telling)
	first := echoConfig("first")
	first.Filters, first.HandOff = []Filter{{ProxyProtocol: &ProxyProtocol{}}}, true
	second := echoConfig("second")
	second.Address, second.Unbound, second.Chains[0].Name = "192.0.2.2:80", true, "second"
	wide := echoConfig("wide")
	wide.Address, wide.Unbound, wide.Chains[0].Name = "0.0.0.0:81", true, "wide"
	for _, cfg := range []*Config{first, second, wide} {
		mustApply(t, m, cfg)
	}
	for port, want := range map[string]string{"80": "second ", "81": "wide ", "82": "c "} {
		if got := told(t, m, "first", "PROXY TCP4 192.0.2.1 192.0.2.2 1234 "+port+"\r\n"); !strings.HasPrefix(got, want) {
			t.Errorf("port %s: told %q", port, got)
		}
	}
	m.Remove("second")
	if got := told(t, m, "first", "PROXY TCP4 192.0.2.1 192.0.2.2 1234 80\r\n"); !strings.HasPrefix(got, "c ") {
		t.Errorf("told %q by a listener that is gone", got)
	}
}

func TestAddresses(t *testing.T) {
	m := newTestManager(t, nil)
	cfg := echoConfig("l")
	path := filepath.Join(t.TempDir(), "s")
	cfg.Additional = []Address{{Network: "tcp", Address: "127.0.0.1:0"}, {Network: "unix", Address: path, Socket: SocketOptions{Mode: 0o620}}, {Network: "unix", Address: "@hauberk-test-" + filepath.Base(t.TempDir())}}
	mustApply(t, m, cfg)
	addrs := m.AllAddrs()["l"]
	if len(addrs) != 4 || addrs[0].String() == addrs[1].String() {
		t.Fatalf("bound to %v", addrs)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o620 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	for _, a := range addrs {
		c, err := net.Dial(a.Network(), a.String())
		if err != nil {
			t.Fatal(err)
		}
		if err := roundTrip(c); err != nil {
			t.Errorf("%s: %v", a, err)
		}
		_ = c.Close()
	}
	// One address goes, the others and their sockets stay.
	next := echoConfig("l")
	next.Additional = cfg.Additional[1:]
	mustApply(t, m, next)
	if now := m.AllAddrs()["l"]; len(now) != 3 || now[0].String() != addrs[0].String() {
		t.Errorf("bound to %v", now)
	}
	if c, err := net.Dial("tcp", addrs[1].String()); err == nil {
		_ = c.Close()
		t.Error("an address that is gone accepts")
	}
	changed := echoConfig("l")
	changed.Socket.Backlog = 7
	if err := m.Apply(changed); err == nil || !strings.Contains(err.Error(), "cannot change while it is open") {
		t.Errorf("%v", err)
	}
}

func TestSocketOptions(t *testing.T) {
	m := newTestManager(t, nil)
	cfg := echoConfig("l")
	const solSocket, soRcvbuf = 1, 8
	cfg.Socket = SocketOptions{
		Backlog: 5, FastOpen: 5, FreeBind: true, ReusePort: true, KeepAlive: &KeepAlive{Idle: time.Minute, Interval: time.Second, Probes: 3},
		Options: []sockopt.Option{{Level: solSocket, Name: soRcvbuf, Int: 1 << 16}, {Level: solSocket, Name: soRcvbuf, Int: 1 << 16, State: sockopt.Listening}, {Level: 99, Name: 99, Family: 6}},
	}
	mustApply(t, m, cfg)
	if err := roundTrip(dial(t, m, "l")); err != nil {
		t.Error(err)
	}
	// Another process could listen there too.
	other := NewSockets(nil)
	s, err := other.Listen("o", 0, Address{Network: "tcp", Address: m.Addrs()["l"].String(), Socket: SocketOptions{ReusePort: true}})
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	cfg = echoConfig("bad")
	cfg.Socket.Options = []sockopt.Option{{Level: 99, Name: 99}}
	if err := m.Apply(cfg); err == nil || !strings.Contains(err.Error(), "socket option 99 of level 99") {
		t.Errorf("%v", err)
	}
	for compat, ok := range map[bool]bool{false: false, true: true} {
		cfg := echoConfig("six")
		cfg.Address, cfg.Socket.IPv4Compat = "[::]:0", compat
		if err := m.Apply(cfg); err != nil {
			t.Fatal(err)
		}
		_, port, _ := net.SplitHostPort(m.Addrs()["six"].String())
		c, err := net.Dial("tcp4", "127.0.0.1:"+port)
		if (err == nil) != ok {
			t.Errorf("IPv4 with compat %v: %v", compat, err)
		}
		if err == nil {
			_ = c.Close()
		}
		m.Remove("six")
	}
}

func TestConnectionAndRateLimits(t *testing.T) {
	m := newTestManager(t, nil)
	cfg := echoConfig("l")
	cfg.Chains[0].ConnectionLimits = []ConnectionLimit{{Max: 2, Delay: 30 * time.Millisecond}}
	mustApply(t, m, cfg)
	a, b := dial(t, m, "l"), dial(t, m, "l")
	if err := errors.Join(roundTrip(a), roundTrip(b)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := roundTrip(dial(t, m, "l")); err == nil || errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) < 30*time.Millisecond {
		t.Errorf("the third: %v after %v", err, time.Since(began))
	}
	_ = a.Close()
	waitFor(t, func() bool { return roundTrip(dial(t, m, "l")) == nil })

	rated := echoConfig("rated")
	rated.Chains[0].RateLimits = []RateLimit{{Bucket: tokenbucket.Spec{Max: 1, PerFill: 1, Interval: time.Hour}}}
	mustApply(t, m, rated)
	if err := roundTrip(dial(t, m, "rated")); err != nil {
		t.Error(err)
	}
	if err := roundTrip(dial(t, m, "rated")); err == nil {
		t.Error("a second connection is served")
	}
}

// TestLimitsBeforeTheHandshake: who has not shaken hands yet has a place already, whoever is
// one too many costs no handshake, and a place is given back once, however its connection
// ends.
func TestLimitsBeforeTheHandshake(t *testing.T) {
	m := newTestManager(t, func(o *Options) {
		o.TLS = testTLS{selfSigned(t, apiID)}
		o.HandshakeTimeout = time.Minute
	})
	limited := func(rbac ...authz.NetworkFilter) *Config {
		cfg := echoConfig("l", rbac...)
		cfg.Chains[0].TLS = &TLS{Certificate: apiID}
		cfg.Chains[0].ConnectionLimits = []ConnectionLimit{{Max: 1}}
		return cfg
	}
	mustApply(t, m, limited())
	chain := func() *chain {
		l := m.all()[0]
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.current.chains[0]
	}
	free := func() {
		t.Helper()
		waitFor(t, func() bool { return chain().limits[0].open.Load() == 0 })
	}
	handshakes := func() (n int) {
		var out strings.Builder
		_ = m.opts.Metrics.Registry.WritePrometheus(&out)
		return strings.Count(out.String(), "hauberk_tls_handshakes_total{")
	}
	client := func() *tls.Conn {
		return tls.Client(dial(t, m, "l"), &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{selfSigned(t, webID)}})
	}
	silent := dial(t, m, "l")
	waitFor(t, func() bool { return chain().limits[0].open.Load() == 1 })
	if err := roundTrip(client()); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("one too many: %v", err)
	}
	if n := handshakes(); n != 0 {
		t.Errorf("%d kinds of handshakes were counted", n)
	}
	_ = silent.Close()
	free()
	good := client()
	if err := roundTrip(good); err != nil {
		t.Fatal(err)
	}
	_ = good.Close()
	free()
	mustApply(t, m, limited(denyAll()))
	if err := roundTrip(client()); err == nil {
		t.Error("a denied connection is served")
	}
	free()

	rated := limited()
	rated.Name, rated.Chains[0].ConnectionLimits[0].Max = "rated", 2
	rated.Chains[0].RateLimits = []RateLimit{{Bucket: tokenbucket.Spec{Max: 1, PerFill: 1, Interval: time.Hour}}}
	m.Remove("l")
	mustApply(t, m, rated)
	_ = dial(t, m, "rated") // has the token, and does not shake hands
	taken := func() bool { return chain().limits[0].open.Load() == 1 }
	waitFor(t, taken)
	second := dial(t, m, "rated")
	if _, err := second.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("without a token: %v", err)
	}
	waitFor(t, taken)
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.After(5 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("it does not come true")
		}
	}
}

// The process's limits: of connections in all, of one listener, and of memory,
// under which connections wait in the socket until there is some again.
func TestOverload(t *testing.T) {
	heap := make(chan uint64, 1)
	level := uint64(0)
	var m *Manager
	o := overload.New(&overload.Config{
		Refresh: 5 * time.Millisecond, MaxConnections: 3, ListenerConnections: map[string]int64{"one": 1}, MaxHeap: 100,
		Actions: []overload.Action{{Kind: overload.StopAccepting, Triggers: []overload.Trigger{{Resource: overload.Heap, Threshold: 0.9}}}},
	}, overload.Options{
		Heap: func() uint64 {
			select {
			case level = <-heap:
			default:
			}
			return level
		},
		Accept: func(yes bool) { m.Accept(yes) },
	})
	m = newTestManager(t, func(opts *Options) { opts.Overload = o })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); o.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	one, all, free := echoConfig("one"), echoConfig("all"), echoConfig("free")
	free.IgnoreGlobalLimit, free.IgnoreOverload = true, true
	for _, cfg := range []*Config{one, all, free} {
		mustApply(t, m, cfg)
	}
	ok := func(name string, want bool) net.Conn {
		t.Helper()
		c := dial(t, m, name)
		if err := roundTrip(c); (err == nil) != want {
			t.Errorf("listener %s: %v", name, err)
		}
		return c
	}
	first := ok("one", true)
	ok("one", false)
	ok("all", true)
	ok("all", true)
	ok("all", false)
	ok("free", true)
	_ = first.Close()
	waitFor(t, func() bool { return roundTrip(dial(t, m, "one")) == nil })

	heap <- 95
	waitFor(t, func() bool { return !o.Accepting() })
	ok("free", true)
	waiting := dial(t, m, "all")
	_ = waiting.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if err := roundTrip(waiting); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("accepted under overload: %v", err)
	}
	for _, t := range m.all() {
		if t.name == "all" {
			t.closeAll(downstream.Ending{Reason: "test"}) // make room
		}
	}
	heap <- 10
	_ = waiting.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.ReadFull(waiting, make([]byte, 4)); err != nil {
		t.Errorf("not accepted afterwards: %v", err)
	}
}

// TestInspectsUnasked: connections are looked at for TLS only where a chain could not be
// chosen otherwise, so that a server behind others may speak first.
func TestInspectsUnasked(t *testing.T) {
	for name, c := range map[string]struct {
		match Match
		want  bool
	}{
		"nothing":                {Match{}, false},
		"plaintext":              {Match{TransportProtocol: "raw_buffer"}, false},
		"protocols of plaintext": {Match{TransportProtocol: "raw_buffer", ApplicationProtocols: []string{"h2c"}}, false},
		"names of plaintext":     {Match{TransportProtocol: "raw_buffer", ServerNames: []string{"a.example"}}, false},
		"TLS":                    {Match{TransportProtocol: "tls"}, true},
		"names":                  {Match{ServerNames: []string{"a.example"}}, true},
		"protocols":              {Match{ApplicationProtocols: []string{"h2"}}, true},
	} {
		s := &snapshot{cfg: &Config{Chains: []FilterChain{{Match: Match{SourceType: External}}, {Match: c.match}}}}
		if got := s.filters(); len(got) == 1 != c.want {
			t.Errorf("%s: %d filters", name, len(got))
		}
		s.cfg.Filters = []Filter{{OriginalDst: true}, {TLSInspector: true}}
		if got := s.filters(); len(got) != 2 {
			t.Errorf("%s, with an inspector: %d filters", name, len(got))
		}
	}
}

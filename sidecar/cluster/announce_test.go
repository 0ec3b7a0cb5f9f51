package cluster

import (
	"bufio"
	"crypto/tls"
	"encoding/hex"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/proxytlv"
)

// TestAnnouncementHeader holds headers to HAProxy's specification, byte by byte.
func TestAnnouncementHeader(t *testing.T) {
	var l proxytlv.List
	full := l.With(1, strings.Repeat("x", proxytlv.MostHeader-16-12-3))
	for name, tc := range map[string]struct {
		version    Announcement
		from, to   string
		want       string
		extensions proxytlv.List
	}{
		"1 IPv4":       {1, "10.1.2.3:40000", "10.0.0.1:80", "PROXY TCP4 10.1.2.3 10.0.0.1 40000 80\r\n", ""},
		"1 IPv6":       {1, "[2001:db8::1]:1", "[2001:db8::2]:2", "PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n", ""},
		"1 zone":       {1, "[fe80::1%eth0]:1", "[fe80::2%eth0]:2", "PROXY TCP6 fe80::1 fe80::2 1 2\r\n", ""},
		"1 of both":    {1, "10.1.2.3:1", "[2001:db8::2]:2", "PROXY TCP6 ::ffff:10.1.2.3 2001:db8::2 1 2\r\n", ""},
		"1 of nobody":  {1, "", "", "PROXY UNKNOWN\r\n", ""},
		"2 IPv4":       {2, "10.1.2.3:256", "10.0.0.1:80", "0d0a0d0a000d0a515549540a2111000c0a0102030a00000101000050", ""},
		"2 IPv6":       {2, "[::1]:1", "[::2]:2", "0d0a0d0a000d0a515549540a212100240000000000000000000000000000000100000000000000000000000000000002" + "00010002", ""},
		"2 of nobody":  {2, "", "", "0d0a0d0a000d0a515549540a20000000", ""},
		"2 without to": {2, "10.1.2.3:256", "", "0d0a0d0a000d0a515549540a20000000", ""},
		"1 and more":   {1, "10.1.2.3:40000", "10.0.0.1:80", "PROXY TCP4 10.1.2.3 10.0.0.1 40000 80\r\n", l.With(2, "a")},
		"2 and more":   {2, "10.1.2.3:256", "10.0.0.1:80", "0d0a0d0a000d0a515549540a211100140a0102030a00000101000050" + "0200016105000161", l.With(2, "a").With(5, "a")},
		// The checksum was of a header that another sent: this one's is CRC-32c by the protocol's own rules.
		"2 with a sum":      {2, "10.1.2.3:256", "10.0.0.1:80", "0d0a0d0a000d0a515549540a211100130a0102030a00000101000050" + "0300046adf10af", l.With(3, "abcd")},
		"2 with no room":    {2, "10.1.2.3:256", "10.0.0.1:80", "0d0a0d0a000d0a515549540a21110ff00a0102030a00000101000050" + hex.EncodeToString([]byte(full)), full.With(2, "")},
		"2 of nobody, more": {2, "", "", "0d0a0d0a000d0a515549540a20000000", l.With(2, "a")},
	} {
		t.Run(name, func(t *testing.T) {
			var from, to netip.AddrPort
			if tc.from != "" {
				from = netip.MustParseAddrPort(tc.from)
			}
			if tc.to != "" {
				to = netip.MustParseAddrPort(tc.to)
			}
			got := string(tc.version.header(from, to, tc.extensions))
			if tc.version == 2 {
				got = hex.EncodeToString([]byte(got))
			}
			if got != tc.want {
				t.Errorf("got  %q\nwant %q", got, tc.want)
			}
		})
	}
}

// announcedHost takes connections that begin with a line of version 1, and TLS behind it.
type announcedHost struct {
	addr  string
	mu    sync.Mutex
	lines []string
}

func newAnnouncedHost(t *testing.T, cfg *tls.Config) *announcedHost {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &announcedHost{addr: l.Addr().String()}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer nc.Close()
				h.serve(nc, cfg)
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return h
}

func (h *announcedHost) serve(nc net.Conn, cfg *tls.Config) {
	var line []byte
	for !strings.HasSuffix(string(line), "\n") {
		var b [1]byte
		if _, err := nc.Read(b[:]); err != nil {
			return
		}
		line = append(line, b[0])
	}
	h.mu.Lock()
	h.lines = append(h.lines, string(line))
	h.mu.Unlock()
	if cfg != nil {
		nc = tls.Server(nc, cfg)
	}
	_, _ = io.Copy(io.Discard, bufio.NewReader(nc))
}

func (h *announcedHost) announced() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.lines)
}

// TestClientsAreAnnounced: a connection that was announced for a client serves that client's
// requests and no other's, over TLS and without, in either version of HTTP; nor those of the
// process itself, which has one of its own.
func TestClientsAreAnnounced(t *testing.T) {
	names := newNamesHost(t)
	for name, protocol := range eitherVersion {
		for _, over := range []string{"plain", "TLS"} {
			t.Run(name+" "+over, func(t *testing.T) {
				var server *tls.Config
				cfg := &Config{Name: "c", Announce: 1, HTTP: HTTP{Protocol: protocol}}
				if over == "TLS" {
					server = &tls.Config{Certificates: names.certificates, NextProtos: []string{"h2", "http/1.1"}}
					cfg.TLS = &TLS{}
				}
				host := newAnnouncedHost(t, server)
				cfg.Endpoints = hosts("c", host.addr)
				m := newManager(t, Options{TLS: pooled{&tls.Config{InsecureSkipVerify: true}}})
				h := mustUpdate(t, m, cfg).hosts()[0]
				acquire := func(from string) *Conn {
					asker := &Asker{To: netip.MustParseAddrPort("10.0.0.9:80")}
					if from == "" {
						asker = &Asker{}
					} else {
						asker.From = netip.MustParseAddrPort(from)
					}
					terms, err := h.TermsFor(asker)
					if err != nil {
						t.Fatal(err)
					}
					conn, err := h.Acquire(withTimeout(5*time.Second), "web", &terms, true, DefaultPriority, monotonic(), 0)
					if err != nil {
						t.Fatal(err)
					}
					conn.Release()
					return conn
				}
				one, two, own := acquire("10.0.0.1:1000"), acquire("10.0.0.1:1001"), acquire("")
				if one == two || one == own || two == own {
					t.Fatal("a connection serves two clients")
				}
				if acquire("10.0.0.1:1000") != one || acquire("10.0.0.1:1001") != two || acquire("") != own {
					t.Error("a client's connection is not used again")
				}
				want := []string{"PROXY TCP4 10.0.0.1 10.0.0.9 1000 80\r\n", "PROXY TCP4 10.0.0.1 10.0.0.9 1001 80\r\n"}
				waitFor(t, func() bool { return len(host.announced()) == 3 })
				got := host.announced()
				slices.Sort(got) // they begin in any order
				if !slices.Equal(got[:2], want) || !strings.HasPrefix(got[2], "PROXY TCP4 127.0.0.1 127.0.0.1 ") {
					t.Errorf("announced %q, want %q and itself", got, want)
				}
			})
		}
	}
}

// TestByteStreamsAreAnnounced: so is each connection of a TCP proxy, of which nothing stays.
func TestByteStreamsAreAnnounced(t *testing.T) {
	host := newAnnouncedHost(t, nil)
	m := newManager(t, Options{})
	c := mustUpdate(t, m, &Config{Name: "c", Announce: 1, Endpoints: hosts("c", host.addr)})
	asker := &Asker{From: netip.MustParseAddrPort("10.0.0.1:1000"), To: netip.MustParseAddrPort("10.0.0.9:80")}
	conn, err := c.OpenFor(t.Context(), "web", &PickContext{}, asker, 0)
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool {
		return slices.Equal(host.announced(), []string{"PROXY TCP4 10.0.0.1 10.0.0.9 1000 80\r\n"})
	})
	h := c.hosts()[0]
	if n := len(h.everyPool()); n != 1 {
		t.Errorf("%d pools", n)
	}
	_ = conn.Close()
	h.sweepIdle(monotonic(), int64(time.Hour))
	if n := len(h.everyPool()); n != 0 {
		t.Errorf("%d pools stay", n)
	}
}

// TestAnnouncedMeanwhile: a stream that chose its host before clients were to be announced is not
// announced as the process's own.
func TestAnnouncedMeanwhile(t *testing.T) {
	host := newAnnouncedHost(t, nil)
	m := newManager(t, Options{})
	plain := &Config{Name: "c", Endpoints: hosts("c", host.addr)}
	h := mustUpdate(t, m, plain).hosts()[0]
	announced := *plain
	announced.Announce = 1
	opened := 0
	asker := &Asker{From: netip.MustParseAddrPort("10.0.0.1:1000"), To: netip.MustParseAddrPort("10.0.0.9:80")}
	conn, err := h.onTerms(asker, func(terms *Terms) (*Conn, error) {
		if opened++; opened == 1 {
			mustUpdate(t, m, &announced)
		}
		return h.OpenBytes(t.Context(), "web", terms, 0)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	waitFor(t, func() bool { return len(host.announced()) > 0 })
	if got := host.announced(); opened != 2 || !slices.Equal(got, []string{"PROXY TCP4 10.0.0.1 10.0.0.9 1000 80\r\n"}) {
		t.Errorf("opened %d times, announced %q", opened, got)
	}
}

// TestSocketsThatAnnounce: a matching transport socket decides, also that nothing is announced;
// health checks say who makes them, as they are nobody's.
func TestSocketsThatAnnounce(t *testing.T) {
	host := newAnnouncedHost(t, nil)
	m := newManager(t, Options{})
	at := hosts("c", host.addr)
	at.Localities[0].Endpoints[0].Metadata = map[string]map[string]any{SocketNamespace: {"a": "b"}}
	c := mustUpdate(t, m, &Config{Name: "c", Endpoints: at,
		Sockets:     []SocketMatch{{Match: map[string]any{"a": "b"}, Announce: 1}},
		HealthCheck: &HealthCheck{TCP: &TCPCheck{}, Timeout: time.Second, Interval: time.Hour, NoTraffic: time.Hour, NoTrafficHealthy: time.Hour, Unhealthy: time.Hour, UnhealthyEdge: time.Hour, HealthyEdge: time.Hour, UnhealthyThreshold: 1, HealthyThreshold: 1}})
	waitFor(t, func() bool { return len(host.announced()) == 1 })
	if got := host.announced()[0]; !strings.HasPrefix(got, "PROXY TCP4 127.0.0.1 127.0.0.1 ") {
		t.Errorf("the check says %q", got)
	}
	if !c.hosts()[0].Particular(nil) {
		t.Error("nothing is announced")
	}
	same := *c.Config()
	same.Sockets = nil
	if mustUpdate(t, m, &same).hosts()[0].Particular(nil) {
		t.Error("clients are announced, and no socket wants it")
	}
}

// TestExtensionsTellPoolsApart: a connection that was announced with other extensions serves nobody
// else, and only what the cluster passes on counts.
func TestExtensionsTellPoolsApart(t *testing.T) {
	var none proxytlv.List
	c := mustUpdate(t, newManager(t, Options{}), &Config{
		Name: "c", Announce: 2, Endpoints: hosts("c", "127.0.0.1:1"), Extensions: &Extensions{Passed: proxytlv.Choice{Types: "\x01"}, Added: proxytlv.Keep(none.With(9, "x"))},
	})
	from, to := netip.MustParseAddrPort("10.0.0.1:1000"), netip.MustParseAddrPort("10.0.0.9:80")
	key := func(said proxytlv.List) poolKey {
		terms, err := c.hosts()[0].TermsFor(&Asker{Extensions: &proxytlv.Client{Said: said}, From: from, To: to})
		if err != nil {
			t.Fatal(err)
		}
		return keyOf("web", DefaultPriority, &terms)
	}
	one := key(none.With(1, "a").With(9, "y"))
	if one != key(none.With(1, "a").With(2, "b")) {
		t.Error("what is not passed on keeps clients apart")
	}
	if one == key(none.With(1, "b")) {
		t.Error("clients of other extensions share a connection")
	}
	if want := none.With(9, "x").With(1, "a"); one.extensions.List() != want {
		t.Errorf("%q, want %q", one.extensions.List(), want)
	}
}

// TestTermsAreMadeOnce: what a header says of a client is not made anew for each of its requests, also
// where it is long, and clients that said the same have one copy of it.
func TestTermsAreMadeOnce(t *testing.T) {
	var none, long proxytlv.List
	for range 1350 {
		long = long.With(1, "")
	}
	c := mustUpdate(t, newManager(t, Options{}), &Config{
		Name: "c", Announce: 2, Endpoints: hosts("c", "127.0.0.1:1"), Extensions: &Extensions{Passed: proxytlv.Choice{Types: "\x01"}, Added: proxytlv.Keep(none.With(9, "x"))},
	})
	key := func(asker *Asker) poolKey {
		terms, err := c.hosts()[0].TermsFor(asker)
		if err != nil {
			t.Fatal(err)
		}
		return keyOf("web", DefaultPriority, &terms)
	}
	one, other := &Asker{Extensions: &proxytlv.Client{Said: long}}, &Asker{Extensions: &proxytlv.Client{Said: long.With(2, "b")}}
	if key(one) != key(other) {
		t.Error("the same is kept twice")
	}
	if n := testing.AllocsPerRun(100, func() { key(one) }); n != 0 {
		t.Errorf("%v allocations for a request", n)
	}
}

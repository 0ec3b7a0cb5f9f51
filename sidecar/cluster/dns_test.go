package cluster

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

var noSuchHost = &net.DNSError{Err: "no such host", Name: "api.example", IsNotFound: true}

// namesOn is an assignment of DNS names, on a port.
func namesOn(port int, names ...string) *Assignment {
	var l Locality
	for _, name := range names {
		l.Endpoints = append(l.Endpoints, Endpoint{Host: name, Port: port})
	}
	return &Assignment{Localities: []Locality{l}}
}

// addresses are those of the hosts that a cluster connects to.
func addresses(c *Cluster) (out []string) {
	for _, h := range c.hosts() {
		out = append(out, h.Addr().String())
	}
	return out
}

// TestKnownAddressesOutliveUpdates: while the resolver fails, a change of the cluster costs
// no address.
func TestKnownAddressesOutliveUpdates(t *testing.T) {
	for _, typ := range []Type{StrictDNS, LogicalDNS} {
		synctest.Test(t, func(t *testing.T) {
			dns := &fakeDNS{}
			dns.set(nil, "10.0.0.1")
			m := NewManager(Options{Resolver: dns})
			defer m.Close()
			with := func(port int, family DNSFamily) *Cluster {
				return mustUpdate(t, m, &Config{Name: "c", Type: typ, Endpoints: namesOn(port, "api.example"), DNS: &DNS{Refresh: time.Second, Family: family}})
			}
			c := with(80, AllFamilies)
			synctest.Wait()
			dns.set(errors.New("server misbehaving"))
			wait(3 * time.Second)
			for _, tc := range []struct {
				port   int
				family DNSFamily
				want   string
			}{{80, AllFamilies, "10.0.0.1:80"}, {80, IPv4Only, "10.0.0.1:80"}, {81, IPv4First, "10.0.0.1:81"}, {81, IPv6Only, ""}, {82, AllFamilies, "10.0.0.1:82"}} {
				with(tc.port, tc.family)
				for range 2 { // at once, and when the resolver has failed again
					if got := addresses(c); len(got) == 0 && tc.want != "" || len(got) > 0 && got[0] != tc.want {
						t.Errorf("%d: %v, want %s", typ, got, tc.want)
					}
					wait(1500 * time.Millisecond)
				}
			}
		})
	}
}

// TestNamesThatAreGone: a name that does not exist, or has no address, has no hosts in a
// StrictDNS cluster, and keeps its last in a LogicalDNS cluster, as in Envoy; where nobody
// knows, the last addresses stay.
func TestNamesThatAreGone(t *testing.T) {
	for _, typ := range []Type{StrictDNS, LogicalDNS} {
		synctest.Test(t, func(t *testing.T) {
			dns := &fakeDNS{}
			m := NewManager(Options{Resolver: dns})
			defer m.Close()
			terms := &DNS{Refresh: time.Second, FailureBase: time.Hour, FailureMax: time.Hour}
			if typ == LogicalDNS {
				terms.FailureBase, terms.FailureMax = time.Second, time.Second
			}
			c := mustUpdate(t, m, &Config{Name: "c", Type: typ, Endpoints: namesOn(80, "api.example"), DNS: terms})
			for i, tc := range []struct {
				err  error
				addr string
				want int
			}{
				{nil, "10.0.0.1", 1}, {noSuchHost, "", 0}, {nil, "10.0.0.2", 1},
				{&net.DNSError{Err: "server misbehaving", IsTemporary: true}, "", 1},
			} {
				if typ == LogicalDNS {
					tc.want = 1
				}
				if dns.set(tc.err); tc.addr != "" {
					dns.set(tc.err, tc.addr)
				}
				wait(1100 * time.Millisecond) // where that there is nothing is no failure, which would be waited after for long
				if got := addresses(c); len(got) != tc.want {
					t.Errorf("%d.%d: %v", typ, i, got)
				}
			}
		})
	}
}

// TestNoAddressIsAFailure: a LogicalDNS cluster asks again after an answer without an address as
// after none at all, as in Envoy; for a StrictDNS cluster it is an answer as any other.
func TestNoAddressIsAFailure(t *testing.T) {
	for name, answer := range map[string]func(*fakeDNS){
		"no such name":       func(dns *fakeDNS) { dns.set(noSuchHost) },
		"no address":         func(dns *fakeDNS) { dns.set(nil) },
		"none of its family": func(dns *fakeDNS) { dns.set(nil, "::1") },
	} {
		for typ, soon := range map[Type]bool{StrictDNS: false, LogicalDNS: true} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					dns := &fakeDNS{}
					answer(dns)
					m := NewManager(Options{Resolver: dns})
					defer m.Close()
					c := mustUpdate(t, m, &Config{Name: "c", Type: typ, Endpoints: namesOn(80, "api.example"), DNS: &DNS{
						Family: IPv4Only, Refresh: time.Hour, FailureBase: time.Second, FailureMax: time.Second}})
					wait(10 * time.Second)
					dns.set(nil, "10.0.0.1")
					wait(time.Second)
					if got := addresses(c); (len(got) == 1) != soon {
						t.Errorf("type %d: %v", typ, got)
					}
					// One that answers with an address is asked no sooner than it is to be.
					dns.set(nil, "10.0.0.2")
					wait(30 * time.Minute)
					if got := addresses(c); soon && (len(got) != 1 || got[0] != "10.0.0.1:80") {
						t.Errorf("type %d: %v", typ, got)
					}
				})
			})
		}
	}
}

// resolverFunc is a Resolver.
type resolverFunc func(ctx context.Context, host string) ([]netip.Addr, error)

func (f resolverFunc) LookupNetIP(ctx context.Context, _, host string) ([]netip.Addr, error) {
	return f(ctx, host)
}

// TestNamesAreResolvedByThemselves: one that nobody answers for holds up no other.
func TestNamesAreResolvedByThemselves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, seen := map[string]int{}, make(chan struct{})
		m := NewManager(Options{Resolver: resolverFunc(func(ctx context.Context, host string) ([]netip.Addr, error) {
			switch host {
			case "slow.example":
				<-ctx.Done()
				return nil, ctx.Err()
			case "a.example":
				<-seen
				asked[host]++
			}
			return []netip.Addr{netip.MustParseAddr("10.0.0.1")}, nil
		})})
		defer m.Close()
		c := mustUpdate(t, m, &Config{
			Name: "c", Type: StrictDNS, Endpoints: namesOn(80, "slow.example", "10.0.0.9", "a.example", "a.example"), DNS: &DNS{Refresh: time.Second},
		})
		if got := addresses(c); len(got) != 1 || got[0] != "10.0.0.9:80" {
			t.Errorf("before any lookup: %v", got)
		}
		close(seen)
		synctest.Wait()
		if got := addresses(c); len(got) != 3 { // of a name that is there twice two hosts, as in Envoy
			t.Errorf("with one answer: %v", got)
		}
		if wait(10500 * time.Millisecond); asked["a.example"] != 11 {
			t.Errorf("%d lookups of a name in 10.5 s, want 11", asked["a.example"])
		}
	})
}

// TestNotFoundIsMadeSureOf: a name is gone where every question has the answer that there is
// nothing, not where some have none.
func TestNotFoundIsMadeSureOf(t *testing.T) {
	for name, tc := range map[string]struct {
		a, aaaa dnsmessage.RCode
		gone    bool
	}{
		"no such name":        {dnsmessage.RCodeNameError, dnsmessage.RCodeNameError, true},
		"no address":          {dnsmessage.RCodeSuccess, dnsmessage.RCodeSuccess, true},
		"IPv4 is not known":   {dnsmessage.RCodeServerFailure, dnsmessage.RCodeSuccess, false},
		"IPv6 is not known":   {dnsmessage.RCodeSuccess, dnsmessage.RCodeServerFailure, false},
		"neither of them is":  {dnsmessage.RCodeServerFailure, dnsmessage.RCodeServerFailure, false},
		"IPv4 does not exist": {dnsmessage.RCodeNameError, dnsmessage.RCodeServerFailure, false},
	} {
		t.Run(name, func(t *testing.T) {
			at := dnsServer(t, map[dnsmessage.Type]dnsmessage.RCode{dnsmessage.TypeA: tc.a, dnsmessage.TypeAAAA: tc.aaaa})
			asking := func(strict bool) *net.Resolver {
				return &net.Resolver{PreferGo: true, StrictErrors: strict, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
					return (&net.Dialer{}).DialContext(ctx, "udp", at)
				}}
			}
			_, err := systemResolver{asking(false), asking(true)}.LookupNetIP(t.Context(), "ip", "api.example.")
			if err == nil || notFound(err) != tc.gone {
				t.Errorf("gone: %v, want %v: %v", notFound(err), tc.gone, err)
			}
		})
	}
}

// dnsServer answers questions without any address.
func dnsServer(t *testing.T, answers map[dnsmessage.Type]dnsmessage.RCode) (addr string) {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(b[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			m.Header = dnsmessage.Header{ID: m.ID, Response: true, Authoritative: true, RecursionAvailable: true, RCode: answers[m.Questions[0].Type]}
			m.Additionals = nil
			if out, err := m.Pack(); err == nil {
				_, _ = pc.WriteTo(out, from)
			}
		}
	}()
	t.Cleanup(func() { _ = pc.Close(); <-done })
	return pc.LocalAddr().String()
}

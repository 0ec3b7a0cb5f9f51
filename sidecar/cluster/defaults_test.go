package cluster

import (
	"context"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// TestNameserversOfOthers: a cluster asks those of the bootstrap, unless it says itself whom it asks.
func TestNameserversOfOthers(t *testing.T) {
	others := &DNS{Servers: []string{"10.0.0.1:53"}, OverTCP: true, WholeNames: true}
	if got := (&DNS{RespectTTL: true}).orElse(others); !reflect.DeepEqual(got, &DNS{RespectTTL: true, Servers: others.Servers, OverTCP: true, WholeNames: true}) {
		t.Errorf("none of its own: %+v", got)
	}
	for _, d := range []*DNS{{OwnResolver: true}, {OwnResolver: true, Servers: []string{"10.0.0.2:53"}}} {
		if got := d.orElse(others); got != d {
			t.Errorf("its own: %+v", got)
		}
	}
	if d := (&DNS{}); d.orElse(nil) != d {
		t.Error("the host's")
	}
}

type askedResolver struct {
	name  string
	asked *[]string
}

func (r askedResolver) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	*r.asked = append(*r.asked, r.name)
	return nil, context.DeadlineExceeded
}

// TestRotatedNameservers: each lookup begins with another server, and asks all.
func TestRotatedNameservers(t *testing.T) {
	var asked []string
	n := (&DNS{Servers: []string{"10.0.0.1:53", "10.0.0.2:53", "10.0.0.3:53"}, Rotate: true}).nameservers(nil, nil)
	for i, name := range []string{"a", "b", "c"} {
		n.asked[i] = askedResolver{name, &asked}
	}
	n.first.Store(1<<32 - 2)
	for range 4 {
		_, _ = n.LookupNetIP(t.Context(), "ip", "api.test")
	}
	if want := []string{"a", "b", "c", "a", "b", "c", "b", "c", "a", "c", "a", "b"}; !slices.Equal(asked, want) {
		t.Errorf("%v, want %v", asked, want)
	}
}

// TestBindOfOthers: connections come from the bootstrap's address, unless the cluster has its own
// or says that it has none.
func TestBindOfOthers(t *testing.T) {
	s := newServer(t)
	from := func(a string) *Bind { return &Bind{From: []BindAddress{{Addr: netip.MustParseAddr(a)}}} }
	m := newManager(t, Options{Bind: from("127.0.0.9")})
	for name, tc := range map[string]struct {
		bind *Bind
		want string
	}{
		"others": {nil, "127.0.0.9"}, "own": {from("127.0.0.8"), "127.0.0.8"}, "any": {&Bind{}, "127.0.0.1"},
	} {
		c := mustUpdate(t, m, &Config{Name: name, Bind: tc.bind, Endpoints: hosts(name, s.addr)})
		conn := acquire(t, c, "web")
		if at, err := netip.ParseAddrPort(conn.Info().Local.String()); err != nil || at.Addr().String() != tc.want {
			t.Errorf("%s: from %v, %v", name, conn.Info().Local, err)
		}
		_ = conn.Close()
	}
}

// TestClustersAskNameserversOfOthers: each kind of cluster with names asks those of the bootstrap, and one
// with its own asks them.
func TestClustersAskNameserversOfOthers(t *testing.T) {
	others, own := startNameserver(t, [4]byte{10, 0, 0, 1}), startNameserver(t, [4]byte{10, 0, 0, 2})
	m := newManager(t, Options{Nameservers: &DNS{Servers: []string{others.at}}, Resolver: resolverFunc(func(context.Context, string) ([]netip.Addr, error) {
		t.Error("the host's resolver was asked")
		return nil, nil
	})})
	for name, tc := range map[string]struct {
		kind Type
		dns  *DNS
		want string
	}{
		"strict": {StrictDNS, nil, "10.0.0.1:80"}, "logical": {LogicalDNS, nil, "10.0.0.1:80"},
		"with other terms": {StrictDNS, &DNS{Family: IPv4Only, OverTCP: true}, "10.0.0.1:80"},
		"strict, own":      {StrictDNS, &DNS{OwnResolver: true, Servers: []string{own.at}}, "10.0.0.2:80"},
		"logical, own":     {LogicalDNS, &DNS{OwnResolver: true, Servers: []string{own.at}}, "10.0.0.2:80"},
	} {
		c := mustUpdate(t, m, &Config{Name: name, Type: tc.kind, DNS: tc.dns, Endpoints: namesOn(80, "api.test")})
		waitFor(t, func() bool { return len(c.hosts()) > 0 })
		if a := c.hosts()[0].Addr(); a == nil || a.String() != tc.want {
			t.Errorf("%s: %v, not %s", name, a, tc.want)
		}
	}
	if slices.ContainsFunc(others.questions(), func(q string) bool { return strings.HasPrefix(q, "tcp") }) {
		t.Error("the bootstrap's nameserver was asked over TCP")
	}
}

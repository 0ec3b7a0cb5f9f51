package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestTries: each server is asked so often, and has twice as long each time.
func TestTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var asked []string
		silent := func(name string) Resolver {
			return resolverFunc(func(ctx context.Context, _ string) ([]netip.Addr, error) {
				asked = append(asked, fmt.Sprint(name, " at ", time.Since(began)))
				<-ctx.Done()
				return nil, ctx.Err()
			})
		}
		d := &DNS{Tries: 2, QueryTimeout: time.Second, Servers: []string{"a", "b"}}
		n := d.nameservers(nil, nil)
		n.asked = []Resolver{silent("a"), silent("b")}
		ctx, cancel := context.WithTimeout(t.Context(), d.patience())
		defer cancel()
		if _, err := n.LookupNetIP(ctx, "ip", "api.test"); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if want := []string{"a at 0s", "b at 1s", "a at 2s", "b at 4s"}; !slices.Equal(asked, want) || time.Since(began) != 6*time.Second {
			t.Errorf("asked %v, for %s", asked, time.Since(began))
		}
	})
}

// TestRetriesOfTheHosts: the host's resolver is asked again where it fails, not where it says that there is nothing.
func TestRetriesOfTheHosts(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{{errors.New("no answer"), 3}, {&net.DNSError{IsNotFound: true}, 1}, {nil, 1}} {
		asked := 0
		host := resolverFunc(func(context.Context, string) ([]netip.Addr, error) { asked++; return nil, c.err })
		_, _ = (&DNS{Tries: 3}).resolver(host).LookupNetIP(t.Context(), "ip", "api.test")
		if asked != c.want {
			t.Errorf("%v: asked %d times", c.err, asked)
		}
	}
}

// TestRetriesHaveAllTheTime: a slow nameserver is waited for as long as one that is asked once. What a
// lookup has is shared by different servers.
func TestRetriesHaveAllTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		slow := resolverFunc(func(ctx context.Context, _ string) ([]netip.Addr, error) {
			if asked++; asked == 1 {
				<-time.After(time.Second)
				return nil, errors.New("refused")
			}
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(3900 * time.Millisecond):
				return []netip.Addr{netip.MustParseAddr("192.0.2.1")}, nil
			}
		})
		d := &DNS{Tries: 4}
		ctx, cancel := context.WithTimeout(t.Context(), d.patience())
		defer cancel()
		if addrs, err := d.resolver(slow).LookupNetIP(ctx, "ip", "api.test"); len(addrs) != 1 || err != nil || asked != 2 {
			t.Errorf("%v, %v after %d questions", addrs, err, asked)
		}
	})
}

func TestPatience(t *testing.T) {
	for _, c := range []struct {
		dns  DNS
		want time.Duration
	}{
		{DNS{}, 5 * time.Second},
		{DNS{Tries: 3}, 5 * time.Second},
		{DNS{Tries: 1, QueryTimeout: 2 * time.Second}, 2 * time.Second},
		{DNS{Tries: 3, QueryTimeout: time.Second, Servers: []string{"a", "b"}}, 14 * time.Second},
		{DNS{Tries: 16, QueryTimeout: 5 * time.Minute}, longestLookup},
	} {
		if got := c.dns.patience(); got != c.want {
			t.Errorf("%+v: %s", c.dns, got)
		}
	}
}

// TestLookupsHaveTheTimeOfTheirTries: the cluster waits for as long as the tries last.
func TestLookupsHaveTheTimeOfTheirTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewManager(Options{Resolver: resolverFunc(func(ctx context.Context, _ string) ([]netip.Addr, error) {
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(9 * time.Second): // only the second try has that
				return []netip.Addr{netip.MustParseAddr("192.0.2.1")}, nil
			}
		})})
		defer m.Close()
		c := mustUpdate(t, m, &Config{Name: "c", Type: StrictDNS, Endpoints: namesOn(80, "api.example"),
			DNS: &DNS{Tries: 2, QueryTimeout: 5 * time.Second, Refresh: time.Hour, FailureBase: time.Hour, FailureMax: time.Hour}})
		if wait(15 * time.Second); len(addresses(c)) != 1 {
			t.Errorf("hosts %v", addresses(c))
		}
	})
}

func TestRoutable(t *testing.T) {
	v4, v6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	all := []netip.Addr{v4, v6, netip.MustParseAddr("::ffff:192.0.2.2")}
	cidr := func(s string) net.Addr {
		ip, n, err := net.ParseCIDR(s)
		if err != nil {
			t.Fatal(err)
		}
		n.IP = ip
		return n
	}
	onlyLoopback := []net.Addr{cidr("127.0.0.1/8"), cidr("::1/128")}
	for _, c := range []struct {
		own  []net.Addr
		want []netip.Addr
	}{
		{onlyLoopback, nil},
		{[]net.Addr{cidr("127.0.0.1/8"), cidr("10.0.0.1/8"), cidr("::1/128")}, []netip.Addr{all[0], all[2]}},
		{[]net.Addr{cidr("fe80::1/64"), cidr("127.0.0.1/8")}, []netip.Addr{v6}},
		{[]net.Addr{cidr("fe80::1/64"), cidr("10.0.0.1/8")}, all},
	} {
		if got, err := (routable{family: AllFamilies}).of(all, c.own); !slices.Equal(got, c.want) || err != nil {
			t.Errorf("%v: %v, %v", c.own, got, err)
		}
	}
	// Hosts stay, as in Envoy, where nothing is left: the question for that family failed.
	for family := range AllFamilies {
		if got, err := (routable{family: family}).of(all, onlyLoopback); err == nil || notFound(err) || got != nil {
			t.Errorf("family %d: %v, %v", family, got, err)
		}
		if got, err := (routable{family: family}).of(nil, onlyLoopback); err != nil || got != nil {
			t.Errorf("family %d, no addresses: %v, %v", family, got, err)
		}
	}
}

// TestRoutableIsAsked: the terms reach the lookup, also those of the bootstrap.
func TestRoutableIsAsked(t *testing.T) {
	host := resolverFunc(func(context.Context, string) ([]netip.Addr, error) { return nil, nil })
	for _, d := range []*DNS{{Routable: true}, (&DNS{}).orElse(&DNS{Routable: true})} {
		if _, ok := d.resolver(host).(routable); !ok {
			t.Errorf("%+v", d)
		}
	}
	if d := (&DNS{}).orElse(&DNS{Tries: 2, QueryTimeout: time.Second}); d.Tries != 2 || d.QueryTimeout != time.Second {
		t.Errorf("%+v", d)
	}
}

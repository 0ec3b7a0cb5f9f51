package sidecar

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/hauberk-mesh/hauberk/xds/client"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// checkedBy is a cluster whose hosts are checked.
func checkedBy(t *testing.T, r *resource.Resource) *resource.Resource {
	t.Helper()
	c := &clusterv3.Cluster{}
	if err := r.Body.UnmarshalTo(c); err != nil {
		t.Fatal(err)
	}
	c.LbPolicy = clusterv3.Cluster_RANDOM
	c.HealthChecks = []*corev3.HealthCheck{{
		Timeout: durationpb.New(5 * time.Second), Interval: durationpb.New(time.Second),
		UnhealthyThreshold: wrapperspb.UInt32(1), HealthyThreshold: wrapperspb.UInt32(1),
		HealthChecker: &corev3.HealthCheck_TcpHealthCheck_{TcpHealthCheck: &corev3.HealthCheck_TcpHealthCheck{}},
	}}
	return res(t, c.Name, c)
}

// A cluster that is of another type now, of another service, or has none of its hosts left, goes
// on as it was until the new hosts were checked: of those nothing is known, as in Envoy.
func TestClusterAwaitsFirstChecks(t *testing.T) {
	eds := func(t *testing.T) []*resource.Resource {
		return []*resource.Resource{edsCluster(t, "c"), assignment(t, "c", 80)}
	}
	static := func(t *testing.T) []*resource.Resource { return []*resource.Resource{staticCluster(t, "c", 80)} }
	other := func(t *testing.T) []*resource.Resource {
		return []*resource.Resource{checkedBy(t, serviceCluster(t, "c", "s")), assignment(t, "s", 82)}
	}
	for what, c := range map[string]struct {
		before, after func(*testing.T) []*resource.Resource
	}{
		"another service": {eds, other},
		"another service, whose endpoints came before": {eds, func(t *testing.T) []*resource.Resource {
			return append([]*resource.Resource{serviceCluster(t, "d", "s"), assignment(t, "s", 82)}, other(t)[0])
		}},
		"by discovery now": {static, other},
		"static now": {eds, func(t *testing.T) []*resource.Resource {
			return []*resource.Resource{checkedBy(t, staticCluster(t, "c", 82))}
		}},
		"other hosts of a static one": {static, func(t *testing.T) []*resource.Resource {
			return []*resource.Resource{checkedBy(t, staticCluster(t, "c", 82))}
		}},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				answer := make(chan struct{})
				r := newDialingRig(t, func(context.Context, string, string) (net.Conn, error) {
					<-answer
					return nil, errors.New("nobody is there")
				})
				r.put(t, c.before(t)...)
				r.put(t, c.after(t)...)
				time.Sleep(time.Second)
				synctest.Wait()
				if got := r.hostsOf("c"); got != "rr 127.0.0.1:80" || strings.Join(r.pending(), "") != "cluster c waits for first checks of its hosts" {
					t.Errorf("while they are checked: %s, %v", got, r.pending())
				}
				// The state of the world says it all again with every change of anything.
				after := c.after(t)
				r.put(t, after[len(after)-1], c.after(t)[0])
				close(answer)
				synctest.Wait()
				if got := r.hostsOf("c"); got != "random 127.0.0.1:82" || len(r.pending()) != 0 {
					t.Errorf("when they were: %s, %v", got, r.pending())
				}
				if got := r.clusters.Get("c").Stats()[0].Check; got != "failing" && got != "timeout" {
					t.Errorf("what was found: %s", got)
				}
				r.remove(resource.ClusterType, "c", "d")
				if got := r.hostsOf("c"); got != "none" {
					t.Errorf("gone: %s", got)
				}
			})
		})
	}
}

// It is not waited for for ever; what cannot be is refused at once, and what is another one by
// then is checked no longer.
func TestClusterAwaitsFirstChecksNotForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newDialingRig(t, func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		slow := &clusterv3.Cluster{}
		if err := checkedBy(t, staticCluster(t, "c", 82)).Body.UnmarshalTo(slow); err != nil {
			t.Fatal(err)
		}
		slow.HealthChecks[0].Timeout = durationpb.New(time.Hour)
		r.put(t, staticCluster(t, "c", 80), res(t, "c", slow))
		time.Sleep(9 * time.Second)
		synctest.Wait()
		if got := r.hostsOf("c"); got != "rr 127.0.0.1:80" {
			t.Errorf("at first: %s", got)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := r.hostsOf("c"); got != "random 127.0.0.1:82" || len(r.pending()) != 0 {
			t.Errorf("after the wait: %s, %v", got, r.pending())
		}
		slow.LoadAssignment.Endpoints[0].LbEndpoints[0].GetEndpoint().Address = address(83)
		r.put(t, res(t, "c", slow), staticCluster(t, "c", 84))
		if got := r.hostsOf("c"); got != "rr 127.0.0.1:84" || len(r.pending()) != 0 {
			t.Errorf("another one by then: %s, %v", got, r.pending())
		}
		bad := checkedBy(t, staticCluster(t, "c", 85))
		if err := bad.Body.UnmarshalTo(slow); err != nil {
			t.Fatal(err)
		}
		slow.LoadAssignment.Endpoints[0].LbEndpoints[0].GetEndpoint().Address.GetSocketAddress().Address = "no address"
		if errs := r.Apply(client.Update{Type: resource.ClusterType, Upserts: []*resource.Resource{res(t, "c", slow)}}); errs["c"] == nil {
			t.Error("what cannot be is taken")
		}
		r.remove(resource.ClusterType, "c")
	})
}

// answers resolves names once they may be, to an address that may change.
type answers struct {
	free  chan struct{}
	addrs map[string]netip.Addr
	err   error
}

func (a *answers) LookupNetIP(ctx context.Context, _, host string) ([]netip.Addr, error) {
	select {
	case <-a.free:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if a.err != nil {
		return nil, a.err
	}
	return []netip.Addr{a.addrs[host]}, nil
}

// dnsCluster is one of a name.
func dnsCluster(t *testing.T, kind clusterv3.Cluster_DiscoveryType, host string) *resource.Resource {
	t.Helper()
	c := &clusterv3.Cluster{}
	if err := staticCluster(t, "c", 82).Body.UnmarshalTo(c); err != nil {
		t.Fatal(err)
	}
	c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: kind}
	c.LoadAssignment.Endpoints[0].LbEndpoints[0].GetEndpoint().Address.GetSocketAddress().Address = host
	c.LbPolicy = clusterv3.Cluster_RANDOM
	return res(t, "c", c)
}

// A cluster whose hosts are those of a DNS name goes on as what it was until the name was
// resolved, and where its hosts are to be checked, until they were: meanwhile it would have none.
func TestClusterAwaitsItsNames(t *testing.T) {
	strict, logical := clusterv3.Cluster_STRICT_DNS, clusterv3.Cluster_LOGICAL_DNS
	for what, before := range map[string]func(t *testing.T) []*resource.Resource{
		"static before": func(t *testing.T) []*resource.Resource { return []*resource.Resource{staticCluster(t, "c", 80)} },
		"by discovery before": func(t *testing.T) []*resource.Resource {
			return []*resource.Resource{edsCluster(t, "c"), assignment(t, "c", 80)}
		},
		"another name before": func(t *testing.T) []*resource.Resource { return []*resource.Resource{dnsCluster(t, strict, "old")} },
		"of one name before":  func(t *testing.T) []*resource.Resource { return []*resource.Resource{dnsCluster(t, logical, "old")} },
	} {
		for kind, checked := range map[clusterv3.Cluster_DiscoveryType]bool{strict: true, logical: false} {
			t.Run(fmt.Sprintf("%s, %s now, checked: %t", what, kind, checked), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					check := make(chan struct{})
					names := &answers{free: make(chan struct{}), addrs: map[string]netip.Addr{"old": netip.MustParseAddr("127.0.0.1"), "new": netip.MustParseAddr("10.0.0.2")}}
					r := newResolvingRig(t, func(context.Context, string, string) (net.Conn, error) {
						<-check
						return nil, errors.New("nobody is there")
					}, names)
					close(names.free)
					r.put(t, before(t)...)
					synctest.Wait()
					was := r.hostsOf("c")
					names.free = make(chan struct{})
					after := dnsCluster(t, kind, "new")
					if checked {
						after = checkedBy(t, after)
					}
					r.put(t, after)
					synctest.Wait()
					if got := r.hostsOf("c"); got != was || strings.Join(r.pending(), "") != "cluster c waits for the addresses of its names" {
						t.Errorf("before it is resolved: %s, was %s, %v", got, was, r.pending())
					}
					close(names.free)
					synctest.Wait()
					if got := r.hostsOf("c"); checked && (got != was || strings.Join(r.pending(), "") != "cluster c waits for first checks of its hosts") {
						t.Errorf("before they are checked: %s, %v", got, r.pending())
					}
					names.free = make(chan struct{}) // it is not resolved a second time before it is in force
					close(check)
					synctest.Wait()
					address := "10.0.0.2:82"
					if kind == logical {
						address = "new:82"
					}
					if got := r.hostsOf("c"); !strings.Contains(got, address) || strings.Contains(got, ":80") || len(r.pending()) != 0 {
						t.Fatalf("then: %s, %v", got, r.pending())
					}
					if got := r.clusters.Get("c").Stats()[0].Check; checked && got != "failing" && got != "timeout" {
						t.Errorf("what was found: %q", got)
					}
					r.remove(resource.ClusterType, "c")
				})
			})
		}
	}
}

// A name that cannot be resolved is not waited for for ever.
func TestClusterAwaitsItsNamesNotForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		names := &answers{free: make(chan struct{}), err: errors.New("the name server is away")}
		close(names.free)
		r := newResolvingRig(t, nil, names)
		r.put(t, staticCluster(t, "c", 80), dnsCluster(t, clusterv3.Cluster_STRICT_DNS, "new"))
		time.Sleep(9 * time.Second)
		synctest.Wait()
		if got := r.hostsOf("c"); got != "rr 127.0.0.1:80" {
			t.Errorf("at first: %s", got)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := r.hostsOf("c"); got != "random" || len(r.pending()) != 0 {
			t.Errorf("after the wait: %s, %v", got, r.pending())
		}
		r.remove(resource.ClusterType, "c")
	})
}

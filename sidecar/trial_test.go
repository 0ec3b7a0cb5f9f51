package sidecar

import (
	"context"
	"errors"
	"net"
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

package sidecar

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/discovery"
	"github.com/hauberk-mesh/hauberk/sidecar/secrets"
	"github.com/hauberk-mesh/hauberk/sidecar/tlscontext"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// waiting is the source of ADS that says how long to wait, which 10 s are without.
func waiting(d time.Duration) *corev3.ConfigSource {
	c := adsSource()
	c.InitialFetchTimeout = durationpb.New(d)
	return c
}

// listens tells whether a listener is in force.
func (r *rig) listens(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.l.inForce[name] != nil
}

// A listener waits for its routes as long as their source says: less than for anything else,
// longer, or for ever.
func TestInitialFetchOfRoutes(t *testing.T) {
	for _, c := range []struct {
		what              string
		wait, in, without time.Duration // in is when routes come, without when it is in force without
	}{
		{"less", time.Second, 0, time.Second},
		{"longer", time.Minute, 0, time.Minute},
		{"longer, and they come", time.Minute, 30 * time.Second, 0},
		{"for ever", 0, time.Hour, 0},
		{"none asked for", -1, 0, 10 * time.Second},
	} {
		t.Run(c.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				from := adsSource()
				if c.wait >= 0 {
					from = waiting(c.wait)
				}
				r.put(t, httpListenerFrom(t, "l", "r", from))
				start := time.Now()
				for at := time.Duration(0); at < 2*time.Hour && !r.listens("l"); at += time.Second {
					if c.in > 0 && at == c.in {
						r.put(t, routeTo(t, "r", "c"), edsCluster(t, "c"), assignment(t, "c", 80))
						continue
					}
					time.Sleep(time.Second)
					synctest.Wait()
				}
				want := max(c.in, c.without)
				if took := time.Since(start); took != want {
					t.Errorf("in force after %v, want %v", took, want)
				}
				r.remove(resource.ListenerType, "l")
				if len(r.fetches) != 0 {
					t.Errorf("still waited for: %v", r.fetches)
				}
			})
		})
	}
}

// A listener, and what is to take a cluster's place, wait for endpoints no longer than their
// source says, or no shorter.
func TestInitialFetchOfEndpoints(t *testing.T) {
	cluster := func(t *testing.T, name, service string, from *corev3.ConfigSource) *resource.Resource {
		return res(t, name, &clusterv3.Cluster{
			Name: name, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS}, LbPolicy: clusterv3.Cluster_RANDOM,
			EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{EdsConfig: from, ServiceName: service},
		})
	}
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.put(t, cluster(t, "c", "s", waiting(2*time.Second)), tcpListener(t, "l", "c", corev3.TrafficDirection_OUTBOUND))
		if r.listens("l") {
			t.Error("the listener does not wait")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if !r.listens("l") {
			t.Error("the listener waits longer than the source says")
		}
		r.put(t, edsCluster(t, "d"), assignment(t, "d", 80), cluster(t, "d", "one", waiting(time.Second)))
		if got := r.hostsOf("d"); got != "rr 127.0.0.1:80" {
			t.Errorf("while it waits: %s", got)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got := r.hostsOf("d"); got != "random" {
			t.Errorf("after a second: %s", got)
		}
		r.put(t, edsCluster(t, "e"), assignment(t, "e", 80), cluster(t, "e", "ever", waiting(0)))
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := r.hostsOf("e"); got != "rr 127.0.0.1:80" {
			t.Errorf("for ever: %s", got)
		}
		r.put(t, assignment(t, "ever", 82))
		if got := r.hostsOf("e"); got != "random 127.0.0.1:82" {
			t.Errorf("when they came: %s", got)
		}
		r.remove(resource.ClusterType, "c", "d", "e")
		r.remove(resource.ListenerType, "l")
		if len(r.fetches) != 0 {
			t.Errorf("still waited for: %v", r.fetches)
		}
	})
}

// What a cluster waits for besides is waited for no longer than its endpoints, nor than usual.
func TestInitialFetchBesideSecrets(t *testing.T) {
	for what, wait := range map[string]time.Duration{"longer than usual": 20 * time.Second, "shorter": 5 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			store := secrets.New(secrets.Options{Sockets: map[string]string{"keeper": "/nowhere"}, Offline: true, Log: slog.New(slog.DiscardHandler)})
			defer store.Close()
			ctx, cancel := context.WithCancel(t.Context())
			provider := newTLSProvider(ctx, nil, store, slog.New(slog.DiscardHandler))
			defer provider.wait()
			defer cancel()
			clusters := cluster.NewManager(cluster.Options{TLS: provider, Metrics: r.metrics, Log: slog.New(slog.DiscardHandler)})
			defer clusters.Close()
			r.secrets, r.clusters = store, clusters
			ref := &tlscontext.SecretRef{Name: "web", Cluster: "keeper"}
			cfg := &cluster.Config{Name: "c", Type: cluster.EDS, ServiceName: "s", Discovery: discovery.Source{Wait: &wait},
				TLS: &cluster.TLS{Context: &tlscontext.Client{Common: tlscontext.Common{
					Certificates: []tlscontext.Certificate{{Secret: ref}}, Validation: &tlscontext.Validation{SystemRoots: true}}}}}
			r.mu.Lock()
			err := r.setCluster(cfg)
			r.mu.Unlock()
			if err != nil {
				t.Fatal(err)
			}
			limit := max(wait, r.warmUp)
			for _, c := range []struct {
				at time.Duration
				in bool
			}{{limit - time.Second, false}, {2 * time.Second, true}} {
				time.Sleep(c.at)
				synctest.Wait()
				if got := r.hostsOf("c") != "none"; got != c.in {
					t.Errorf("%s: in force: %v, want %v", what, got, c.in)
				}
			}
		})
	}
}

// The hosts that came late are checked first, but not for ever.
func TestInitialFetchBeforeChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newDialingRig(t, func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		c := &clusterv3.Cluster{}
		if err := checkedBy(t, serviceCluster(t, "c", "s")).Body.UnmarshalTo(c); err != nil {
			t.Fatal(err)
		}
		c.EdsClusterConfig.EdsConfig = waiting(time.Hour)
		c.HealthChecks[0].Timeout = durationpb.New(time.Hour)
		r.put(t, edsCluster(t, "c"), assignment(t, "c", 80), res(t, "c", c))
		time.Sleep(time.Minute)
		r.put(t, assignment(t, "s", 82))
		for _, step := range []struct {
			after time.Duration
			want  string
		}{{9 * time.Second, "rr 127.0.0.1:80"}, {2 * time.Second, "random 127.0.0.1:82"}} {
			time.Sleep(step.after)
			synctest.Wait()
			if got := r.hostsOf("c"); got != step.want {
				t.Errorf("got %s, want %s", got, step.want)
			}
		}
		r.remove(resource.ClusterType, "c")
	})
}

// The state of the world says a listener again with each change of another: its wait does not
// begin anew.
func TestListenerSaidAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		start := time.Now()
		for !r.listens("l") && time.Since(start) < time.Minute {
			r.put(t, httpListener(t, "l", "r"))
			time.Sleep(time.Second)
			synctest.Wait()
		}
		if took := time.Since(start); took != 10*time.Second {
			t.Errorf("in force after %v", took)
		}
		r.put(t, httpListener(t, "m", "r"))
		time.Sleep(9 * time.Second)
		r.put(t, httpListener(t, "m", "s"))
		if time.Sleep(2 * time.Second); r.listens("m") {
			t.Error("another one has no wait of its own")
		}
	})
}

// A listener in force is another one when it has waited as long as anything does, however long
// the source of its routes is to be waited for, and whatever is said of it meanwhile: what else
// it says may be a deny.
func TestUpdateWaitsNotForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.put(t, edsCluster(t, "c"), assignment(t, "c", 80), routeTo(t, "r", "c"), httpListener(t, "l", "r"))
		start := time.Now()
		names := func() string {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.l.inForce["l"].Chains[0].HTTP.RouteName
		}
		for name := "a"; names() == "r" && time.Since(start) < time.Minute; name += "a" {
			r.put(t, httpListenerFrom(t, "l", name, waiting(0)))
			time.Sleep(time.Second)
			synctest.Wait()
		}
		if took := time.Since(start); took != 10*time.Second || names() != "aaaaaaaaaa" {
			t.Errorf("in force after %v: %s", took, names())
		}
		r.remove(resource.ListenerType, "l")
	})
}

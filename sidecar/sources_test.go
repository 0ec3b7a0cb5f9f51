package sidecar

import (
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/hauberk-mesh/hauberk/sidecar/config"
	"github.com/hauberk-mesh/hauberk/sidecar/discovery"
	"github.com/hauberk-mesh/hauberk/xds/client"
)

// Where a static bootstrap has nothing but endpoints discovered, their streams are what it is
// connected by.
func TestStatusOfStreamsAlone(t *testing.T) {
	one := newManager(t)
	one.publish(t, assignment(t, "a", 80))
	s := run(t, "node: {id: n1, cluster: c}\nstatic_resources:\n  clusters:\n"+carrier("one", one.socket)+
		"  - {name: a, type: EDS, eds_cluster_config: {eds_config: "+grpcSource("DELTA_GRPC", "one", "")+"}}")
	eventually(t, "connected", func() bool { return s.status().Connected })
	one.server.Stop()
	eventually(t, "away", func() bool { return !s.status().Connected })
	if st := s.status(); st.AsOf.IsZero() || !st.Synced {
		t.Errorf("%+v", st)
	}
}

// A stream that has never been connected is as old as it is, beside one that is.
func TestStatusOfAStreamThatNeverConnected(t *testing.T) {
	now := time.Now()
	never := client.Status{Since: now.Add(-time.Hour)}
	good := client.Status{Connected: true, Synced: true, Since: now.Add(-2 * time.Hour), AsOf: now}
	silent := client.Status{Connected: true, Since: now.Add(-time.Hour)} // what it asks for does not exist
	for _, st := range []client.Status{both(good, never), both(never, good)} {
		if !st.AsOf.Equal(never.Since) || st.Connected {
			t.Errorf("%+v", st)
		}
	}
	if st := both(good, silent); !st.AsOf.Equal(now) || !st.Connected {
		t.Errorf("%+v", st)
	}
}

// The mesh is not asked for what has a stream of its own.
func TestAggregatedBesideStreamsOfOneType(t *testing.T) {
	own := &discovery.Source{Stream: &discovery.Stream{Cluster: "one"}}
	for name, tt := range map[string]struct {
		b                   *config.Bootstrap
		listeners, clusters bool
	}{
		"no bootstrap": {nil, true, true}, "static": {&config.Bootstrap{}, true, true},
		"listeners": {&config.Bootstrap{LDS: own}, false, true}, "clusters": {&config.Bootstrap{CDS: own}, true, false},
		"ads": {&config.Bootstrap{ADS: &config.ADS{Clusters: true}}, false, true},
	} {
		if got := aggregates(tt.b); got.Listeners != tt.listeners || got.Clusters != tt.clusters {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// A service is not asked by who has no name.
func TestServiceWithoutANode(t *testing.T) {
	if got := lastOf(spiffeid.ID{}); got != "" {
		t.Errorf("a node without identity is called %q", got)
	}
	b, err := config.ParseBootstrap([]byte("static_resources:\n  clusters:\n" + carrier("one", "/none") +
		"  - {name: a, type: EDS, eds_cluster_config: {eds_config: " + grpcSource("DELTA_GRPC", "one", "") + "}}"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Build(Config{Bootstrap: b})
	if err == nil {
		_ = s.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "node.id") {
		t.Error(err)
	}
}

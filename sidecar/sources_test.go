package sidecar

import (
	"testing"
	"time"

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

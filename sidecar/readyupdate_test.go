package sidecar

import (
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/secrets"
	"github.com/hauberk-mesh/hauberk/sidecar/tlscontext"
	"github.com/hauberk-mesh/hauberk/xds/client"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// A sidecar that serves stays ready while what it is told next waits, as in Envoy: an update that
// is late to come would take the whole fleet out. What waits is told all the same.
func TestReadyWhileUpdatesWait(t *testing.T) {
	s := idle(t)
	s.state.follow(nobody{})
	apply := func(rs ...*resource.Resource) {
		t.Helper()
		for _, r := range rs {
			if errs := s.state.Apply(client.Update{Type: r.Type, Upserts: []*resource.Resource{r}}); len(errs) > 0 {
				t.Fatal(errs)
			}
		}
	}
	ready := func(when, want string, pending int) {
		t.Helper()
		if _, why := (*view)(s).Ready(); !strings.Contains(why, want) {
			t.Errorf("%s: %s", when, why)
		}
		if got := (*view)(s).ConfigDump().(map[string]any)["pending"].([]string); len(got) != pending {
			t.Errorf("%s: pending %v", when, got)
		}
	}
	apply(httpListener(t, "l", "r"))
	ready("before its first routes", "listener l waits", 1)
	apply(edsCluster(t, "c"), assignment(t, "c", 9), routeTo(t, "r", "c"))
	ready("in force", "ready", 0)
	apply(httpListener(t, "l", "late"), serviceCluster(t, "c", "s"))
	ready("while updates wait", "ready", 2)
	apply(httpListener(t, "m", "late"))
	ready("while one waits in nobody's place", "listener m waits", 3)
	if _, why := (*view)(s).Ready(); strings.Contains(why, "listener l") || strings.Contains(why, "cluster c") {
		t.Error(why)
	}
}

// The same goes for the secrets and identities that what waits is to have.
func TestReadyWithoutWhatUpdatesName(t *testing.T) {
	r := newRig(t)
	store := secrets.New(secrets.Options{Sockets: map[string]string{"keeper": "/nowhere"}, Offline: true, Log: r.log})
	defer store.Close()
	r.secrets = store
	with := func(secret string) *cluster.Config {
		c := &cluster.Config{Name: "c", Type: cluster.Static}
		if secret != "" {
			ref := &tlscontext.SecretRef{Name: secret, Cluster: "keeper"}
			c.TLS = &cluster.TLS{Context: &tlscontext.Client{Common: tlscontext.Common{Certificates: []tlscontext.Certificate{{Secret: ref}}}}}
			if err := store.Usable(*ref); err != nil {
				t.Fatal(err)
			}
			store.Lookup(*ref)
		}
		return c
	}
	put := func(c *cluster.Config) {
		t.Helper()
		r.mu.Lock()
		defer r.mu.Unlock()
		if err := r.setCluster(c); err != nil {
			t.Fatal(err)
		}
	}
	put(with(""))
	put(with("web"))
	if got, all := r.unready(), r.pending(); len(got) > 0 || len(all) != 2 {
		t.Errorf("in force: not ready for %v, pending %v", got, all)
	}
	r.remove(resource.ClusterType, "c")
	put(with("web"))
	if got := r.unready(); len(got) != 2 {
		t.Errorf("in nobody's place: not ready for %v", got)
	}

	of := func(l *resource.Resource, workload string) *resource.Resource {
		m := &listenerv3.Listener{}
		if err := l.Body.UnmarshalTo(m); err != nil {
			t.Fatal(err)
		}
		facts, err := structpb.NewStruct(map[string]any{"workload": workload})
		if err != nil {
			t.Fatal(err)
		}
		m.Metadata = &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{"hauberk": facts}}
		return res(t, l.Name, m)
	}
	r.put(t, edsCluster(t, "d"), assignment(t, "d", 80), routeTo(t, "r", "d"), of(httpListener(t, "l", "r"), "spiffe://td/a"))
	r.put(t, of(httpListener(t, "l", "late"), "spiffe://td/b"), of(httpListener(t, "m", "late"), "spiffe://td/c"))
	if got := strings.Join(r.named(), " "); got != "spiffe://td/a spiffe://td/c" {
		t.Errorf("identities that readiness needs: %s", got)
	}
	if got := strings.Join(r.wanted, " "); got != "spiffe://td/b spiffe://td/c" {
		t.Errorf("identities to come: %s", got)
	}
}

//go:build e2e

package mesh

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	consulapi "github.com/hashicorp/consul/api"
	"google.golang.org/grpc/codes"

	"github.com/hauberk-mesh/hauberk/controlplane/server/api"
)

// controlPlaneToken admits another control plane.
func (m *mesh) controlPlaneToken(id string) string {
	m.t.Helper()
	var reply api.TokenReply
	if err := m.api.Post(m.t.Context(), api.TokensPath, api.TokenRequest{Node: id, Role: "controlplane"}, &reply); err != nil {
		m.t.Fatal(err)
	}
	f := filepath.Join(m.dir, id+".token")
	if err := os.WriteFile(f, []byte(reply.Token), 0o600); err != nil {
		m.t.Fatal(err)
	}
	return f
}

// connected waits until the control plane that m asks serves these nodes.
func (m *mesh) connected(limit time.Duration, nodes ...string) time.Duration {
	m.t.Helper()
	return m.eventually(limit, "the sidecars are here and in sync", func() error {
		var st api.Status
		if err := m.api.Get(m.t.Context(), api.StatusPath, &st); err != nil {
			return err
		}
		state := map[string]string{}
		for _, s := range st.Sidecars {
			state[s.Node] = s.State
		}
		for _, n := range nodes {
			if state[n] != "synced" {
				return fmt.Errorf("sidecar %s is %q", n, state[n])
			}
		}
		return nil
	})
}

// serials are those of the SVIDs that a sidecar holds, by SPIFFE ID.
func (w *workload) serials() map[string]string {
	w.m.t.Helper()
	var certs struct {
		SVIDs []struct{ ID, Serial string }
	}
	w.admin("/certs", &certs)
	out := map[string]string{}
	for _, c := range certs.SVIDs {
		out[c.ID] = c.Serial
	}
	if len(out) == 0 {
		w.m.t.Fatalf("%s has no SVID", w.id)
	}
	return out
}

// TestControlPlaneReplaced: a second control plane, admitted by the first, takes
// over under load when the first ends for good. Nothing fails, identities are
// renewed by the second, and what is written afterwards takes effect. Connections
// outlive the certificates that opened them until their streams have ended.
func TestControlPlaneReplaced(t *testing.T) {
	t.Parallel() // with the other that mostly waits a minute
	m := newMeshWith(t, "--svid-ttl", "1m")
	m.allow("web", "api")
	m.allow("web", "rpc")
	m.protocol("rpc", "grpc")
	web := m.workload(spec{id: "web-1", service: "web", upstreams: []string{"api", "rpc"}})
	all := []*workload{web, m.pair("a")[0], m.pair("b")[0]}
	client := web.rpc("rpc")
	for _, x := range []string{"a", "b"} {
		web.answers(5*second, "api", "/", 200, "api-"+x)
		web.rpcAnswers(5*second, client, codes.OK, "rpc-"+x)
	}

	first := m.cp
	opened := time.Now()
	held := hold(t, client, 6)
	l := startLoad(web)
	time.Sleep(300 * time.Millisecond)
	m.startControlPlane("cp2", "--join-token-file", m.controlPlaneToken("cp2"), "--svid-ttl", "1m")
	// The sidecars hear of it from the first, with its signer.
	time.Sleep(2 * time.Second)
	first.stop()
	t.Logf("the sidecars moved after %v", m.connected(15*time.Second, "web-1", "host-a", "host-b"))
	// Half the life of an SVID later each is a new one, from the second.
	before := map[string]map[string]string{}
	for _, w := range all {
		before[w.id] = w.serials()
	}
	t.Logf("all identities are renewed after %v", m.eventually(45*time.Second, "every SVID is renewed", func() error {
		for _, w := range all {
			for id, serial := range w.serials() {
				if before[w.id][id] == serial {
					return fmt.Errorf("%s still has its SVID of %s", w.id, id)
				}
			}
		}
		return nil
	}))
	// A minute later the certificates of the held streams' connections have expired.
	time.Sleep(time.Until(opened.Add(63 * time.Second)))
	l.end(t, "replacement")
	held.check(t, "replacement")
	log, err := os.ReadFile(all[1].sidecar.log)
	if err != nil || !strings.Contains(string(log), "the certificate that opened a connection has expired") {
		t.Errorf("no certificate expired under a connection, so nothing was shown of it: %v", err)
	}

	m.entry(&consulapi.ServiceIntentionsConfigEntry{Kind: consulapi.ServiceIntentions, Name: "api",
		Sources: []*consulapi.SourceIntention{{Name: "web", Action: consulapi.IntentionActionDeny}}})
	t.Logf("a deny written afterwards: %v", web.answers(second, "api", "/", 403, ""))
}

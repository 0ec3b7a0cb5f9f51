package agent

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/hauberk-mesh/hauberk/identity/identityv1"
	"github.com/hauberk-mesh/hauberk/identity/internal/idtest"
	"github.com/hauberk-mesh/hauberk/identity/spiffe"
	"github.com/hauberk-mesh/hauberk/identity/svid"
	"github.com/hauberk-mesh/hauberk/identity/token"
	"github.com/hauberk-mesh/hauberk/identity/trust"
)

// remembering is an agent as far as what it is told goes. restart makes another from
// what the first left.
type remembering struct {
	*Agent
	t   *testing.T
	log strings.Builder
}

func newRemembering(t *testing.T) *remembering {
	st, err := openState(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.close() })
	r := &remembering{t: t}
	r.Agent = &Agent{td: td, state: st, holder: svid.NewHolder(nil), log: slog.New(slog.NewTextHandler(&r.log, nil))}
	return r
}

func (r *remembering) restart() {
	r.t.Helper()
	r.Agent = &Agent{td: td, state: r.state, holder: svid.NewHolder(nil), log: r.Agent.log}
	if err := r.loadTrust(); err != nil {
		r.t.Fatal(err)
	}
}

func (r *remembering) told(record *token.Node, bundles ...*trust.Bundle) {
	r.t.Helper()
	u := &identityv1.TrustUpdate{}
	for _, b := range bundles {
		u.Bundles = append(u.Bundles, identityv1.NewBundle(b))
	}
	if record != nil {
		u.Record = identityv1.NewRecord(*record)
	}
	if err := r.takeTrust(u, true); err != nil {
		r.t.Fatal(err)
	}
}

func bundleOf(t *testing.T, of spiffeid.TrustDomain, sequence uint64, signers ...*idtest.Signer) *trust.Bundle {
	t.Helper()
	var all []trust.Signer
	for _, s := range signers {
		all = append(all, trust.NewSigner(s.Cert, "", trust.Active))
	}
	b, err := trust.NewBundle(of, sequence, all...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestTrustDoesNotGoBack: what a control plane says that is behind another brings no
// anchor back, neither at once nor after a restart, and neither when the trust domain
// was not named meanwhile.
func TestTrustDoesNotGoBack(t *testing.T) {
	other := spiffeid.RequireTrustDomainFromString("other.test")
	stolen, good := idtest.NewSigner(t, td.Name()), idtest.NewSigner(t, td.Name())
	theirs, theirsNow := idtest.NewSigner(t, other.Name()), idtest.NewSigner(t, other.Name())
	r := newRemembering(t)
	check := func(what string, of spiffeid.TrustDomain, sequence uint64, signer *idtest.Signer) {
		t.Helper()
		b := r.bundles[of.Name()]
		if b == nil || b.Sequence != sequence || len(b.Anchors().Certificates) != 1 || !b.Anchors().Certificates[0].Equal(signer.Cert) {
			t.Errorf("%s: the bundle of %s is %+v, want number %d", what, of, b, sequence)
		}
	}
	r.told(nil, bundleOf(t, td, 7, good), bundleOf(t, other, 4, theirsNow))
	r.told(nil, bundleOf(t, td, 6, good, stolen), bundleOf(t, other, 3, theirs))
	check("older", td, 7, good)
	check("older", other, 4, theirsNow)
	r.restart()
	check("after a restart", td, 7, good)
	check("after a restart", other, 4, theirsNow)

	r.told(nil, bundleOf(t, td, 7, good))
	if r.bundles[other.Name()] != nil {
		t.Error("a trust domain that is not named is trusted")
	}
	r.restart()
	if r.bundles[other.Name()] != nil {
		t.Error("a trust domain that is not named is trusted after a restart")
	}
	r.told(nil, bundleOf(t, td, 7, good), bundleOf(t, other, 3, theirs))
	check("named again", other, 4, theirsNow)

	// Two bundles of one number: the one in use stays until there is a later one.
	r.told(nil, bundleOf(t, td, 7, stolen))
	check("another of the same number", td, 7, good)
	if !strings.Contains(r.log.String(), "two different trust bundles have the same sequence") {
		t.Errorf("nothing is said of it: %s", r.log.String())
	}
	r.restart()
	check("another of the same number, after a restart", td, 7, good)
	r.told(nil, bundleOf(t, td, 8, stolen))
	check("a later one", td, 8, stolen)
}

// TestRecordDoesNotGoBack: a ban outlives what a control plane says that has not heard
// of it, and a restart.
func TestRecordDoesNotGoBack(t *testing.T) {
	good := idtest.NewSigner(t, td.Name())
	b := bundleOf(t, td, 1, good)
	node := func(revision uint64, banned bool, services ...string) *token.Node {
		n := &token.Node{Role: token.RoleNode, Name: "n1", Revision: revision, Banned: banned}
		for _, s := range services {
			n.Permitted = append(n.Permitted, token.Permit{ID: serviceID(s)})
		}
		return n
	}
	r := newRemembering(t)
	check := func(what string, revision uint64, banned, permits bool) {
		t.Helper()
		if r.record == nil || r.record.Revision != revision || r.record.Banned != banned || r.record.Permits(serviceID("web")) != permits {
			t.Errorf("%s: %+v", what, r.record)
		}
	}
	r.told(node(3, false, "job"), b)
	r.told(node(2, false, "web", "job"), b)
	check("older", 3, false, false)
	r.restart()
	check("older, after a restart", 3, false, false)
	r.told(node(3, true, "web"))
	r.told(node(3, false, "web"), b)
	check("a ban, and a record of the same revision", 3, true, false)
	r.restart()
	check("a ban, after a restart", 3, true, false)
	if len(r.bundles) != 1 {
		t.Errorf("%d bundles after a restart: the ban names none, and takes none away", len(r.bundles))
	}
}

// TestUnreadableMessage: of a message that cannot be read nothing is taken.
func TestUnreadableMessage(t *testing.T) {
	good := idtest.NewSigner(t, td.Name())
	r := newRemembering(t)
	b := identityv1.NewBundle(bundleOf(t, td, 2, good))
	record := identityv1.NewRecord(token.Node{Role: token.RoleNode, Name: "n1", Revision: 1, Permitted: []token.Permit{{ID: serviceID("web")}}})
	for name, u := range map[string]*identityv1.TrustUpdate{
		"a broken bundle": {Record: record, Bundles: []*identityv1.Bundle{b, {TrustDomain: "other.test", Sequence: 1, Certificates: [][]byte{{1}}}}},
		"the same twice":  {Record: record, Bundles: []*identityv1.Bundle{b, b}},
	} {
		if err := r.takeTrust(u, true); err == nil || r.record != nil || len(r.bundles) > 0 {
			t.Errorf("%s: %v, record %v, %d bundles", name, err, r.record, len(r.bundles))
		}
	}
}

// TestFullDisk: what a control plane withdraws is withdrawn, if only in memory, where the
// state directory takes nothing.
func TestFullDisk(t *testing.T) {
	stolen, good := idtest.NewSigner(t, td.Name()), idtest.NewSigner(t, td.Name())
	r := newRemembering(t)
	r.told(nil, bundleOf(t, td, 1, good, stolen))
	if err := os.RemoveAll(r.state.dir); err != nil {
		t.Fatal(err)
	}
	err := r.takeTrust(&identityv1.TrustUpdate{Bundles: []*identityv1.Bundle{identityv1.NewBundle(bundleOf(t, td, 2, good))}}, true)
	if r.publish(); err == nil || len(r.Snapshot().Bundles[td.Name()].Certificates) != 1 {
		t.Errorf("%v: the signer is trusted on", err)
	}
}

// TestHalfKeptTrust: where not all that is in force can be kept, what an agent knows of a
// trust domain that was named anew outlives a restart all the same.
func TestHalfKeptTrust(t *testing.T) {
	other := spiffeid.RequireTrustDomainFromString("other.test")
	good, theirs, theirsNow := idtest.NewSigner(t, td.Name()), idtest.NewSigner(t, other.Name()), idtest.NewSigner(t, other.Name())
	r := newRemembering(t)
	own := bundleOf(t, td, 1, good)
	r.told(nil, own, bundleOf(t, other, 4, theirsNow))
	r.told(nil, own)
	trusted := r.state.path(trustFile)
	kept, err := os.ReadFile(trusted)
	if err != nil {
		t.Fatal(err)
	}
	// The state directory does not take the greater of the two files.
	if err := errors.Join(os.Remove(trusted), os.Mkdir(trusted, 0o700)); err != nil {
		t.Fatal(err)
	}
	u := &identityv1.TrustUpdate{Bundles: []*identityv1.Bundle{identityv1.NewBundle(own), identityv1.NewBundle(bundleOf(t, other, 4, theirsNow))}}
	if err := r.takeTrust(u, true); err == nil {
		t.Fatal("a directory was written to")
	}
	if err := errors.Join(os.Remove(trusted), os.WriteFile(trusted, kept, 0o600)); err != nil {
		t.Fatal(err)
	}
	r.restart()
	r.told(nil, own, bundleOf(t, other, 3, theirs))
	if b := r.bundles[other.Name()]; b.Sequence != 4 {
		t.Errorf("bundle number %d of %s is taken after number 4", b.Sequence, other)
	}
	r.told(nil, own, bundleOf(t, other, 5, theirsNow))
	if left, err := r.state.unnamed(); err != nil || len(left) > 0 {
		t.Errorf("kept as no longer trusted: %v, %v", left, err)
	}
}

// TestJoinAtARestoredControlPlane: what a token grants is taken, though the control plane counts
// from its backup on; a ban stands.
func TestJoinAtARestoredControlPlane(t *testing.T) {
	good := idtest.NewSigner(t, td.Name())
	b := bundleOf(t, td, 1, good)
	id, err := spiffe.ForNode(td, "n1")
	if err != nil {
		t.Fatal(err)
	}
	for _, banned := range []bool{false, true} {
		r := newRemembering(t)
		r.ready, r.workloads = make(chan struct{}), map[spiffeid.ID]*held{}
		if r.conn, err = newConnection(r.Agent); err != nil {
			t.Fatal(err)
		}
		r.told(&token.Node{Role: token.RoleNode, Name: "n1", Revision: 9, Banned: banned, Permitted: []token.Permit{{ID: serviceID("job")}}}, b)
		rec := token.Node{Role: token.RoleNode, Name: "n1", Revision: 2, Permitted: []token.Permit{{ID: serviceID("web")}}}
		err := r.takeJoin(&identityv1.Joined{
			SVID: good.SVID(t, id.String()), Bundle: b, Record: rec,
			Reply: &identityv1.JoinResponse{Bundles: []*identityv1.Bundle{identityv1.NewBundle(b)}, Record: identityv1.NewRecord(rec)},
		})
		if err != nil {
			t.Fatal(err)
		}
		if r.record.Permits(serviceID("web")) == banned || r.record.Banned != banned {
			t.Errorf("banned %t: after the join %+v", banned, r.record)
		}
		if err := r.conn.close(); err != nil {
			t.Fatal(err)
		}
	}
}

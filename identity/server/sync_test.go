package server

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/hauberk-mesh/hauberk/identity/identityv1"
	"github.com/hauberk-mesh/hauberk/identity/token"
)

// TestRecordsFitIntoMessages: however many identities nodes may have, no message between control
// planes is larger than the other side takes: it would hear of no ban any more.
func TestRecordsFitIntoMessages(t *testing.T) {
	var records []*identityv1.NodeRecord
	for i := range 400 {
		r := &identityv1.NodeRecord{Role: "node", Name: fmt.Sprint("n", i)}
		for k := range 200 {
			r.Workloads = append(r.Workloads, &identityv1.Workload{SpiffeId: fmt.Sprint("spiffe://server.test/ns/default/dc/dc1/svc/", strings.Repeat("x", 60), k)})
		}
		records = append(records, r)
	}
	for left := records; len(left) > 0; {
		n := some(left)
		if n == 0 {
			t.Fatal("nothing would ever be sent")
		}
		if size := proto.Size(&identityv1.PeerState{Records: left[:n]}); size > 2<<20 {
			t.Errorf("%d records in a message of %d bytes", n, size)
		}
		left = left[n:]
	}
	huge := []*identityv1.NodeRecord{{Name: strings.Repeat("x", 2*messageBytes)}}
	if some(huge) != 1 || some(nil) != 0 {
		t.Error("one record goes into a message, whatever its size")
	}
}

// TestTrustStreamsOfOneCallerAreBounded: each is woken by every change of a record.
func TestTrustStreamsOfOneCallerAreBounded(t *testing.T) {
	var w watchers
	var open []*watcher
	for range maxWatches {
		one, err := w.add("greedy")
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, one)
	}
	if _, err := w.add("greedy"); err == nil {
		t.Error("one more")
	}
	if _, err := w.add("other"); err != nil {
		t.Error(err)
	}
	w.remove(open[0])
	if _, err := w.add("greedy"); err != nil {
		t.Errorf("after one has ended: %v", err)
	}
}

// TestABanIsMergedInAnyCase: what of another control plane's state cannot be merged does not
// keep its bans away.
func TestABanIsMergedInAnyCase(t *testing.T) {
	w := serveIdentity(t)
	w.join(token.RoleNode, "n1")
	rec, _ := w.nodes.Get(token.RoleNode, "n1")
	rec.Banned, rec.BanReason, rec.Revision = true, "stolen", 1<<32
	unknown := identityv1.NewRecord(rec)
	unknown.Role, unknown.Name = "gateway", "of a later version"
	state := w.state()
	state.BundleSequence = 0 // no bundle has this one
	state.Records = []*identityv1.NodeRecord{unknown, identityv1.NewRecord(rec)}
	if err := w.mergeState(state); err == nil {
		t.Error("the bundle cannot be read")
	}
	if got, _ := w.nodes.Get(token.RoleNode, "n1"); !got.Banned {
		t.Errorf("%+v", got)
	}
}

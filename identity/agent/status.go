package agent

import (
	"slices"
	"strings"
	"time"

	"github.com/hauberk-mesh/hauberk/identity/svid"
)

// nodeSource is the agent as the control connection sees it: its default
// identity is the node's.
type nodeSource struct{ a *Agent }

func (n nodeSource) Changed() <-chan struct{} { return n.a.Changed() }

func (n nodeSource) Snapshot() *svid.Snapshot {
	s := *n.a.Snapshot()
	s.Default = n.a.NodeID().String()
	return &s
}

// Status describes the agent for people.
func (a *Agent) Status() Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	st := a.status
	st.TrustDomain = a.td.Name()
	st.Stale = a.trustLocked().Warning(a.cfg.StaleAfter, time.Now())
	if a.node != nil {
		st.Node = describe(a.node.ID.String(), a.node, a.nodeErr)
	}
	if b := a.bundles[a.td.Name()]; b != nil {
		st.BundleSequence = b.Sequence
	}
	if a.record != nil {
		st.RecordRevision, st.Banned = a.record.Revision, a.record.Banned
	}
	for id, h := range a.workloads {
		st.Workloads = append(st.Workloads, describe(id.String(), h.svid, h.err))
	}
	for _, id := range a.wanted {
		if a.workloads[id] == nil {
			st.Workloads = append(st.Workloads, IdentityStatus{ID: id.String(), State: Withdrawn})
		}
	}
	slices.SortFunc(st.Workloads, func(x, y IdentityStatus) int { return strings.Compare(x.ID, y.ID) })
	return st
}

func describe(id string, v *svid.SVID, err error) IdentityStatus {
	out := IdentityStatus{ID: id, State: Missing}
	if err != nil {
		out.LastError = err.Error()
	}
	if v == nil {
		return out
	}
	leaf := v.Leaf()
	out.NotBefore, out.NotAfter, out.Renews = leaf.NotBefore, leaf.NotAfter, renewAt(v)
	out.Serial = leaf.SerialNumber.Text(16)
	left := time.Until(leaf.NotAfter)
	switch {
	case left <= 0:
		out.State = Expired
	case left < leaf.NotAfter.Sub(leaf.NotBefore)/4:
		out.State = Critical
	case err != nil:
		out.State = Late
	default:
		out.State = OK
	}
	return out
}

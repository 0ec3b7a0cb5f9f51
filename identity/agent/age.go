package agent

import "github.com/hauberk-mesh/hauberk/internal/stale"

// Trust is the age of the trust bundles and the record, for people and metrics.
func (a *Agent) Trust() stale.Kept {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.trustLocked()
}

func (a *Agent) trustLocked() stale.Kept {
	from := "a control plane"
	if len(a.addresses) > 0 {
		from += " (" + a.addresses[0] + ")"
	}
	return stale.Kept{
		What: "the trust bundles and this node's record", AsOf: a.status.LastContact,
		Means: "a ban or a withdrawn signer would not be known here; check that this host reaches " + from,
	}
}

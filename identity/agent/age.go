package agent

import (
	"context"
	"fmt"
	"time"
)

// DefaultStaleAfter is ten of a control plane's heartbeats: longer than it takes
// to start again, short enough that a ban or a withdrawn signer is not missed for
// long without anybody knowing.
const DefaultStaleAfter = 5 * time.Minute

// ageInterval is how often the age of the trust data is looked at.
const ageInterval = 5 * time.Second

// watchAge warns when the trust data is too old and says when it is not any more.
// The data stays in use: a mesh that stopped because its control plane did would
// be worse than one that learns of a ban late.
func (a *Agent) watchAge(ctx context.Context) {
	tick := time.NewTicker(ageInterval)
	defer tick.Stop()
	warned := false
	for {
		a.mu.Lock()
		stale, last := a.staleTrustLocked(time.Now()), a.status.LastError
		a.mu.Unlock()
		switch {
		case stale != "" && !warned:
			a.log.Warn(stale, "err", last)
		case stale == "" && warned:
			a.log.Info("the trust data is current again")
		}
		warned = stale != ""
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// staleTrustLocked says that the trust data is too old; empty when it is not, and
// when there is none yet.
func (a *Agent) staleTrustLocked(now time.Time) string {
	last := a.status.LastContact
	if age := now.Sub(last); !last.IsZero() && age >= a.cfg.StaleAfter {
		return fmt.Sprintf("the trust bundles and this node's record are of %s ago and stay in use: no control plane has confirmed them since, so a ban or a withdrawn signer would not be known here; check that %s is reached",
			age.Round(time.Second), a.controlPlaneLocked())
	}
	return ""
}

func (a *Agent) controlPlaneLocked() string {
	if len(a.addresses) > 0 {
		return "a control plane (" + a.addresses[0] + ")"
	}
	return "a control plane"
}

package sidecar

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/hauberk-mesh/hauberk/internal/stale"
)

// fromControlPlane is the source of the agent's trust data in metrics.
const fromControlPlane = "control plane"

// configuration is the age of what a control plane has sent. While the stream to
// it is up that is nothing: every change comes at once.
func (s *Sidecar) configuration() stale.Kept {
	return stale.Kept{
		What: "the configuration", AsOf: s.status().AsOf,
		Means: "new endpoints, routes and intentions are not known here; check that this host reaches a control plane",
	}
}

// trust is the age of each kind of trust data, by where it comes from.
func (s *Sidecar) trust() map[string]stale.Kept {
	out := map[string]stale.Kept{}
	if s.agent != nil {
		out[fromControlPlane] = s.agent.Trust()
	}
	for file, asOf := range s.tls.ages() {
		out[file] = stale.Kept{
			What: "the trust bundle of " + file, AsOf: asOf,
			Means: "the files as they are now cannot be used, see the error before this; mend them",
		}
	}
	return out
}

// watchAge warns of configuration and of files that are too old. The agent does
// so for what it keeps itself.
func (s *Sidecar) watchAge(ctx context.Context) {
	stale.Watch(ctx, s.log, s.cfg.StaleAfter, func() []stale.Kept {
		trust := s.trust()
		delete(trust, fromControlPlane)
		return append(slices.Collect(maps.Values(trust)), s.configuration())
	})
}

func (s *Sidecar) configAge(emit func(value float64, labels ...string)) {
	now := time.Now() // before what is current says so
	if age, ok := s.configuration().Age(now); ok {
		emit(age.Seconds())
	}
}

func (s *Sidecar) trustAge(emit func(value float64, labels ...string)) {
	now := time.Now()
	for source, k := range s.trust() {
		if age, ok := k.Age(now); ok {
			emit(age.Seconds(), source)
		}
	}
}

type trustView struct {
	Source     string    `json:"source"`
	AsOf       time.Time `json:"as_of"`
	AgeSeconds int       `json:"age_seconds"`
	// Warning is set once that is too old.
	Warning string `json:"warning,omitempty"`
}

// trustView is the same for people.
func (s *Sidecar) trustView() []trustView {
	out := []trustView{}
	now, trust := time.Now(), s.trust()
	for _, source := range slices.Sorted(maps.Keys(trust)) {
		k := trust[source]
		if age, ok := k.Age(now); ok {
			out = append(out, trustView{source, k.AsOf, int(age.Seconds()), k.Warning(s.cfg.StaleAfter, now)})
		}
	}
	return out
}

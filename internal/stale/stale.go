// Package stale tells people of what is kept in use although nobody has
// confirmed it for a long time. Configuration and trust data fail static: they
// stay as they were while their origin is away. That is right, and it must not
// be silent.
package stale

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

// After is when to warn where nothing else is configured: ten heartbeats of a
// control plane. That is longer than one takes to start again, and short enough
// that a ban or a new deny is not missed for long without anybody knowing.
const After = 5 * time.Minute

// Interval is how often Watch looks.
const Interval = 5 * time.Second

// Kept is something that is as old as AsOf.
type Kept struct {
	// What names it, and is its key: "the configuration".
	What string
	// AsOf is when its origin last confirmed it; zero when there is none of it.
	AsOf time.Time
	// Means is what may be wrong because of its age, and what to do about that.
	Means string
}

// Age is how old it is; false when there is none of it.
func (k Kept) Age(now time.Time) (time.Duration, bool) {
	return max(now.Sub(k.AsOf), 0), !k.AsOf.IsZero()
}

// Warning is a sentence once it is at least as old as after, and empty before.
func (k Kept) Warning(after time.Duration, now time.Time) string {
	age, ok := k.Age(now)
	if !ok || age < after {
		return ""
	}
	return fmt.Sprintf("%s: last confirmed %s ago and kept in use; %s", k.What, age.Round(time.Second), k.Means)
}

// Watch logs each warning once, and its end, until ctx ends. What list returns
// may differ from call to call.
func Watch(ctx context.Context, log *slog.Logger, after time.Duration, list func() []Kept) {
	tick := time.NewTicker(Interval)
	defer tick.Stop()
	warned := map[string]bool{}
	for {
		now := time.Now()
		still := map[string]bool{}
		for _, k := range list() {
			w := k.Warning(after, now)
			switch {
			case w != "" && !warned[k.What]:
				log.Warn(w)
			case w == "" && warned[k.What]:
				log.Info(k.What + ": current again")
			}
			if w != "" {
				still[k.What] = true
			}
		}
		warned = still
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

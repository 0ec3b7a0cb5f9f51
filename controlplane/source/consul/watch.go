package consul

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/hashicorp/consul/api"
	"golang.org/x/time/rate"
)

// query returns the options of a blocking read. The wait is jittered, because
// the streaming backend does not do it and watches that start together would end
// together.
func (s *Source) query(ctx context.Context, index uint64) *api.QueryOptions {
	opts := &api.QueryOptions{AllowStale: true}
	if index > 0 {
		opts.WaitIndex = index
		opts.WaitTime = s.wait - rand.N(s.wait/5)
	}
	return opts.WithContext(ctx)
}

// loop calls read with the index of its last answer until ctx ends, by the rules
// of blocking queries: an index that goes back starts anew, zero counts as one,
// a burst of wake-ups is slowed down, errors back off. Errors keep what is known.
func (s *Source) loop(ctx context.Context, what string, index uint64, read func(context.Context, uint64) (uint64, error)) {
	limit := rate.NewLimiter(rate.Every(100*time.Millisecond), 10)
	retry := newBackoff()
	for ctx.Err() == nil {
		if limit.Wait(ctx) != nil {
			return
		}
		// The server adds up to a sixteenth to the wait; past that it is gone.
		bounded, cancel := context.WithTimeout(ctx, s.wait+s.wait/16+15*time.Second)
		next, err := read(bounded, index)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			s.problem(what, err)
			var refused *RefusedError
			if errors.As(err, &refused) {
				s.log.Error("consul refuses", "watch", what, "err", err)
			} else {
				s.log.Warn("consul watch failed; the last state stands", "watch", what, "err", err)
			}
			// Whatever was missed meanwhile is read without waiting.
			index = 0
			if !retry.wait(ctx) {
				return
			}
			continue
		}
		retry = newBackoff()
		switch {
		case next == 0:
			index = 1
		case next < index:
			index = 0
		default:
			index = next
		}
	}
}

// backoff is full jitter, exponential, bounded.
type backoff struct{ limit time.Duration }

func newBackoff() *backoff { return &backoff{limit: 100 * time.Millisecond} }

// wait returns false when ctx ended.
func (b *backoff) wait(ctx context.Context) bool {
	d := 20*time.Millisecond + rand.N(b.limit)
	b.limit = min(2*b.limit, 5*time.Second)
	return pause(ctx, d) == nil
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

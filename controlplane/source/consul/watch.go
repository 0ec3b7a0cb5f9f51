package consul

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/hashicorp/consul/api"
	"golang.org/x/time/rate"
)

// query returns the options of a read: a blocking one that any server may
// answer when an index is known, or else one that the leader answers for sure. A
// server that was restarted has replayed only a part of its log, and what it
// lacks is no deletion. The wait is jittered, because the streaming backend does
// not do it and watches that start together would end together.
func (s *Source) query(ctx context.Context, index uint64) *api.QueryOptions {
	if index == 0 {
		return (&api.QueryOptions{RequireConsistent: true}).WithContext(ctx)
	}
	opts := &api.QueryOptions{AllowStale: true, WaitIndex: index, WaitTime: s.wait - rand.N(s.wait/5)}
	return opts.WithContext(ctx)
}

// ask reads, and reads again from the leader when the answer is older than what
// was known already.
func (s *Source) ask(ctx context.Context, known uint64, opts *api.QueryOptions, read func(*api.QueryOptions) (*api.QueryMeta, error)) (*api.QueryMeta, error) {
	meta, err := read(opts)
	if err == nil && known > 1 && meta.LastIndex < known {
		meta, err = read(s.query(ctx, 0))
	}
	return meta, err
}

// bounded is the time that a read may take. The server adds up to a sixteenth to the wait; past
// that it is gone.
func (s *Source) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, s.wait+s.wait/16+15*time.Second)
}

// loop calls read with the index of its last answer until ctx ends, by the rules
// of blocking queries: an index that goes back starts anew, zero counts as one,
// a burst of wake-ups is slowed down, errors back off. Errors keep what is known. The context
// of read is for reading: what was read must be delivered however long that takes, for it is
// not read again.
func (s *Source) loop(ctx context.Context, what string, index uint64, read func(context.Context, uint64) (uint64, error)) {
	limit := rate.NewLimiter(rate.Every(100*time.Millisecond), 10)
	retry := newBackoff()
	for ctx.Err() == nil {
		if limit.Wait(ctx) != nil {
			return
		}
		bounded, cancel := s.bounded(ctx)
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
			if !retry.wait(ctx, s.recovery()) {
				return
			}
			continue
		}
		retry.reset()
		switch {
		case next == 0:
			index = 1
		case next < index:
			// Another server, or one that was restored from a snapshot.
			s.wentBack()
			index = 0
		default:
			index = next
		}
	}
}

// backoff is full jitter, exponential, bounded.
type backoff struct {
	limit time.Duration
	// hurried is when a recovery last cut a wait short.
	hurried time.Time
}

const (
	firstBackoff = 100 * time.Millisecond
	mostBackoff  = 5 * time.Second
)

func newBackoff() *backoff { return &backoff{limit: firstBackoff} }

func (b *backoff) reset() { b.limit = firstBackoff }

// wait returns false when ctx ended. Once another watch has an answer again this
// one need not wait out its time; at most once a second, because one that keeps
// failing while the others do not must not follow their pace.
func (b *backoff) wait(ctx context.Context, recovered <-chan struct{}) bool {
	timer := time.NewTimer(20*time.Millisecond + rand.N(b.limit))
	defer timer.Stop()
	b.limit = min(2*b.limit, mostBackoff)
	if time.Since(b.hurried) < time.Second {
		recovered = nil
	}
	select {
	case <-timer.C:
		return true
	case <-recovered:
		b.reset()
		b.hurried = time.Now()
		// All watches wake at once; the agent need not serve them at once.
		return pause(ctx, rand.N(firstBackoff)) == nil
	case <-ctx.Done():
		return false
	}
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

package listener

import (
	"context"
	"sync"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/overload"
	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// shake makes a handshake, for which there is some time, and not beyond the listener's end.
func (l *listener) shake(t *stream.TLS, limit time.Duration) error {
	if r := l.m.opts.Overload.Reducer(); r.Reduces(overload.Handshake) {
		return l.shakeReduced(t, limit, r)
	}
	ctx, cancel := context.WithTimeout(l.ctx, limit)
	defer cancel()
	return t.Handshake(ctx)
}

// reducedEvery is how often it is looked whether an overload has shortened a handshake's time.
const reducedEvery = 100 * time.Millisecond

// shakeReduced is shake where an overload may shorten the time at any moment.
func (l *listener) shakeReduced(t *stream.TLS, limit time.Duration, r *overload.Reducer) error {
	ctx, cancel := context.WithCancelCause(l.ctx)
	defer cancel(nil)
	defer lookAgain(time.Now(), func(waited time.Duration) time.Duration {
		left := time.Duration(r.Reduce(overload.Handshake, int64(limit))) - waited
		if left <= 0 {
			cancel(context.DeadlineExceeded)
		}
		return min(left, reducedEvery)
	})()
	err := t.Handshake(ctx)
	if err != nil && context.Cause(ctx) == context.DeadlineExceeded {
		return context.DeadlineExceeded
	}
	return err
}

// lookAgain calls look at once, and again after as long as it says, until that is nothing or stop is called.
func lookAgain(began time.Time, look func(waited time.Duration) (again time.Duration)) (stop func()) {
	again := look(0)
	if again <= 0 {
		return func() {}
	}
	var mu sync.Mutex
	var timer *time.Timer
	stopped := false
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(again, func() {
		defer panics.Contain(panics.Timer, nil, nil)
		mu.Lock()
		defer mu.Unlock()
		if stopped {
			return
		}
		if again := look(time.Since(began)); again > 0 {
			timer.Reset(again)
		}
	})
	return func() {
		mu.Lock()
		defer mu.Unlock()
		stopped = true
		timer.Stop()
	}
}

package listener

import (
	"context"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/overload"
	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// shake makes a handshake, for which there is some time, and not beyond the listener's end.
func (l *listener) shake(t *stream.TLS, limit time.Duration) error {
	if r := l.m.opts.Overload.Reducer(); r != nil {
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
	began := time.Now()
	var look func()
	look = func() {
		left := time.Duration(r.Reduce(overload.Handshake, int64(limit))) - time.Since(began)
		switch {
		case ctx.Err() != nil:
		case left <= 0:
			cancel(context.DeadlineExceeded)
		default:
			time.AfterFunc(min(left, reducedEvery), func() {
				defer panics.Contain(panics.Timer, nil, nil)
				look()
			})
		}
	}
	look()
	err := t.Handshake(ctx)
	if err != nil && context.Cause(ctx) == context.DeadlineExceeded {
		return context.DeadlineExceeded
	}
	return err
}

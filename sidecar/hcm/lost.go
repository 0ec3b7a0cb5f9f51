package hcm

import (
	"errors"

	"github.com/hauberk-mesh/hauberk/sidecar/fair"
	"github.com/hauberk-mesh/hauberk/sidecar/http1"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/panics"
)

// StreamLost implements http2.Recorder: a request that the codec has refused, or that was
// over before its turn came, is counted and logged as others are.
func (c *http2Conn) StreamLost(req *message.Request, err error) {
	c.refused.Turn()
	x := newExchange(c.m, c.d, c.ctx)
	defer panics.Contain(panics.Exchange, c.d, x.wreck)
	x.begin()
	x.req.Version = message.HTTP2
	if req != nil {
		x.req = req
	}
	x.peer, x.dog, x.client = &c.d.Peer, &x.h2.dog, &x.h2
	x.h2.blame(err)
	x.flags, x.details = x.departure()
	if r, refused := refusal(err); refused {
		x.countRefusal(&r)
	}
	if answer := (*http1.Error)(nil); errors.As(err, &answer) {
		x.status = answer.Status
	}
	x.finish()
	c.refused.Spend(fair.Request)
	x.release()
}

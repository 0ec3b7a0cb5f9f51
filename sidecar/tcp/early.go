package tcp

import (
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// early is what a client said before its upstream was connected: no more of it than is
// configured, and not all where that is more than a buffer holds.
type early struct {
	lease
	most int
	data []byte
}

// TakeBuffer implements stream.Buffers.
func (e *early) TakeBuffer() []byte {
	b := e.lease.TakeBuffer()
	return b[:min(len(b), e.most)]
}

// said is how many bytes that is; 0 for nil.
func (e *early) said() int64 {
	if e == nil {
		return 0
	}
	return int64(len(e.data))
}

// drop gives the memory back; nil has none.
func (e *early) drop() {
	if e != nil {
		e.DropBuffer()
	}
}

// await waits for the client's first bytes, as long as it may be idle, and at most until
// the connection has lasted long enough, where until is not 0. Meanwhile no memory is held
// for them. A client that ends its half has said all it will.
func (p *Proxy) await(c *downstream.Conn, e *early, until int64, o *outcome) bool {
	e.size, e.most = mediumBuffer, max(p.cfg.MaxEarlyData, 1)
	wait, flags, reason := p.idle, telemetry.Flags(0), endIdle
	if left := time.Duration(until - p.watch.now()); until > 0 && (wait <= 0 || left < wait) {
		wait, flags, reason = max(left, 1), telemetry.FlagDurationTimeout, endDuration
	}
	if wait > 0 {
		_ = c.Stream.SetReadDeadline(time.Now().Add(wait))
	}
	var n int
	var err error
	if ready, ok := c.Stream.(stream.ReadyReader); ok {
		n, err = ready.ReadReady(e)
	} else {
		n, err = c.Stream.Read(e.TakeBuffer())
	}
	switch {
	case n > 0:
		e.data = e.TakeBuffer()[:n]
	case err != nil && stream.IsTimeout(err):
		o.flags, o.termination = flags, reason
		return false
	case ended(err) != nil:
		return false
	}
	return c.Stream.SetReadDeadline(never) == nil
}

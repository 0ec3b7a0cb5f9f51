package hcm

import (
	"bytes"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// What HTTP/1 puts on the wire is known by its codec, which counts it only where somebody shows it.

// startMeters begins to count, after a redirect towards the upstream alone. The memory stays with the
// exchange: what writes to it, streams too, has ended when the next request begins.
func (x *exchange) startMeters() {
	o := &x.observed
	if o.meters == nil {
		o.meters = new([2]message.Meter)
	}
	down, up := &o.meters[0], &o.meters[1]
	up.Reset()
	o.sizes.Upstream = up
	if o.sizes.Downstream != nil {
		return
	}
	down.Reset()
	o.sizes.Downstream = down
	x.h1.meter = down
}

// headSent counts the fields of a head that is to be written, which Sent counts as a whole.
func (h *http1Client) headSent(head []byte) { headSent(h.meter, head) }

// headSent counts the lines of a head behind its first.
func headSent(m *message.Meter, head []byte) {
	if m == nil {
		return
	}
	n := len(head) - (bytes.IndexByte(head, '\n') + 1) - len("\r\n")
	m.HeadSent(n, n)
}

// headReceived counts a head that was read, and of its fields what Envoy does: names, values without
// what surrounds them, and three bytes for each.
func headReceived(m *message.Meter, head []byte) {
	if m == nil {
		return
	}
	m.Received(len(head))
	head = bytes.TrimLeft(head, "\r\n")
	_, lines, _ := bytes.Cut(head, []byte{'\n'})
	n := 0
	for line := range bytes.Lines(lines) {
		if name, value, ok := bytes.Cut(line, []byte{':'}); ok {
			n += len(name) + len(bytes.Trim(value, " \t\r\n")) + 3
		}
	}
	m.HeadReceived(n, n)
}

// countBytes adds the last attempt's bytes to its cluster's.
func (a *attempt) countBytes() {
	if a.host == nil {
		return
	}
	if m := a.host.Cluster().Metrics().Use(); m != nil {
		m.BytesSent.Add(a.x.d.Shard, uint64(a.sent))
		m.BytesReceived.Add(a.x.d.Shard, uint64(a.received))
	}
}

// countTime counts how long the last attempt took, when it was answered.
func (a *attempt) countTime(ended int64) {
	if a.host == nil || a.firstAt == 0 || a.x.local || a.x.checksHealth() {
		return
	}
	if m := a.host.Cluster().Metrics().Use(); m != nil {
		m.RequestDuration.Observe(a.x.d.Shard, time.Duration(ended-a.sentAt))
	}
}

// countBudget counts how much of its time a request took since it was whole: until the host's answer is,
// however long the client takes it, or its time was over.
func (x *exchange) countBudget(since int64) {
	a := x.attempt
	if a.host == nil || x.checksHealth() {
		return
	}
	if b := a.host.Cluster().Budgets(); b != nil {
		b.Request(x.d.Shard, sinceMono(since), x.timeouts.Total)
	}
}

// countTimeout is countBudget for a request whose time was over.
//
//go:noinline
func (x *exchange) countTimeout() {
	since := x.admittedAt
	if p := x.pump; p != nil {
		p.clock.mu.Lock()
		since = max(since, p.clock.began)
		p.clock.mu.Unlock()
	}
	x.countBudget(since)
}

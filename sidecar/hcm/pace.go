package hcm

import (
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// Patience is how long clients are waited for besides what a configuration of Envoy's says,
// which has no such bounds. The zero Patience is for ever.
type Patience struct {
	// FirstByte is how long a new connection may say nothing: of HTTP/1 until the first byte
	// of its first request, of HTTP/2 until its client's preface and SETTINGS are here. 0 is
	// no bound but the idle timeout.
	FirstByte time.Duration
	// FirstByteOfStrangers has FirstByte concern only clients of other hosts whom no certificate
	// has named: applications of this host, and sidecars, open connections ahead of need.
	FirstByteOfStrangers bool
	// BodyRate is how many bytes a second of a request's body are to come on the average, as
	// long as the client is waited for, up to MostBodyRate; 0 is none.
	BodyRate int64
	// BodyRateOfStrangers has BodyRate concern only the same clients: nobody of the mesh, whose
	// streams may be slow for reasons of its own, is cut by what nobody asked for.
	BodyRateOfStrangers bool
	// Handshake is how long a client may take to shake hands over TLS where its filter chain
	// does not say; 0 is the listeners' own.
	Handshake time.Duration
}

// MostBodyRate is the highest rate that can be told from none.
const MostBodyRate = int64(time.Second)

// A body's least rate is kept by a store of patience: the time that a client may still be
// waited for. It begins with patienceFirst; waiting for the client takes from it, each byte
// adds what the rate gives it, and no more than patienceMost is ever there. So a client that
// keeps to the rate is never at an end, one that sent much may rest, and one that stays below
// the rate is waited for patienceFirst and what its bytes were worth.
const (
	patienceFirst = int64(30 * time.Second)
	patienceMost  = int64(5 * time.Minute)
)

// lateness is how much later than it was to a watchdog looks only if the process could not
// run. What the client sent meanwhile may not have been read, so that nothing is known of it.
const lateness = int64(time.Second)

// pace is the least rate of one request's body. Whoever reads the body tells of its waits;
// the watchdog, which looks meanwhile, ends one that takes too long.
type pace struct {
	perByte int64 // ns
	left    atomic.Int64
	// since is from when on the wait counts. It is the pace's own: who may not send, or was
	// not heard, is not too slow, but idle he is.
	since atomic.Int64
	// waits is set while the client is waited for: neither a host's nor our own pauses count.
	waits atomic.Bool
	state atomic.Uint32
	// own are the client's bytes of this body; others those of others of its connection that
	// were given what they are worth.
	own, others atomic.Uint64
}

// carrier is a client whose connection carries others too.
type carrier interface {
	// heldBack tells whether it cannot send: the window of its connection, or its own, is used
	// up by what has yet to be taken. It takes a lock.
	heldBack() bool
	// inflow tells how many bytes of bodies came on the connection, and when there was credit
	// again after there was none. It may be called from a tap.
	inflow() (bytes uint64, lifted int64)
}

// pardon has what the connection of the client carried meanwhile count for it: one that sends
// its bodies one after another is not slow with those that wait, as long as all of them keep to
// the rate. So streams that trade a byte now and then excuse each other from nothing. And a
// wait begins when there is credit again, with a moment for the news to arrive.
func (p *pace) pardon(c carrier, now int64) {
	bytes, lifted := c.inflow()
	if lifted > 0 && lifted+lateness > p.since.Load() {
		p.since.Store(lifted + lateness)
	}
	others := bytes - min(p.own.Load(), bytes)
	if before := p.others.Load(); others > before {
		p.others.Store(others)
		left := p.left.Load() - max(now-p.since.Load(), 0) // below 0 where they were slow together
		p.left.Store(min(left+p.worth(int64(min(others-before, 1<<62))), patienceMost))
		p.since.Store(max(p.since.Load(), now))
	}
}

// States of a pace.
const (
	paceKept uint32 = iota
	// paceHeld: the client may be waiting to be told to go on. The first byte shows that it
	// does not.
	paceHeld
	// paceOver: the host has begun to answer. What the client sends from now on is its part of
	// a conversation, which may rest.
	paceOver
)

// startPace has the rest of the request's body keep to the least rate, where it is to.
//
//go:noinline
func (x *exchange) startPace() {
	if x.wantsTunnel() || x.terminate || x.converses(false) || x.m.patience.BodyRateOfStrangers && !stranger(x.d) {
		return
	}
	p := &x.pace
	p.perByte = int64(time.Second) / x.m.patience.BodyRate
	p.left.Store(min(patienceFirst+p.worth(x.received), patienceMost))
	p.waits.Store(false)
	p.since.Store(monotonic())
	p.own.Store(0)
	p.others.Store(0)
	if c, ok := x.dog.client.(carrier); ok {
		bytes, _ := c.inflow()
		p.others.Store(bytes)
	}
	p.state.Store(paceKept)
	if x.req.ExpectContinue {
		p.state.Store(paceHeld)
	}
	x.dog.calm()
	x.dog.pace = p
}

// converses tells whether the request says that it is part of a conversation: a stream of
// messages that come when there is something to say. gRPC has one only where the host speaks
// HTTP/2 as its client does.
func (x *exchange) converses(hostSpeaksHTTP2 bool) bool {
	if r := x.sel.Route; r != nil && r.Forward != nil && r.Forward.IdleTimeout != nil {
		return true // its author has said how long it may rest
	}
	kind, _ := x.req.Fields.ByID(message.ContentType)
	kind, _, _ = strings.Cut(kind, ";")
	kind = strings.ToLower(strings.Trim(kind, " \t")) // RFC 9110 8.3.1
	if strings.HasPrefix(kind, "application/connect+") {
		return true
	}
	if !hostSpeaksHTTP2 || x.req.Version == message.HTTP11 || x.req.Version == message.HTTP10 {
		return false
	}
	name, _, _ := strings.Cut(kind, "+")
	return name == "application/grpc" || name == "application/grpc-web" || name == "application/grpc-web-text"
}

// settlePace decides for an attempt, whose host's protocol is known, whether the body keeps to
// the least rate. No pump runs.
//
//go:noinline
func (x *exchange) settlePace(hostSpeaksHTTP2 bool) {
	p := x.dog.pace
	if x.converses(hostSpeaksHTTP2) {
		p.state.Store(paceOver)
	} else {
		p.state.CompareAndSwap(paceOver, paceKept)
	}
}

// endPace ends what startPace began. No pump runs.
func (x *exchange) endPace() {
	x.dog.calm()
	x.dog.pace = nil
}

// goOn notes that the client was told to send its body.
func (p *pace) goOn(w *watchdog) {
	w.active()
	p.since.Store(w.progress.Load())
	p.state.CompareAndSwap(paceHeld, paceKept)
}

// took takes a wait from the patience, and gives it what n bytes are worth.
func (p *pace) took(wait int64, n int) {
	p.waits.Store(false)
	p.state.CompareAndSwap(paceHeld, paceKept)
	left := p.left.Load()
	if wait <= left+lateness { // or the watchdog would have ended it, had the process been able to run
		left = max(left-wait, 0)
	}
	p.left.Store(min(left+p.worth(int64(n)), patienceMost))
}

// worth is what n bytes add to the patience, at most all there may be.
func (p *pace) worth(n int64) int64 { return min(n, patienceMost/p.perByte+1) * p.perByte }

// awaits notes that the client is about to be waited for, where its rate is kept.
func (w *watchdog) awaits() {
	if p := w.pace; p != nil {
		p.since.Store(max(p.since.Load(), w.progress.Load()))
		p.waits.Store(true)
	}
}

// came notes that n bytes of the client's body were read, 0 where the wait ended otherwise.
func (w *watchdog) came(n int) {
	switch {
	case n > 0:
		w.cameAt(n, monotonic())
	case w.pace != nil:
		w.pace.waits.Store(false)
	}
}

// cameAt is came, of some bytes, for who has read the clock.
func (w *watchdog) cameAt(n int, now int64) {
	if p := w.pace; p != nil {
		p.own.Add(uint64(n))
		if now-p.since.Load() > lateness { // it is asked only of who was waited for
			if c, ok := w.client.(carrier); ok {
				p.pardon(c, now)
			}
		}
		p.took(max(now-p.since.Load(), 0), n)
		p.since.Store(now)
	}
	w.activeAt(now)
}

// nextPace is when to look whether the client has been waited for too long. While it is not
// waited for, it will not have been before that.
func (w *watchdog) nextPace(now int64) int64 {
	p := w.pace
	switch {
	case p.state.Load() == paceOver:
		return noDeadline
	case p.state.Load() == paceKept && p.waits.Load():
		return max(p.since.Load()+p.left.Load(), now+watchEvery)
	}
	return now + max(p.left.Load(), watchEvery)
}

// tooSlow tells whether the client has been waited for too long. Where it cannot send,
// because others have filled the window of its connection, or the process could not run, it
// has not.
func (w *watchdog) tooSlow(now int64) bool {
	p := w.pace
	if p.state.Load() != paceKept || !p.waits.Load() {
		return false
	}
	late := now - p.since.Load() - p.left.Load()
	if late < 0 {
		return false
	}
	c, shared := w.client.(carrier)
	if late > lateness || shared && c.heldBack() {
		p.since.Store(now)
		return false
	}
	if shared {
		p.pardon(c, now)
	}
	return now-p.since.Load() >= p.left.Load()
}

// slowReply is for a request whose body comes too slowly.
var slowReply = reply{status: 408, body: "request timeout", details: "request_body_rate", close: true, byManager: true}

// countSlow counts a client that was not waited for any longer.
func (m *Manager) countSlow(d *downstream.Conn, what string) {
	if m.metrics != nil {
		m.metrics.SlowClients.With(what).Inc(d.Shard)
	}
}

// firstBy is how long the first byte of a connection may take, 0 for no bound.
func (m *Manager) firstBy(d *downstream.Conn) int64 {
	if m.patience.FirstByte <= 0 || m.patience.FirstByteOfStrangers && !stranger(d) {
		return 0
	}
	return int64(m.patience.FirstByte)
}

// stranger tells whether a client is at another host and nobody vouches for it. What a PROXY
// header says of it is not the connection.
func stranger(d *downstream.Conn) bool {
	i := d.Info
	if i == nil || i.PeerID != "" || i.PeerCertHash != "" {
		return false
	}
	at := i.Remote
	if i.Direct != nil {
		at = i.Direct
	} else if own, ok := i.Local.(*net.TCPAddr); ok {
		if tcp, ok := at.(*net.TCPAddr); ok && tcp.IP.Equal(own.IP) {
			return false
		}
	}
	tcp, ok := at.(*net.TCPAddr)
	return ok && !tcp.IP.IsLoopback() && !thisHost.has(tcp.IP)
}

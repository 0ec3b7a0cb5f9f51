package hcm

import (
	"sync"
	"sync/atomic"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// What an exchange keeps of its request's body, for another attempt and for copies. So much
// as replayLimit each keeps in memory of its own. More is kept only of what the route's
// policies could send again, within a limit for each request and one for all of them.

const (
	// replayLimit is the most of a body that is kept where nothing of the route could
	// send it again.
	replayLimit = 64 << 10
	// defaultKept is the limit where neither the route nor the listener has one.
	defaultKept = 1 << 20
	// maxKept bounds what a configuration may have kept of a body.
	maxKept = 64 << 20
	// keepAll is the most that all exchanges of the process keep beyond what each has
	// memory for: clients may send as much as they like to hosts that do not answer.
	keepAll = 128 << 20
)

// keeping is how much they keep.
var keeping atomic.Int64

// keepLimit is how much of the request's body may be kept.
func (x *exchange) keepLimit() int32 {
	if limit, ok := x.sel.BufferLimit(); ok {
		return int32(min(limit, maxKept))
	}
	return x.connectionLimit()
}

// connectionLimit is how much the client's connection allows its exchanges to keep of a body.
func (x *exchange) connectionLimit() int32 {
	if x.req.Version == message.HTTP2 {
		return x.m.keepHTTP2
	}
	return x.m.keepHTTP1
}

// keepLimits are those of connections: as in Envoy the listener's of HTTP/1, where 0 is
// none, and of HTTP/2 a stream's window, or what that may become; but what a window is by default
// is too much.
func (m *Manager) keepLimits() {
	m.keepHTTP1, m.keepHTTP2 = defaultKept, int32(min(max(m.http2.StreamWindow, m.http2.MaxStreamWindow), defaultKept))
	switch l := m.cfg.BufferLimit; {
	case l == nil:
	case *l == 0:
		m.keepHTTP1 = maxKept
	default:
		m.keepHTTP1 = int32(min(*l, maxKept))
	}
}

// limitKept settles how much is kept of a body that is still on its way to up.
func (x *exchange) limitKept(up upstream) {
	if x.keepUpTo > replayLimit && !x.resends(up) {
		x.keepUpTo = replayLimit
		x.keep = x.keep && len(x.payload) <= replayLimit
	}
}

// resends tells whether anything of the route could have the request sent again, or on, of which
// some was sent to up.
func (x *exchange) resends(up upstream) bool {
	if r := x.sel.Route.Forward.InternalRedirect; x.isMirrored() || r != nil && r.Max > 0 {
		return true
	}
	_, refuses := up.(*http2Upstream)
	p := x.sel.Retry
	return p != nil && p.Resends(x.req, refuses)
}

// keepMore appends to what is kept. It is false where there is no room for it, unless it must
// be.
func (x *exchange) keepMore(p []byte, must bool) bool {
	if need := len(x.store) + len(p); need > max(cap(x.store), replayLimit) {
		size := roundKept(max(need, 2*cap(x.store)))
		if !x.reserve(size, must) {
			return false
		}
		next := append(lendKept(size), x.store...)
		returnKept(x.store)
		x.store = next
	}
	x.store = append(x.store, p...)
	x.payload = x.store
	return true
}

// reserve has the exchange's memory count with size bytes, where there is room for them or
// it must be.
func (x *exchange) reserve(size int, must bool) bool {
	more := int64(size) - int64(x.kept)
	if all := keeping.Add(more); !must && (all > keepAll || x.d.Overload.MemoryIsShort()) {
		keeping.Add(-more)
		return false
	}
	x.kept = int32(size)
	x.h2.kept.Store(int64(size))
	return true
}

// forgetKept gives back what was kept of a body that is not sent again, as far as nobody
// reads or sends it. The exchange has its own memory still. What is to go through a tunnel
// waits for the answer. The pump of an attempt that a hedge chose has a copy.
func (x *exchange) forgetKept() {
	switch p := x.pump; {
	case x.tunnel:
	case p != nil && p.x == x && !p.ended():
		p.forgetReplay()
	case cap(x.store) > keepBuffer:
		x.keep = false
		x.dropKept()
	}
}

// dropKept gives memory back that is more than an exchange has of its own. After a panic
// somebody may still read it.
func (x *exchange) dropKept() {
	if cap(x.store) > keepBuffer {
		if !x.wrecked {
			returnKept(x.store)
		}
		x.payload, x.store = nil, nil
	}
	if x.kept > 0 {
		keeping.Add(-int64(x.kept))
		x.kept = 0
		x.h2.kept.Store(0)
	}
}

// mayCopy tells whether there is room for a copy of the body. Copies have half of it: hosts
// that do not answer them must not take other requests' attempts away.
func (x *exchange) mayCopy() bool {
	n := len(x.payload)
	return n <= replayLimit || keeping.Load()+int64(n) <= keepAll/2
}

// keptBuffers is memory of the sizes to which what is kept grows, up to the default limit.
// An upload would otherwise cost twice its size of it, new from the kernel.
var keptBuffers [4]sync.Pool

const firstKept = defaultKept >> (len(keptBuffers) - 1)

// roundKept is the size of memory that holds n bytes.
func roundKept(n int) int {
	size := firstKept
	for size < n {
		size *= 2
	}
	return size
}

// keptPool is the pool of memory of a size, nil for none.
func keptPool(size int) *sync.Pool {
	for i := range keptBuffers {
		if size == firstKept<<i {
			return &keptBuffers[i]
		}
	}
	return nil
}

// lendKept returns empty memory of a size.
func lendKept(size int) []byte {
	if p := keptPool(size); p != nil {
		if b, ok := p.Get().(*[]byte); ok {
			return (*b)[:0]
		}
	}
	return make([]byte, 0, size)
}

// returnKept takes it back; of other memory it takes none. Nobody reads it any more.
func returnKept(b []byte) {
	if p := keptPool(cap(b)); p != nil {
		p.Put(&b)
	}
}

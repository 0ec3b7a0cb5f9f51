package hcm

import (
	"sync"

	"github.com/hauberk-mesh/hauberk/sidecar/fair"
	"github.com/hauberk-mesh/hauberk/sidecar/http1"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// buffer is a window of bytes that were read and not used yet: b[r:w].
type buffer struct {
	b    []byte
	r, w int
}

func (b *buffer) bytes() []byte { return b.b[b.r:b.w] }
func (b *buffer) len() int      { return b.w - b.r }

func (b *buffer) consume(n int) {
	if b.r += n; b.r == b.w {
		b.r, b.w = 0, 0
	}
}

// space returns room to read into, at least one byte: it moves what is unused to
// the front, then grows.
func (b *buffer) space() []byte {
	if b.w < len(b.b) {
		return b.b[b.w:]
	}
	if b.r > 0 {
		b.w = copy(b.b, b.b[b.r:b.w])
		b.r = 0
		return b.b[b.w:]
	}
	next := make([]byte, max(firstBuffer, 2*len(b.b)))
	b.w = copy(next, b.b[:b.w])
	b.b = next
	return b.b[b.w:]
}

const (
	// firstBuffer is what an exchange begins with; requests rarely have more.
	firstBuffer = 4 << 10
	// upstreamBuffer takes an ordinary response at once: a head and 16 KB behind it.
	upstreamBuffer = 32 << 10
	// keepBuffer is the most that an exchange keeps in the pool.
	keepBuffer = 64 << 10
)

// responseReader is what a response is read and its head parsed with. It is lent while there is
// something of the response to use, not while that is waited for.
type responseReader struct {
	limits http1.Limits // of the parser
	parser http1.ResponseParser
	memory []byte
}

var responseReaders = sync.Pool{New: func() any {
	r := &responseReader{memory: make([]byte, upstreamBuffer)} // by itself: a little more would take 40 KB
	r.parser.Configure(r.limits)
	return r
}}

// responseBuffer is a buffer whose memory comes from the pool, and with it a parser that is at
// the beginning of a head.
type responseBuffer struct {
	buffer
	lent   *responseReader
	share  fair.Share // of who fills it
	limits http1.Limits
}

// TakeBuffer implements stream.Buffers.
func (b *responseBuffer) TakeBuffer() []byte {
	if b.b == nil {
		r := responseReaders.Get().(*responseReader)
		if r.limits != b.limits {
			r.limits = b.limits
			r.parser.Configure(b.limits)
		}
		r.parser.Reset()
		b.lent, b.b = r, r.memory
	}
	return b.space()
}

// DropBuffer implements stream.Buffers: what comes is about to be waited for.
func (b *responseBuffer) DropBuffer() {
	b.share.Renew()
	if b.w == 0 {
		b.release()
	}
}

// fill reads more from s. Where s can wait without it, no memory is held meanwhile: a
// tunnel or a stream of events waits for most of its life. Over TLS that costs the second
// record of a longer answer an allocation for each time that it is looked for: one that is
// sized, which comes without a pause, is waited for with its memory there.
func (b *responseBuffer) fill(s stream.Stream, sized bool) (n int, err error) {
	b.share.Turn()
	r, ready := s.(stream.ReadyReader)
	if _, secured := s.(*stream.TLS); ready && !(sized && secured) {
		n, err = r.ReadReady(b)
	} else {
		n, err = s.Read(b.TakeBuffer())
	}
	b.w += n
	b.share.Spend(n)
	return n, err
}

// release gives the memory back; whatever was unused is lost.
func (b *responseBuffer) release() {
	if b.lent != nil {
		responseReaders.Put(b.lent)
		b.buffer, b.lent = buffer{}, nil
	}
}

// outgoing is what is to be written. Its memory is lent while there is something in it:
// what all exchanges share stays in the processor's cache, and who waits holds none.
type outgoing struct {
	b    []byte
	lent *[]byte
}

var outgoings = sync.Pool{New: func() any { b := make([]byte, 0, firstBuffer); return &b }}

// take returns what is to be written, to be appended to.
func (o *outgoing) take() []byte {
	if o.lent == nil {
		o.lent = outgoings.Get().(*[]byte)
		o.b = (*o.lent)[:0]
	}
	return o.b
}

// release forgets what was to be written, and gives its memory back.
func (o *outgoing) release() {
	if o.lent == nil {
		return
	}
	if *o.lent = o.b[:0]; cap(o.b) <= keepBuffer {
		outgoings.Put(o.lent)
	}
	*o = outgoing{}
}

package http2

import (
	"sync"

	"github.com/hauberk-mesh/hauberk/sidecar/fair"
)

// inputSize holds any whole frame, and several of the usual size.
const inputSize = 64 << 10

var inputs = sync.Pool{New: func() any { return new([inputSize]byte) }}

// input is what was read and not yet consumed: buf[r:w]. It holds memory only while
// there is something in it. Before its first byte is room for a frame's header.
type input struct {
	buf   *[inputSize]byte
	r, w  int
	share fair.Share // of the reader
}

// TakeBuffer implements stream.Buffers.
func (in *input) TakeBuffer() []byte {
	if in.buf == nil {
		in.buf = inputs.Get().(*[inputSize]byte)
		in.r, in.w = frameHeaderLen, frameHeaderLen
	}
	if in.r > frameHeaderLen {
		in.w = frameHeaderLen + copy(in.buf[frameHeaderLen:], in.buf[in.r:in.w])
		in.r = frameHeaderLen
	}
	return in.buf[in.w:]
}

// DropBuffer implements stream.Buffers: the reader is about to wait.
func (in *input) DropBuffer() {
	in.share.Renew()
	in.release()
}

// release gives the memory back where nothing is in it.
func (in *input) release() {
	if in.buf != nil && in.r == in.w {
		inputs.Put(in.buf)
		in.buf, in.r, in.w = nil, 0, 0
	}
}

func (in *input) bytes() []byte {
	if in.buf == nil {
		return nil
	}
	return in.buf[in.r:in.w]
}

// A received body waits in blocks, filled one after the other: many small frames cost no
// more memory than a large one. What is bulk lies together in larger ones, so that one
// call of the kernel passes on several frames. Of these a connection has as many as its
// window fills: a stream that takes one may fill a part of it only.
const (
	smallBlock = 2 << 10
	largeBlock = 16 << 10
	bulkBlock  = 256 << 10
)

type block struct {
	next *block
	w    int
	b    []byte
	of   *int // for a bulk block, how many more its connection may take
}

var (
	smallBlocks = sync.Pool{New: func() any { return &block{b: make([]byte, smallBlock)} }}
	largeBlocks = sync.Pool{New: func() any { return &block{b: make([]byte, largeBlock)} }}
	bulkBlocks  = sync.Pool{New: func() any { return &block{b: make([]byte, bulkBlock)} }}
)

// takeBlock returns a block for a piece of n bytes; where it is bulk, one of those that
// are left.
func takeBlock(n int, bulk bool, left *int) *block {
	switch {
	case n <= smallBlock:
		return smallBlocks.Get().(*block)
	case bulk && *left > 0:
		*left--
		b := bulkBlocks.Get().(*block)
		b.of = left
		return b
	}
	return largeBlocks.Get().(*block)
}

// free gives the block back. The lock of the connection that it was taken for is held.
func (b *block) free() {
	if b.of != nil {
		*b.of++
		b.of = nil
	}
	b.next, b.w = nil, 0
	switch len(b.b) {
	case smallBlock:
		smallBlocks.Put(b)
	case largeBlock:
		largeBlocks.Put(b)
	case bulkBlock:
		bulkBlocks.Put(b)
	}
}

// received is a stream's body as far as it was not consumed.
type received struct {
	head, tail *block
	off        int // into head
	n          int // bytes
	// bulk: more than two whole frames waited at once, and none that is small came since.
	bulk bool
}

// append takes p in; left is how many bulk blocks the connection may still take.
func (r *received) append(p []byte, left *int) {
	r.n += len(p)
	switch {
	case r.n > 2*largeBlock:
		r.bulk = true
	case r.n <= smallBlock:
		r.bulk = false
	}
	for len(p) > 0 {
		if r.tail == nil || r.tail.w == len(r.tail.b) {
			b := takeBlock(len(p), r.bulk, left)
			if r.tail == nil {
				r.head = b
			} else {
				r.tail.next = b
			}
			r.tail = b
		}
		n := copy(r.tail.b[r.tail.w:], p)
		r.tail.w += n
		p = p[n:]
	}
}

// peek returns the first bytes that lie together.
func (r *received) peek() []byte {
	if r.head == nil {
		return nil
	}
	return r.head.b[r.off:r.head.w]
}

// consume gives back n bytes, which peek returned together.
func (r *received) consume(n int) {
	r.off += n
	r.n -= n
	if r.off < r.head.w {
		return
	}
	b := r.head
	r.head, r.off = b.next, 0
	if r.head == nil {
		r.tail = nil
	}
	b.free()
}

// clear gives back everything.
func (r *received) clear() (n int) {
	n = r.n
	for b := r.head; b != nil; {
		next := b.next
		b.free()
		b = next
	}
	*r = received{}
	return n
}

// outBuffer is memory for frames that wait to be written.
type outBuffer struct{ b []byte }

const (
	outSize = 4 << 10
	// keepOut is the largest that goes back to the pool.
	keepOut = 128 << 10
)

var outBuffers = sync.Pool{New: func() any { return &outBuffer{b: make([]byte, 0, outSize)} }}

func (o *outBuffer) free() {
	if cap(o.b) <= keepOut {
		o.b = o.b[:0]
		outBuffers.Put(o)
	}
}

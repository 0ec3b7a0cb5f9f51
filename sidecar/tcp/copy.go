package tcp

import (
	"sync"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/fair"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// Sizes of copy buffers. A direction begins with a small one; one whose reads
// fill it is given the next, so that bulk costs few system calls and a thousand
// small talkers little memory.
const (
	smallBuffer  = 4 << 10
	mediumBuffer = 16 << 10 // a TLS record
	// Four DATA frames of a tunnel, each a record with its 9 bytes of header (RFC 9113 4.1):
	// what one call of the kernel takes from TLS.
	largeBuffer = 4 * (mediumBuffer - 9)
)

var (
	smallBuffers  = sync.Pool{New: func() any { return new([smallBuffer]byte) }}
	mediumBuffers = sync.Pool{New: func() any { return new([mediumBuffer]byte) }}
	largeBuffers  = sync.Pool{New: func() any { return new([largeBuffer]byte) }}
)

// lease is a pooled buffer that a waiting reader does not hold.
type lease struct {
	size  int
	most  int // bytes of a buffer that are used, 0 for all
	held  any // the array's pointer, as the pool has it
	buf   []byte
	share fair.Share // of the reader
}

// TakeBuffer implements stream.Buffers.
func (l *lease) TakeBuffer() []byte {
	if l.buf == nil {
		switch l.size {
		case smallBuffer:
			b := smallBuffers.Get().(*[smallBuffer]byte)
			l.held, l.buf = b, b[:]
		case mediumBuffer:
			b := mediumBuffers.Get().(*[mediumBuffer]byte)
			l.held, l.buf = b, b[:]
		default:
			b := largeBuffers.Get().(*[largeBuffer]byte)
			l.held, l.buf = b, b[:]
		}
		if l.most > 0 {
			l.buf = l.buf[:min(max(l.most, smallBuffer), len(l.buf))] // a few bytes at a time would cost each one two calls
		}
	}
	return l.buf
}

// DropBuffer implements stream.Buffers: the reader is about to wait.
func (l *lease) DropBuffer() {
	l.share.Renew()
	l.release()
}

func (l *lease) release() {
	switch b := l.held.(type) {
	case *[smallBuffer]byte:
		smallBuffers.Put(b)
	case *[mediumBuffer]byte:
		mediumBuffers.Put(b)
	case *[largeBuffer]byte:
		largeBuffers.Put(b)
	}
	l.held, l.buf = nil, nil
}

// grow has the next read use a larger buffer.
func (l *lease) grow() {
	if l.size < largeBuffer && (l.most == 0 || l.size < l.most) {
		l.release()
		l.size *= 4
	}
}

// filled tells whether a read of n bytes filled the buffer.
func (l *lease) filled(n int) bool { return l.buf != nil && n == len(l.buf) }

// source is what a direction reads from: the stream's own memory where it lends that,
// or the lease's.
type source struct {
	src    stream.Stream
	chunks stream.ChunkReader
	ready  stream.ReadyReader
	lease  *lease
}

func newSource(src stream.Stream, l *lease) source {
	s := source{src: src, lease: l}
	s.chunks, _ = src.(stream.ChunkReader)
	s.ready, _ = src.(stream.ReadyReader)
	return s
}

// next waits for bytes; they are good until the next call.
func (s *source) next() (chunk []byte, err error) {
	var n int
	switch {
	case s.chunks != nil:
		return s.chunks.ReadChunk()
	case s.ready != nil:
		n, err = s.ready.ReadReady(s.lease)
	default:
		n, err = s.src.Read(s.lease.TakeBuffer())
	}
	if n > 0 {
		chunk = s.lease.TakeBuffer()[:n]
	}
	return chunk, err
}

var (
	never = time.Time{}
	past  = time.Unix(1, 0)
)

package tcp

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// bufferSize is one TLS record's worth, so that a record read is a record
// written.
const bufferSize = 16 << 10

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// lease is a pooled buffer that a waiting reader does not hold.
type lease struct{ buf *[bufferSize]byte }

// TakeBuffer implements stream.Buffers.
func (l *lease) TakeBuffer() []byte {
	if l.buf == nil {
		l.buf = buffers.Get().(*[bufferSize]byte)
	}
	return l.buf[:]
}

// DropBuffer implements stream.Buffers.
func (l *lease) DropBuffer() {
	if l.buf != nil {
		buffers.Put(l.buf)
		l.buf = nil
	}
}

// spliceAfter is how much one direction moves through a buffer before the
// kernel takes over: splice pays for bulk only, and costs two pipes' descriptors.
const spliceAfter = 256 << 10

// copyStream copies until src ends. An idle connection holds no buffer.
func copyStream(dst, src stream.Stream, watch *idleWatch) (int64, error) {
	var l lease
	defer l.DropBuffer()
	reader, ready := src.(stream.ReadyReader)
	var total int64
	for {
		var n int
		var err error
		if ready {
			n, err = reader.ReadReady(&l)
		} else {
			n, err = src.Read(l.TakeBuffer())
		}
		if n > 0 {
			watch.touch()
			if _, werr := dst.Write(l.TakeBuffer()[:n]); werr != nil {
				return total, werr
			}
			total += int64(n)
		}
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		if total >= spliceAfter && watch.none() {
			if d, s := rawTCP(dst), rawTCP(src); d != nil && s != nil {
				l.DropBuffer()
				m, err := io.Copy(d, s)
				return total + m, err
			}
		}
	}
}

// rawTCP returns the socket of a plaintext TCP stream. Only then can the kernel
// move bytes itself.
func rawTCP(s stream.Stream) *net.TCPConn {
	sock, ok := s.(*stream.Socket)
	if !ok {
		return nil
	}
	c, _ := sock.Conn().(*net.TCPConn)
	return c
}

// idleWatch ends a connection on which nothing moved for a time, in either
// direction. One timer per connection, never armed per byte.
type idleWatch struct {
	limit time.Duration
	end   func()
	last  atomic.Int64 // nanoseconds since began
	began time.Time
	mu    sync.Mutex
	timer *time.Timer
	done  bool
}

func newIdleWatch(limit time.Duration, end func()) *idleWatch {
	w := &idleWatch{limit: limit, end: end, began: time.Now()}
	if limit > 0 {
		w.timer = time.AfterFunc(limit, w.look)
	}
	return w
}

// none reports that no limit applies.
func (w *idleWatch) none() bool { return w.limit <= 0 }

func (w *idleWatch) touch() {
	if w.limit > 0 {
		w.last.Store(int64(time.Since(w.began)))
	}
}

func (w *idleWatch) look() {
	quiet := time.Since(w.began) - time.Duration(w.last.Load())
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.done:
	case quiet >= w.limit:
		w.done = true
		w.end()
	default:
		w.timer.Reset(w.limit - quiet)
	}
}

func (w *idleWatch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done = true
	if w.timer != nil {
		w.timer.Stop()
	}
}

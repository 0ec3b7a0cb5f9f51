package http2

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// Tunnel is a stream.Stream of an exchange whose heads are done: what follows CONNECT or
// an upgrade. One goroutine may read while another writes. On the server's side it
// ends, at the latest, when the stream is over.
type Tunnel struct {
	s    *Stream
	info *stream.Info

	// The reader's.
	chunk []byte
	last  bool

	mu          sync.Mutex
	closed      bool
	read, write tunnelTimer
}

var (
	_ stream.Stream      = (*Tunnel)(nil)
	_ stream.ReadyReader = (*Tunnel)(nil)
	_ stream.ChunkReader = (*Tunnel)(nil)
	_ stream.Pollable    = (*Tunnel)(nil)
	_ stream.Pourer      = (*Tunnel)(nil)
	_ stream.Aborter     = (*Tunnel)(nil)
)

// NewTunnel makes a byte stream of s. With a nil info it has the connection's.
func NewTunnel(s *Stream, info *stream.Info) *Tunnel {
	if info == nil {
		info = s.Info()
	}
	t := &Tunnel{s: s, info: info}
	t.read.interrupt, t.write.interrupt = (*Stream).stopReading, (*Stream).stopWriting
	return t
}

func (s *Stream) stopReading(on bool) { s.stop(true, false, on) }
func (s *Stream) stopWriting(on bool) { s.stop(false, true, on) }

// Read implements stream.Stream. It takes all that has arrived, as a socket does.
func (t *Tunnel) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := t.more(); err != nil {
		return 0, err
	}
	n := 0
	for {
		k := copy(p[n:], t.chunk)
		t.chunk = t.chunk[k:]
		if n += k; n == len(p) || t.last || !t.s.Ready() {
			return n, nil
		}
		if t.more() != nil {
			return n, nil // it shows again
		}
	}
}

// ReadChunk implements stream.ChunkReader.
func (t *Tunnel) ReadChunk() ([]byte, error) {
	if err := t.more(); err != nil {
		return nil, err
	}
	chunk := t.chunk
	t.chunk = nil
	return chunk, nil
}

// more waits until there is something to read.
func (t *Tunnel) more() error {
	for len(t.chunk) == 0 {
		if t.last {
			return io.EOF
		}
		var err error
		if t.chunk, t.last, err = t.s.Next(); err != nil {
			return tunnelError(err)
		}
	}
	return nil
}

// ReadReady implements stream.ReadyReader.
func (t *Tunnel) ReadReady(in stream.Buffers) (int, error) {
	if len(t.chunk) == 0 {
		in.DropBuffer()
	}
	if err := t.more(); err != nil {
		return 0, err
	}
	return t.Read(in.TakeBuffer())
}

// Pollable implements stream.Pollable: the connection's reader wakes, or whoever ends
// the stream.
func (t *Tunnel) Pollable(w *stream.Watch) (syscall.RawConn, bool) {
	return nil, len(t.chunk) == 0 && !t.last && t.s.park(w)
}

// Write implements stream.Stream.
func (t *Tunnel) Write(p []byte) (int, error) {
	for n := 0; ; {
		// In pieces, so that the count is not far off when it ends early; each fills a
		// record of TLS with its frame's header.
		k := min(len(p)-n, maxFrameSize-frameHeaderLen)
		if err := t.s.WriteData(p[n:n+k], false); err != nil {
			return n, tunnelError(err)
		}
		if n += k; n == len(p) {
			return n, tunnelError(t.s.Flush())
		}
	}
}

// CloseWrite implements stream.Stream: END_STREAM.
func (t *Tunnel) CloseWrite() error {
	err := t.s.WriteData(nil, true)
	if errors.Is(err, ErrClosed) {
		return nil
	}
	if err != nil {
		return tunnelError(err)
	}
	return tunnelError(t.s.Flush())
}

// Close implements stream.Stream. It resets what is not over in both directions; the
// stream itself remains its owner's to give back.
func (t *Tunnel) Close() error {
	t.end(Cancel)
	return nil
}

// Abort implements stream.Aborter: what lies behind the tunnel was lost (RFC 9113 8.5).
func (t *Tunnel) Abort() { t.end(ConnectError) }

func (t *Tunnel) end(code Code) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	t.closed = true
	t.read.stop()
	t.write.stop()
	t.s.Reset(code)
}

// SetDeadline implements stream.Stream.
func (t *Tunnel) SetDeadline(d time.Time) error {
	if err := t.SetReadDeadline(d); err != nil {
		return err
	}
	return t.SetWriteDeadline(d)
}

// SetReadDeadline implements stream.Stream.
func (t *Tunnel) SetReadDeadline(d time.Time) error { return t.setDeadline(&t.read, d) }

// SetWriteDeadline implements stream.Stream.
func (t *Tunnel) SetWriteDeadline(d time.Time) error { return t.setDeadline(&t.write, d) }

func (t *Tunnel) setDeadline(tt *tunnelTimer, d time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return os.ErrClosed
	}
	tt.set(t, d)
	return nil
}

// Release closes the tunnel and gives its stream back, which was kept. No other call may
// be under way, and none but Close may follow.
func (t *Tunnel) Release() {
	_ = t.Close()
	t.s.Close()
}

// Info implements stream.Stream.
func (t *Tunnel) Info() *stream.Info { return t.info }

// tunnelError says ErrClosed as other streams do.
func tunnelError(err error) error {
	if errors.Is(err, ErrClosed) {
		return os.ErrClosed
	}
	return err
}

// tunnelTimer is one direction's deadline. A timer is made only for one that lies ahead.
type tunnelTimer struct {
	interrupt  func(s *Stream, on bool)
	timer      *time.Timer
	generation int
}

func (t *tunnelTimer) stop() {
	t.generation++
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
}

// set arms the deadline; the tunnel's lock is held.
func (t *tunnelTimer) set(of *Tunnel, d time.Time) {
	t.stop()
	wait := time.Until(d)
	past := !d.IsZero() && wait <= 0
	t.interrupt(of.s, past)
	if past || d.IsZero() {
		return
	}
	mine, c := t.generation, of.s.c // the stream may be another's when the time has come
	t.timer = time.AfterFunc(wait, func() {
		defer panics.Contain(panics.Timer, c, nil)
		of.mu.Lock()
		defer of.mu.Unlock()
		if t.generation == mine {
			t.interrupt(of.s, true)
		}
	})
}

// Package record is the record protocol of TLS 1.3 (RFC 8446 5) from the end of a handshake
// on, which crypto/tls makes. crypto/tls does this as well, but with an allocation and two
// copies for each record, a buffer that is kept for as long as the connection lives, and
// answers to the peer that are written by who reads.
package record

import (
	"crypto/fips140"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Buffers lend the memory that is read into, as those of package stream do.
type Buffers interface {
	TakeBuffer() []byte
	DropBuffer()
}

// Transport is the connection below.
type Transport interface {
	// ReadLent reads what has arrived into the memory that b lends, and drops that before it
	// waits. ErrWouldBlock and os.ErrDeadlineExceeded are not the end, any other error is.
	ReadLent(b Buffers) (int, error)
	// Write writes all of p, or fails for good, and counts what has left. Without p it
	// writes what was kept.
	Write(p []byte) (int, error)
	// WriteLater writes what can be written of p at once, and keeps the rest for the next
	// Write. It never waits; where that would be needed, p is dropped.
	WriteLater(p []byte)
	SetDeadline(t time.Time) error
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
	Close() error
}

// ErrWouldBlock is that nothing is there to be read. It is temporary in net.Error's sense, so that
// crypto/tls does not take it for the end of a connection either.
var ErrWouldBlock error = wouldBlock{}

type wouldBlock struct{}

func (wouldBlock) Error() string   { return "nothing to read" }
func (wouldBlock) Timeout() bool   { return true }
func (wouldBlock) Temporary() bool { return true }

// Conn is a connection whose handshake is over. One goroutine reads at a time; any number may
// write beside it, and close.
type Conn struct {
	Transport
	client bool
	in     opener
	out    sealer
	closed atomic.Bool
}

// ErrNotHere is that crypto/tls has to go on with a connection: it is none of TLS 1.3 with
// AES-GCM, or the program is bound to FIPS 140-3, for which the nonces of a module are its own.
var ErrNotHere = errors.New("record: not a connection of TLS 1.3 with AES-GCM")

// New takes over a connection from crypto/tls, which must have read nothing after the
// handshake's last record, nor have written anything: a server with session tickets has.
// It takes the secrets, of which nothing is left in s.
func New(below Transport, state tls.ConnectionState, client bool, s *Secrets) (*Conn, error) {
	defer s.Forget()
	suite := suites[state.CipherSuite]
	if state.Version != tls.VersionTLS13 || suite == nil || fips140.Enabled() {
		return nil, ErrNotHere
	}
	size := suite.hash().Size()
	if s.client.length != size || s.server.length != size {
		return nil, ErrNotHere
	}
	c := &Conn{Transport: below, client: client}
	read, write := &s.client, &s.server
	if client {
		read, write = write, read
	}
	if err := errors.Join(c.in.start(suite, read), c.out.start(suite, write)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotHere, err)
	}
	return c, nil
}

const (
	headerSize = 5
	// maxPlain and maxCipher are the most that a record carries, and has after its header
	// (RFC 8446 5.1, 5.2).
	maxPlain  = 16 << 10
	maxCipher = maxPlain + 256
	// sealedSize has room for the longest record that is written: it has no padding.
	sealedSize = headerSize + maxPlain + 1 + tagSize
	// gathered is how many records of one Write leave together.
	gathered   = 4
	gatherSize = gathered * sealedSize
	// readSize is how much is read at once: two of the longest records, and what the memory
	// of those has besides.
	readSize = 40 << 10
)

var (
	readBuffers   = sync.Pool{New: func() any { return new([readSize]byte) }}
	sealedBuffers = sync.Pool{New: func() any { return new([sealedSize]byte) }}
	gatherBuffers = sync.Pool{New: func() any { return new([gatherSize]byte) }}
)

// contentType is RFC 8446 B.1's.
type contentType byte

const (
	typeChangeCipherSpec contentType = 20
	typeAlert            contentType = 21
	typeHandshake        contentType = 22
	typeData             contentType = 23
)

// Alerts (RFC 8446 6).
const (
	alertCloseNotify       = 0
	alertUnexpectedMessage = 10
	alertBadRecordMAC      = 20
	alertRecordOverflow    = 22
	alertIllegalParameter  = 47
	alertProtocolVersion   = 70
	alertInternalError     = 80
	alertUserCanceled      = 90
)

// Write implements io.Writer: n counts what is in records that were written whole. After an
// error nothing more can be written.
func (c *Conn) Write(p []byte) (n int, err error) {
	c.out.mu.Lock()
	defer c.out.unlock(c.Transport)
	for n < len(p) {
		if err := c.ready(); err != nil {
			return n, err
		}
		m, err := c.out.data(c.Transport, p[n:min(len(p), n+gathered*maxPlain)])
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// ready is called before data is written: an answer to the peer's update goes first, and a
// worn key is left.
func (c *Conn) ready() error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	if err := c.out.failure(); err != nil {
		return err
	}
	if c.out.owed.Load() || c.out.sequence >= c.out.most {
		c.out.owed.Store(false)
		return c.out.updateKey(c.Transport)
	}
	return nil
}

// lastWords is how long the peer may take for the end of what is said to it.
const lastWords = 5 * time.Second

// CloseWrite says that no more follows. It is said once.
func (c *Conn) CloseWrite() error {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	_ = c.SetWriteDeadline(time.Now().Add(lastWords))
	return c.out.closeNotify(c.Transport)
}

// Close implements net.Conn: it says so to the peer, unless somebody is writing, and closes
// the connection below. Who reads or writes is woken.
func (c *Conn) Close() error {
	if c.closed.Swap(true) {
		return net.ErrClosed
	}
	var said error
	if c.out.mu.TryLock() {
		said = c.out.closeNotify(c.Transport)
		c.out.mu.Unlock()
	}
	if err := c.Transport.Close(); err != nil {
		return err
	}
	return said
}

// Holds tells whether there is something that was received and not read yet: bytes, or the end.
func (c *Conn) Holds() bool { return len(c.in.plain) > 0 || c.in.at < len(c.in.buf) || c.in.err != nil }

// refuse ends both directions for what the peer has sent. It is told why, by who is writing if
// somebody is: who reads waits for nobody.
func (c *Conn) refuse(alert byte) error {
	f := &fault{alert, &net.OpError{Op: "local error", Err: tls.AlertError(alert)}}
	c.in.err = f.err
	c.out.fault.Store(f)
	if c.out.mu.TryLock() {
		c.out.unlock(c.Transport)
	}
	return f.err
}

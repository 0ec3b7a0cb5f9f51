package stream

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unique"

	"github.com/hauberk-mesh/hauberk/internal/altname"
	"github.com/hauberk-mesh/hauberk/internal/handshake"
	"github.com/hauberk-mesh/hauberk/internal/peercert"
	"github.com/hauberk-mesh/hauberk/sidecar/record"
)

// TLS is a stream over TLS on a socket.
type TLS struct {
	// tls makes the handshake, and is nil once another has taken over from it.
	tls     *tls.Conn
	records recordLayer
	raw     *recordConn
	client  bool
	info    *Info
	// one holds the byte that woke a waiting reader until it is delivered, and
	// full tells that tls.Conn may hold more of what was last decrypted.
	one  [1]byte
	have bool
	full bool
	// over: the end was read, perhaps with the last bytes.
	over bool
	// keep: Info is to have the peer's certificates.
	keep bool
	// foreign: Info is to have the peer's names.
	foreign bool
	// pinned: the peer was accepted for what its certificate is, whenever that ends.
	pinned bool
	// peer keeps the texts that Info has of it.
	peer unique.Handle[peerTexts]
	// signer is the anchor's key, from the verdict on the peer until the handshake ends.
	signer string
	// watch is the last wait for the socket.
	watch    atomic.Pointer[Watch]
	exchange tlsExchange
}

// ServerTLS and ClientTLS wrap a socket; Handshake must follow. prefix are bytes
// that an inspector read already.
func ServerTLS(c Conn, prefix []byte, cfg *tls.Config) (*TLS, error) {
	return newTLS(c, prefix, cfg, false)
}

// ClientTLS is ServerTLS for the other side.
func ClientTLS(c Conn, cfg *tls.Config) (*TLS, error) {
	return newTLS(c, nil, cfg, true)
}

func newTLS(c Conn, prefix []byte, cfg *tls.Config, client bool) (*TLS, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	rc := &recordConn{Conn: c, raw: raw, prefix: prefix}
	rc.w.once = rc.writeOnce
	rc.tryRead, rc.waitRead, rc.tryPeek = rc.readNow, rc.readOnce, rc.peekNow
	t := &TLS{raw: rc, client: client}
	wrap := tls.Server
	if client {
		wrap = tls.Client
	}
	rc.shaking = new(shaking)
	t.tls = wrap(rc, handshake.Listen(cfg, &rc.shaking.secrets, t.accepted))
	t.records = library{t.tls, rc}
	return t, nil
}

// accepted is told the certificates by which the peer was accepted, within the handshake.
func (t *TLS) accepted(chain []*x509.Certificate, pinned bool) {
	t.signer, t.pinned = SignerKey(chain[len(chain)-1]), pinned
	if t.keep && len(chain) > 1 {
		t.raw.shaking.issuer = chain[1]
	}
}

// recordLayer protects what is read and written (RFC 8446 5).
type recordLayer interface {
	io.ReadWriteCloser
	CloseWrite() error
	SetDeadline(time.Time) error
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// SignerKey names the key of a certificate that peers are accepted by, whatever carries
// it: the SHA-256 of the SubjectPublicKeyInfo.
func SignerKey(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return string(sum[:])
}

// Handshake completes the handshake and the Info, to which the caller may have
// added nothing yet. It grows the stack: a server lets it run on a goroutine of
// its own and serves the connection on a fresh one.
func (t *TLS) Handshake(ctx context.Context) error {
	if err := t.tls.HandshakeContext(ctx); err != nil {
		t.raw.shaking.secrets.Forget()
		return err
	}
	t.info, t.peer = tlsInfo(t.tls, t.raw, t.signer)
	t.signer = "" // Info shares it with the peer's other connections
	if t.pinned {
		t.ForgetExpiry()
	}
	if own := t.raw.own; own != nil {
		t.info.OwnID, t.info.own = own.ID, own
	}
	if t.keep {
		t.info.PeerChain = t.tls.ConnectionState().PeerCertificates
		t.info.Peer = peercert.Of(t.info.PeerChain).WithIssuer(t.raw.shaking.issuer)
	}
	if t.foreign {
		t.info.Peer = t.info.Peer.WithNames(t.tls.ConnectionState().PeerCertificates)
	}
	t.protect()
	return nil
}

// protect takes the connection over from crypto/tls, where that is possible.
func (t *TLS) protect() {
	own, err := record.New(t.raw, t.tls.ConnectionState(), t.client, &t.raw.shaking.secrets)
	t.raw.shaken()
	if err != nil || !untouched(t.tls) {
		releaseHandshake(t.tls)
		return
	}
	t.records, t.tls = own, nil
}

// peerTexts are what a certificate tells of a peer. All connections of the peer share them.
type peerTexts struct{ id, certHash, signer string }

func tlsInfo(c *tls.Conn, raw net.Conn, signer string) (*Info, unique.Handle[peerTexts]) {
	st := c.ConnectionState()
	i := &Info{
		Local: raw.LocalAddr(), Remote: raw.RemoteAddr(),
		TLS: true, TLSVersion: st.Version, CipherSuite: st.CipherSuite, ALPN: st.NegotiatedProtocol,
		Group: uint16(st.CurveID),
		// A host name has no case (RFC 6066 3), and rules compare bytes.
		SNI: strings.ToLower(st.ServerName),
	}
	var p peerTexts
	if len(st.PeerCertificates) > 0 {
		leaf := st.PeerCertificates[0]
		i.PeerNotAfter = leaf.NotAfter
		p.signer = signer
		sum := sha256.Sum256(leaf.Raw)
		p.certHash = hex.EncodeToString(sum[:])
		if uris := altname.URIs(leaf); len(uris) == 1 {
			p.id = uris[0]
		}
	}
	shared := unique.Make(p)
	p = shared.Value()
	i.PeerID, i.PeerCertHash, i.PeerSigner = p.id, p.certHash, p.signer
	return i, shared
}

// KeepPeerChain has Info keep the peer's certificates. It is called before Handshake.
func (t *TLS) KeepPeerChain() { t.keep = true }

// KeepPeerNames has Info keep the names that a foreign TLS context knows the peer by. It
// is called before Handshake.
func (t *TLS) KeepPeerNames() { t.foreign = true }

// SetOwnID notes the identity presented, where the handshake does not tell it. It is
// called before the stream is handed on.
func (t *TLS) SetOwnID(id string) { t.info.OwnID = id }

// SetOwn is SetOwnID with what else is known of the certificate.
func (t *TLS) SetOwn(own *handshake.Own) {
	t.info.OwnID = own.ID
	if own.Certificate != nil {
		t.info.own = own
	}
}

// ForgetExpiry takes back when the peer's certificate expires, where that is not asked. It is
// called before the stream is handed on.
func (t *TLS) ForgetExpiry() { t.info.PeerNotAfter = time.Time{} }

// ForgetPeer takes back what the handshake said of the peer, where nothing vouches
// for it. It is called before the stream is handed on.
func (t *TLS) ForgetPeer() {
	t.info.PeerID, t.info.PeerCertHash, t.info.PeerSigner, t.info.PeerNotAfter = "", "", "", time.Time{}
	t.info.PeerChain, t.info.Peer = nil, nil
	if t.foreign {
		t.info.Peer = t.info.Peer.WithNames(nil)
	}
}

// SetRemote notes the client that a proxy in front has told of. It is called
// before the stream is handed on.
func (t *TLS) SetRemote(remote net.Addr) {
	t.info.Remote, t.info.Direct = remote, t.raw.RemoteAddr()
}

// Read implements Stream.
func (t *TLS) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if t.have {
		p[0] = t.one[0]
		t.have = false
		return 1, nil
	}
	n, err := t.records.Read(p)
	t.full = n == len(p)
	t.over = err == io.EOF
	return n, err
}

// ReadReady implements ReadyReader: the wait is for a first byte, which needs no
// buffer; the rest of its record is then there without waiting, and so are the records
// that came with it: what arrived together is passed on together.
func (t *TLS) ReadReady(in Buffers) (int, error) {
	if !t.have && t.full {
		// There may be more of the last record, or nothing: then this waits like any other.
		n, err := t.readNow(t.one[:])
		if n == 0 && err != record.ErrWouldBlock {
			return 0, err
		}
		t.have = n > 0
		t.raw.ahead += n // the rest of a record, besides those that are whole
	}
	if !t.have {
		t.raw.in = in
		n, err := t.records.Read(t.one[:])
		t.raw.in = nil
		if n == 0 {
			if err == nil {
				err = io.ErrNoProgress
			}
			return 0, err
		}
	}
	buf := in.TakeBuffer()
	buf[0], t.have, t.full = t.one[0], false, true
	n := 1
	for n < len(buf) {
		t.raw.ahead--
		m, err := t.readNow(buf[n:])
		n += m
		if err != nil || t.raw.ahead <= 0 {
			break // the next read reports an error
		}
	}
	return n, nil
}

// readNow reads what has been decrypted, or arrived, and does not wait.
func (t *TLS) readNow(p []byte) (int, error) {
	t.raw.nowait = true
	n, err := t.records.Read(p)
	t.raw.nowait = false
	t.full = n == len(p)
	t.over = err == io.EOF
	return n, err
}

// Write implements Stream. With an error n is more than 0 where the peer may have read
// any of p.
func (t *TLS) Write(p []byte) (n int, err error) {
	if t.tls != nil {
		t.raw.writers.Add(1)
		defer t.raw.writers.Add(-1)
	}
	if len(p) == 0 {
		return t.raw.Write(nil) // what TryWrite kept
	}
	return t.records.Write(p)
}

// TryWrite implements TryWriter: records that were begun are kept where the socket does
// not take all of them, and go out before anything else.
func (t *TLS) TryWrite(p []byte) (n int, done bool, err error) {
	if t.tls != nil {
		t.raw.writers.Add(1)
		defer t.raw.writers.Add(-1)
	}
	for n < len(p) {
		piece := p[n:min(len(p), n+gatherSize)]
		if ok, err := t.raw.beginTry(n > 0); !ok {
			return n, false, err
		}
		m, err := t.records.Write(piece)
		n += m
		if err != nil {
			_, _ = t.raw.endTry()
			return n, false, err
		}
	}
	done, err = t.raw.endTry()
	return n, done, err
}

// CloseWrite implements Stream: close_notify, then FIN.
func (t *TLS) CloseWrite() error {
	if t.tls != nil {
		t.raw.writers.Add(1)
		defer t.raw.writers.Add(-1)
	}
	if err := t.records.CloseWrite(); err != nil {
		return err
	}
	return t.raw.CloseWrite()
}

// lastWords is how long a peer may take for the end of what is said to it.
const lastWords = 5 * time.Second

// Close implements Stream.
func (t *TLS) Close() error {
	// Who reads may be at the answer to a key update, which the peer does not take: for that
	// crypto/tls would wait before it sets a time for its own last words.
	_ = t.raw.SetWriteDeadline(time.Now().Add(lastWords))
	err := t.records.Close()
	t.watch.Load().Wake()
	return err
}

// closeNow is Close for CloseNow.
func (t *TLS) closeNow() (err error) {
	if t.raw.hurry() {
		err = t.records.Close()
	} else {
		err = t.raw.Conn.Close() // in the middle of a record nothing more can be said
	}
	t.watch.Load().Wake()
	return err
}

// Abort implements Aborter.
func (t *TLS) Abort() {
	abort(t.raw.Conn)
	t.watch.Load().Wake()
}

// SetDeadline implements Stream.
func (t *TLS) SetDeadline(d time.Time) error { return t.records.SetDeadline(d) }

// SetReadDeadline implements Stream.
func (t *TLS) SetReadDeadline(d time.Time) error { return t.records.SetReadDeadline(d) }

// SetWriteDeadline implements Stream.
func (t *TLS) SetWriteDeadline(d time.Time) error { return t.records.SetWriteDeadline(d) }

// Info implements Stream.
func (t *TLS) Info() *Info { return t.info }

// Quiet implements Prober. Bytes that wait at the socket may be a record that
// means nothing to us (a key update): TLS reads it before we judge. So it does where it
// may hold more of the last record than there was room for.
func (t *TLS) Quiet() bool {
	if t.have {
		return false
	}
	if !t.unread() && t.raw.quiet() {
		return true
	}
	t.raw.tryOnly(true) // nobody's time runs here: what the peer makes us answer is not waited for
	n, err := t.readNow(t.one[:])
	t.raw.tryOnly(false)
	t.have = n > 0
	return n == 0 && err == record.ErrWouldBlock
}

// unread tells whether something may have been received and not read yet.
func (t *TLS) unread() bool {
	if own, ok := t.records.(*record.Conn); ok {
		return own.Holds() || len(t.raw.prefix) > 0
	}
	return t.full || t.raw.leftover
}

// Pollable implements Pollable: nothing may be held that was received and not read.
func (t *TLS) Pollable(w *Watch) (syscall.RawConn, bool) {
	t.watch.Store(w)
	if !t.Quiet() {
		return nil, false
	}
	if t.tls != nil {
		releaseBuffers(t.tls)
	}
	return t.raw.raw, true
}

func (t *TLS) socket() syscall.RawConn { return t.raw.raw }

// Gone implements Prober.
func (t *TLS) Gone() bool { return gone(t.raw.raw) }

// recordConn is the socket below a tls.Conn. It can refuse to wait, and knows
// whether it delivered more than one whole record at once, in which case
// tls.Conn holds ciphertext that no poll of the socket would show.
type recordConn struct {
	Conn
	raw    syscall.RawConn
	prefix []byte
	nowait bool
	// leftover: the last read ended elsewhere than at the end of the one
	// record it completed. need is what is missing of the current record,
	// header counts the bytes of its header seen, size its length so far.
	leftover bool
	need     int
	header   int
	size     int
	// ahead is how many whole records tls.Conn was given and was not asked for yet. It is
	// too high after one that carried no data, until the socket is read again.
	ahead int
	// drained: the last read left nothing in the socket.
	drained bool
	// in is dropped before a wait for bytes, during ReadReady, as is lent, which is read into
	// during ReadLent.
	in   Buffers
	lent record.Buffers
	// shaking is the state of the handshake; nil after it.
	shaking *shaking

	// The callbacks are made once; the rest is their state.
	tryRead, tryPeek func(fd uintptr)
	waitRead         func(fd uintptr) bool

	one   [1]byte
	buf   []byte
	n     int
	errno syscall.Errno

	// each is set during ReadEach, whose read of the socket this is then a part of: once
	// that is drained there is nothing more to be had before the next wait.
	each *eachReader
	fd   uintptr

	w     recordWriter
	reset resetSeen
	own   *handshake.Own // who was presented, where the handshake told
	// hurried: the connection is being closed, and no write waits any more.
	hurried atomic.Bool
	// writers counts who is at a write of the stream, and led tells that a leader reads it:
	// with crypto/tls's records, which may write for a read.
	writers atomic.Int32
	led     atomic.Bool
}

// taken notes, during ReadEach, that tls.Conn gave all of a record, and tells whether nothing
// more is to be had of it before the socket has more.
func (c *recordConn) taken() (all bool) {
	c.ahead--
	return c.ahead <= 0 && c.drained
}

// Presented implements handshake.Listener.
func (c *recordConn) Presented(own *handshake.Own) { c.own = own }

// ReadLent implements record.Transport.
func (c *recordConn) ReadLent(b record.Buffers) (int, error) {
	c.lent = b
	n, err := c.Read(nil)
	c.lent = nil
	return n, err
}

// Read implements net.Conn, for crypto/tls.
func (c *recordConn) Read(p []byte) (int, error) {
	c.ahead = 0 // or else nobody would read
	if c.shaking != nil {
		return c.readShaking(p)
	}
	return c.read(p)
}

func (c *recordConn) read(p []byte) (int, error) {
	if len(c.prefix) > 0 {
		if c.lent != nil {
			p = c.lent.TakeBuffer()
		}
		n := copy(p, c.prefix)
		c.prefix = c.prefix[n:]
		c.track(p[:n])
		return n, nil
	}
	p, err := c.receive(p)
	if err != nil {
		return 0, err
	}
	c.track(p)
	return len(p), nil
}

// receive reads from the socket, into p or what is lent.
func (c *recordConn) receive(p []byte) ([]byte, error) {
	c.buf = p
	var err error
	switch {
	case c.each != nil && c.drained:
		c.errno = syscall.EAGAIN
	case c.each != nil:
		c.borrow()
		c.n, c.drained, c.errno = c.each.recv(c.fd, c.buf)
	case c.nowait:
		err = c.raw.Control(c.tryRead)
	default:
		err = c.raw.Read(c.waitRead)
	}
	p, c.buf = c.buf, nil
	switch {
	case err != nil:
		return nil, err
	case c.errno == syscall.EAGAIN:
		return nil, record.ErrWouldBlock
	case c.errno != 0:
		return nil, opError("read", c.RemoteAddr(), c.errno)
	case c.n == 0:
		return nil, c.reset.end(c.raw, c.RemoteAddr())
	}
	return p[:c.n], nil
}

// borrow has the memory that is read into.
func (c *recordConn) borrow() {
	if c.lent != nil {
		c.buf = c.lent.TakeBuffer()
	}
}

func (c *recordConn) readNow(fd uintptr) {
	c.borrow()
	c.n, c.errno = recv(fd, c.buf, syscall.MSG_DONTWAIT)
	c.drained = c.n < len(c.buf)
}

func (c *recordConn) readOnce(fd uintptr) bool {
	c.readNow(fd)
	if c.errno != syscall.EAGAIN {
		return true
	}
	if c.in != nil {
		c.in.DropBuffer()
	}
	if c.lent != nil {
		c.buf = nil // it is another's by then
		c.lent.DropBuffer()
	}
	return false
}

func (c *recordConn) peekNow(fd uintptr) {
	c.n, c.errno = recv(fd, c.one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
}

func (c *recordConn) quiet() bool {
	err := c.raw.Control(c.tryPeek)
	return err == nil && c.errno == syscall.EAGAIN
}

// track follows the record boundaries (RFC 8446 5.1: type, version, length).
func (c *recordConn) track(p []byte) {
	ended := 0
	for len(p) > 0 {
		if c.header < 5 {
			switch c.header {
			case 3:
				c.size = int(p[0]) << 8
			case 4:
				c.size |= int(p[0])
				c.need = c.size
			}
			c.header++
			p = p[1:]
		} else {
			n := min(c.need, len(p))
			c.need -= n
			p = p[n:]
		}
		if c.header == 5 && c.need == 0 {
			c.header = 0
			ended++
		}
	}
	c.leftover = c.header != 0 || ended != 1
	c.ahead += ended
}

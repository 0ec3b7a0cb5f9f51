package stream

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"reflect"
	"unsafe"
)

// library is the record layer of crypto/tls, which goes on with what package record does not
// take over: TLS 1.2, and ChaCha20-Poly1305.
type library struct {
	*tls.Conn
	raw *recordConn
}

// Write has the records of a long write leave together, which crypto/tls writes one by one.
func (l library) Write(p []byte) (n int, err error) {
	if len(p) <= recordSize {
		return l.Conn.Write(p)
	}
	for n < len(p) {
		piece := p[n:min(len(p), n+gatherSize)]
		l.raw.gather(len(piece))
		m, err := l.Conn.Write(piece)
		left := l.raw.gathered()
		if err != nil {
			return n + min(m, left), err // records that did not leave were not written
		}
		n += len(piece)
	}
	return n, nil
}

// A tls.Conn keeps the buffers of its largest record, and those of its handshake,
// for as long as it lives: more than all that an idle connection needs besides.
// Package crypto/tls has no call that gives them back, so they are found by
// reflection, once, and only when they are what this code was written for. With a
// crypto/tls that looks different nothing is given back, and nothing breaks.
var tlsBuffers = findBuffers()

type bufferOffsets struct {
	raw, hand, input uintptr
	certs, chains    uintptr
	ok               bool
	// reads and writes are where its numbers of the next records are, known if they are.
	reads, writes uintptr
	known         bool
}

func findBuffers() (o bufferOffsets) {
	t := reflect.TypeFor[tls.Conn]()
	raw, ok1 := t.FieldByName("rawInput")
	hand, ok2 := t.FieldByName("hand")
	input, ok3 := t.FieldByName("input")
	certs, ok4 := t.FieldByName("peerCertificates")
	chains, ok5 := t.FieldByName("verifiedChains")
	if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || raw.Type != reflect.TypeFor[bytes.Buffer]() ||
		hand.Type != reflect.TypeFor[bytes.Buffer]() || input.Type != reflect.TypeFor[bytes.Reader]() ||
		certs.Type != reflect.TypeFor[[]*x509.Certificate]() || chains.Type != reflect.TypeFor[[][]*x509.Certificate]() {
		return o
	}
	o = bufferOffsets{raw: raw.Offset, hand: hand.Offset, input: input.Offset, certs: certs.Offset, chains: chains.Offset, ok: true}
	in, ok1 := t.FieldByName("in")
	out, ok2 := t.FieldByName("out")
	if !ok1 || !ok2 || in.Type != out.Type {
		return o
	}
	seq, ok := in.Type.FieldByName("seq")
	if o.known = ok && seq.Type == reflect.TypeFor[[8]byte](); o.known {
		o.reads, o.writes = in.Offset+seq.Offset, out.Offset+seq.Offset
	}
	return o
}

// untouched tells whether a connection has neither read nor written with the keys that follow
// the handshake: who goes on with them begins with record 0, and no number may be used twice.
func untouched(c *tls.Conn) bool {
	if !tlsBuffers.ok || !tlsBuffers.known {
		return false
	}
	base := unsafe.Pointer(c)
	return *(*[8]byte)(unsafe.Add(base, tlsBuffers.reads)) == [8]byte{} && *(*[8]byte)(unsafe.Add(base, tlsBuffers.writes)) == [8]byte{} &&
		(*bytes.Buffer)(unsafe.Add(base, tlsBuffers.raw)).Len() == 0 && (*bytes.Buffer)(unsafe.Add(base, tlsBuffers.hand)).Len() == 0 &&
		(*bytes.Reader)(unsafe.Add(base, tlsBuffers.input)).Len() == 0
}

// releaseHandshake drops the peer's certificates, of which Info has what is needed:
// parsed, they are 2 KB each, and crypto/tls keeps them for each connection.
func releaseHandshake(c *tls.Conn) {
	if !tlsBuffers.ok {
		return
	}
	base := unsafe.Pointer(c)
	*(*[]*x509.Certificate)(unsafe.Add(base, tlsBuffers.certs)) = nil
	*(*[][]*x509.Certificate)(unsafe.Add(base, tlsBuffers.chains)) = nil
}

// releaseBuffers drops the buffers of a connection that hold nothing. No read may
// be under way; a write may, since none of them is a writer's.
func releaseBuffers(c *tls.Conn) {
	if !tlsBuffers.ok {
		return
	}
	base := unsafe.Pointer(c)
	raw := (*bytes.Buffer)(unsafe.Add(base, tlsBuffers.raw))
	hand := (*bytes.Buffer)(unsafe.Add(base, tlsBuffers.hand))
	input := (*bytes.Reader)(unsafe.Add(base, tlsBuffers.input))
	if input.Len() > 0 {
		return // it reads from raw
	}
	*input = bytes.Reader{}
	if raw.Len() == 0 {
		*raw = bytes.Buffer{}
	}
	if hand.Len() == 0 {
		*hand = bytes.Buffer{}
	}
}

// heldBack is what a connection has received of the records behind the one that was read last; known
// says that all of that one was read. No read may be under way.
func heldBack(c *tls.Conn) (ahead []byte, known bool) {
	if !tlsBuffers.ok {
		return nil, false
	}
	base := unsafe.Pointer(c)
	known = (*bytes.Reader)(unsafe.Add(base, tlsBuffers.input)).Len() == 0 && (*bytes.Buffer)(unsafe.Add(base, tlsBuffers.hand)).Len() == 0
	return (*bytes.Buffer)(unsafe.Add(base, tlsBuffers.raw)).Bytes(), known
}

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
	return bufferOffsets{raw: raw.Offset, hand: hand.Offset, input: input.Offset, certs: certs.Offset, chains: chains.Offset, ok: true}
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

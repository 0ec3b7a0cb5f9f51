package record

import (
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"encoding/binary"
	"hash"

	"github.com/hauberk-mesh/hauberk/sidecar/record/gcm"
)

// suite is a cipher suite of TLS 1.3 (RFC 8446 B.4).
type suite struct {
	hash      func() hash.Hash
	keyLength int
}

// suites are those of AES-GCM. Connections of ChaCha20-Poly1305 stay with crypto/tls.
var suites = map[uint16]*suite{
	tls.TLS_AES_128_GCM_SHA256: {sha256.New, 16},
	tls.TLS_AES_256_GCM_SHA384: {sha512.New384, 32},
}

// mostRecords is how many records one key protects: less than the 2^24.5 full ones after which
// AES-GCM is no longer what it promises (RFC 8446 5.5).
const mostRecords = 1 << 24

const (
	nonceSize = gcm.NonceSize // iv_length of both suites
	tagSize   = gcm.TagSize   // and what their AEAD adds
)

// protection is one direction of a connection: its key, and the number of the record that is next.
type protection struct {
	suite    *suite
	secret   secret
	aead     gcm.AEAD
	nonce    [nonceSize]byte // of the last record; its beginning is the IV's
	iv       uint64          // the rest of it
	sequence uint64
}

func (p *protection) start(s *suite, traffic *secret) error {
	p.suite, p.secret = s, *traffic
	return p.derive()
}

// derive makes the traffic keys of the secret (RFC 8446 7.3), with which records count from 0.
func (p *protection) derive() error {
	key, err := p.expand("key", p.suite.keyLength)
	if err != nil {
		return err
	}
	defer clear(key)
	iv, err := p.expand("iv", nonceSize)
	if err != nil {
		return err
	}
	aead, err := gcm.New(key)
	if err != nil {
		return err
	}
	p.aead, p.sequence = aead, 0
	copy(p.nonce[:], iv)
	p.iv = binary.BigEndian.Uint64(iv[nonceSize-8:])
	return nil
}

// update goes on to the next secret (RFC 8446 7.2).
func (p *protection) update() error {
	next, err := p.expand("traffic upd", p.secret.length)
	if err != nil {
		return err
	}
	copy(p.secret.bytes[:], next)
	clear(next)
	return p.derive()
}

// expand is HKDF-Expand-Label without a context (RFC 8446 7.1).
func (p *protection) expand(label string, length int) ([]byte, error) {
	const prefix = "tls13 "
	info := binary.BigEndian.AppendUint16(nil, uint16(length))
	info = append(info, byte(len(prefix)+len(label)))
	info = append(info, prefix+label...)
	info = append(info, 0)
	return hkdf.Expand(p.suite.hash, p.secret.bytes[:p.secret.length], string(info), length)
}

// next is the nonce of the next record (RFC 8446 5.3), in memory that is used again for the one after.
func (p *protection) next() []byte {
	binary.BigEndian.PutUint64(p.nonce[nonceSize-8:], p.iv^p.sequence)
	p.sequence++
	return p.nonce[:]
}

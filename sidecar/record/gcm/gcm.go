// Package gcm is AES-GCM (NIST SP 800-38D) for records of TLS: nonces of 12 bytes, tags of 16.
// On amd64 processors that have AES and carry-less products of 512 bits it has code of its own,
// elsewhere it is crypto/cipher's, which takes them 128 bits at a time.
package gcm

import (
	"crypto/aes"
	"crypto/cipher"
)

const (
	// NonceSize and TagSize are those of TLS (RFC 8446 5.2, 5.3), in bytes.
	NonceSize = 12
	TagSize   = 16
	// MostAdditionalData is how much of it there may be, in bytes; a record of TLS has 5.
	MostAdditionalData = 16
)

// AEAD protects records. Its methods may be called at the same time. What no record of TLS is
// has no error, but a panic: a nonce of another length than NonceSize, additional data beyond
// MostAdditionalData, and destinations that overlap what they must not.
type AEAD interface {
	// Seal appends to dst, sealed, a content and one byte more, which is the type of a record's
	// content and follows it (RFC 8446 5.2). What is appended does not overlap the content.
	Seal(dst, nonce, content []byte, last byte, additional []byte) []byte
	// Open appends to dst what was sealed, the last byte too. What is appended overlaps
	// what is sealed from the first byte on or nowhere. Where it is forged, there
	// is an error and zeros in its place.
	Open(dst, nonce, sealed, additional []byte) ([]byte, error)
}

// New is the AEAD of a key of 16, 24 or 32 bytes, which is not kept.
func New(key []byte) (AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	if wide := newWide(block, key); wide != nil {
		return wide, nil
	}
	return newNarrow(block)
}

// narrow is crypto/cipher's.
type narrow struct{ cipher.AEAD }

func newNarrow(block cipher.Block) (AEAD, error) {
	aead, err := cipher.NewGCM(block)
	return narrow{aead}, err
}

// Seal implements AEAD.
func (a narrow) Seal(dst, nonce, content []byte, last byte, additional []byte) []byte {
	check(nonce, additional)
	all, out := grown(dst, len(content)+1+TagSize)
	checkApart(out, content)
	plain := out[:len(content)+1]
	plain[copy(plain, content)] = last
	a.AEAD.Seal(plain[:0], nonce, plain, additional)
	return all
}

// Open implements AEAD.
func (a narrow) Open(dst, nonce, sealed, additional []byte) ([]byte, error) {
	check(nonce, additional)
	return a.AEAD.Open(dst, nonce, sealed, additional)
}

func check(nonce, additional []byte) {
	if len(nonce) != NonceSize {
		panic("gcm: a nonce has 12 bytes")
	}
	if len(additional) > MostAdditionalData {
		panic("gcm: there is more additional data than 16 bytes")
	}
}

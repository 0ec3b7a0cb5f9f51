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

// New is the AEAD of a key of 16, 24 or 32 bytes, which is not kept. Its methods may be called
// at the same time. What no record of TLS is has no error, but a panic: a nonce of another length
// than NonceSize, additional data beyond MostAdditionalData, and a destination that overlaps
// its source anywhere but from the first byte on.
func New(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	if wide := newWide(block, key); wide != nil {
		return wide, nil
	}
	return cipher.NewGCM(block)
}

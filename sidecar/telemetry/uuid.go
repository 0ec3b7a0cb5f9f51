package telemetry

import (
	"encoding/binary"
	"math/rand/v2"
	"time"
)

// AppendUUID appends a random UUID (RFC 9562 version 4). It is no secret.
func AppendUUID(dst []byte) []byte { return appendUUID(dst, rand.Uint64(), rand.Uint64()) }

var uuidKey = rand.Uint64()

// appendConnectionUUID appends a UUID that depends on this process, and on the number and
// the beginning of a connection, so that nobody has to keep it.
func appendConnectionUUID(dst []byte, number uint64, began time.Time) []byte {
	var g rand.PCG
	g.Seed(uuidKey^number, uint64(began.UnixNano()))
	return appendUUID(dst, g.Uint64(), g.Uint64())
}

func appendUUID(dst []byte, low, high uint64) []byte {
	low = low&^(0xf0<<48) | 0x40<<48 // the version is in byte 6
	high = high&^0xc0 | 0x80         // the variant in byte 8
	a, b, c, d := hexOf(uint32(low)), hexOf(uint32(low>>32)), hexOf(uint32(high)), hexOf(uint32(high>>32))
	var text [36]byte
	binary.LittleEndian.PutUint64(text[:], a)
	text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
	binary.LittleEndian.PutUint32(text[9:], uint32(b))
	binary.LittleEndian.PutUint32(text[14:], uint32(b>>32))
	binary.LittleEndian.PutUint32(text[19:], uint32(c))
	binary.LittleEndian.PutUint32(text[24:], uint32(c>>32))
	binary.LittleEndian.PutUint64(text[28:], d)
	return append(dst, text[:]...)
}

// hexOf returns the digits of four bytes, the lowest byte's first: all eight at once.
func hexOf(bytes uint32) uint64 {
	x := uint64(bytes)
	x = (x | x<<16) & 0x0000ffff0000ffff
	x = (x | x<<8) & 0x00ff00ff00ff00ff
	x = (x>>4 | x<<8) & 0x0f0f0f0f0f0f0f0f // one digit a byte, the higher first
	letters := (x + ones*6) >> 4 & ones
	return x + ones*'0' + letters*('a'-'0'-10)
}

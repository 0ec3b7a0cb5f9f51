package telemetry

import (
	"encoding/binary"
	"encoding/hex"
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
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:8], low)
	binary.LittleEndian.PutUint64(b[8:], high)
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	var text [36]byte
	hex.Encode(text[:8], b[:4])
	hex.Encode(text[9:13], b[4:6])
	hex.Encode(text[14:18], b[6:8])
	hex.Encode(text[19:23], b[8:10])
	hex.Encode(text[24:], b[10:])
	text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
	return append(dst, text[:]...)
}

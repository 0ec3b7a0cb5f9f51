//go:build gc && !purego

package gcm

import (
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"math/bits"
	"unsafe"

	"golang.org/x/sys/cpu"
)

// hasWide: the instructions of gcm_amd64.s, and a kernel that keeps their registers. GODEBUG
// turns it off by cpu.avx512=off.
var hasWide = cpu.X86.HasAVX && cpu.X86.HasAVX2 && cpu.X86.HasAVX512 && cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512VL && cpu.X86.HasAVX512DQ &&
	cpu.X86.HasAVX512VAES && cpu.X86.HasAVX512VPCLMULQDQ && cpu.X86.HasAES && cpu.X86.HasPCLMULQDQ && cpu.X86.HasBMI2

// wide is the AEAD of one key. The assembly knows where its fields are.
type wide struct {
	rounds [15][16]byte // the round keys (FIPS 197 5.2), 11 of them where the key has 16 bytes
	last   [2]uint64    // the offset of the last of them, and nothing
	// powers are the hash key's, from the 17th down to the first, and nothing behind them:
	// 16 blocks of a message and the one of its lengths. Each is a number of 128 bits whose
	// highest is the coefficient of x^0, divided by x, so that a product of two such
	// numbers is a product in GCM's field, times x^-1 again.
	powers [20][16]byte
}

func newWide(block cipher.Block, key []byte) AEAD {
	if !hasWide || instrumented || len(key) == 24 {
		return nil
	}
	w := &wide{}
	w.expand(key)
	var h [16]byte
	defer clear(h[:])
	block.Encrypt(h[:], h[:])
	// Divided by x: to the left by one, and what falls out is x^-1 = x^127 + x^6 + x + 1.
	hi, lo := binary.BigEndian.Uint64(h[:8]), binary.BigEndian.Uint64(h[8:])
	out := hi >> 63
	hi, lo = hi<<1|lo>>63, lo<<1
	hi ^= -out & 0xc2 << 56
	lo ^= out
	first := &w.powers[16]
	binary.LittleEndian.PutUint64(first[:8], lo)
	binary.LittleEndian.PutUint64(first[8:], hi)
	powers(w)
	return w
}

// expand makes the round keys (FIPS 197 5.2). No table is looked up by what is secret.
func (w *wide) expand(key []byte) {
	words := len(key) / 4
	all := 4 * (words + 7)
	at := func(i int) []byte { return w.rounds[i/4][4*(i%4):][:4] }
	rcon := uint32(1)
	for i := range all {
		if i < words {
			copy(at(i), key[4*i:])
			continue
		}
		temp := binary.LittleEndian.Uint32(at(i - 1))
		switch {
		case i%words == 0:
			temp = subWord(bits.RotateLeft32(temp, -8)) ^ rcon
			if rcon <<= 1; rcon == 0x100 {
				rcon = 0x1b
			}
		case words > 6 && i%words == 4:
			temp = subWord(temp)
		}
		binary.LittleEndian.PutUint32(at(i), temp^binary.LittleEndian.Uint32(at(i-words)))
	}
	w.last[0] = uint64(16 * (words + 6))
}

// most bytes of a message have different counters (SP 800-38D 5.2.1.1).
const most = (1<<32 - 2) * 16

// counted is the block that counts, before the first of the message (SP 800-38D 7.1), and
// the block of additional data.
func counted(nonce, additional []byte, n int) (counter, head [16]byte) {
	check(nonce, additional)
	if n > most {
		panic("gcm: a message is longer than its counter counts")
	}
	copy(counter[:], nonce)
	counter[15] = 1
	copy(head[:], additional)
	return counter, head
}

// Seal implements AEAD.
func (w *wide) Seal(dst, nonce, content []byte, last byte, additional []byte) []byte {
	n := len(content) + 1
	counter, head := counted(nonce, additional, n)
	all, out := grown(dst, n+TagSize)
	checkApart(out, content)
	var tag [TagSize]byte
	seal(w, &counter, &head, len(additional), &out[0], unsafe.SliceData(content), n, last, &tag)
	copy(out[n:], tag[:])
	return all
}

var errOpen = errors.New("gcm: message authentication failed")

// Open implements AEAD.
func (w *wide) Open(dst, nonce, sealed, additional []byte) ([]byte, error) {
	n := len(sealed) - TagSize
	counter, head := counted(nonce, additional, n)
	if n < 0 {
		return nil, errOpen
	}
	all, out := grown(dst, n)
	if n > 0 && &out[0] != &sealed[0] {
		checkApart(out, sealed)
	}
	var said, tag [TagSize]byte
	copy(said[:], sealed[n:]) // before out, which may be where it is
	open(w, &counter, &head, len(additional), unsafe.SliceData(out), unsafe.SliceData(sealed), n, &tag)
	if subtle.ConstantTimeCompare(tag[:], said[:]) != 1 {
		clear(out) // nobody sees what was not said
		return nil, errOpen
	}
	return all, nil
}

// seal encrypts n bytes to dst: those of src, and the last. tag is that of the ciphertext. head is
// additional data of so many bytes, and zeros.
//
//go:noescape
func seal(w *wide, counter, head *[16]byte, headLength int, dst, src *byte, n int, last byte, tag *[16]byte)

// open decrypts n bytes of src to dst; tag is that of src.
//
//go:noescape
func open(w *wide, counter, head *[16]byte, headLength int, dst, src *byte, n int, tag *[16]byte)

// powers makes the powers of the first.
//
//go:noescape
func powers(w *wide)

// subWord is SubWord() (FIPS 197 5.2) of a word in the order of memory.
//
//go:noescape
func subWord(word uint32) uint32

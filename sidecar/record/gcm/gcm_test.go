package gcm

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"testing"
)

// library is crypto/cipher's of the same key.
func library(t testing.TB, key []byte) cipher.AEAD {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	return aead
}

// random fills a new slice.
func random(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// TestBesideTheLibrary: every length up to some thousand bytes, of both key sizes, with additional
// data of every length, in place and not.
func TestBesideTheLibrary(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{16, 32} {
		for n := range 1400 {
			compare(t, random(r, size), random(r, NonceSize), random(r, n), random(r, n%(MostAdditionalData+1)))
		}
		for _, n := range []int{4096, 16384, 16385, 16401, 1 << 17} {
			compare(t, random(r, size), random(r, NonceSize), random(r, n), random(r, 5))
		}
	}
}

// TestVectors: those of the specification that GCM was submitted with (McGrew and Viega, appendix B,
// cases 1 to 4 and 13 to 16) whose nonces have 12 bytes and whose additional data 16 at most.
func TestVectors(t *testing.T) {
	const (
		key   = "feffe9928665731c6d6a8f9467308308"
		nonce = "cafebabefacedbaddecaf888"
		plain = "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255"
	)
	zeros := func(n int) string { return fmt.Sprintf("%0*d", 2*n, 0) }
	for _, v := range []struct{ key, nonce, plain, sealed string }{
		{zeros(16), zeros(12), "", "58e2fccefa7e3061367f1d57a4e7455a"},
		{zeros(16), zeros(12), zeros(16), "0388dace60b6a392f328c2b971b2fe78" + "ab6e47d42cec13bdf53a67b21257bddf"},
		{key, nonce, plain, "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091473f5985" + "4d5c2af327cd64a62cf35abd2ba6fab4"},
		{zeros(32), zeros(12), "", "530f8afbc74536b9a963b4f1c4cb738b"},
		{zeros(32), zeros(12), zeros(16), "cea7403d4d606b6e074ec5d3baf39d18" + "d0d1c8a799996bf0265b98b5d48ab919"},
		{key + key, nonce, plain, "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad" + "b094dac5d93471bdec1a502270e3cc6c"},
	} {
		aead, err := New(bin(t, v.key))
		if err != nil {
			t.Fatal(err)
		}
		nonce, plain, sealed := bin(t, v.nonce), bin(t, v.plain), bin(t, v.sealed)
		if got, err := aead.Open(nil, nonce, sealed, nil); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("key %s, %d bytes: opened to %x, %v", v.key, len(plain), got, err)
		}
		if len(plain) == 0 {
			continue // a record has its type at least
		}
		if got := aead.Seal(nil, nonce, plain[:len(plain)-1], plain[len(plain)-1], nil); !bytes.Equal(got, sealed) {
			t.Errorf("key %s, %d bytes: sealed as %x", v.key, len(plain), got)
		}
	}
}

func bin(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestForged: whatever bit of a message, of its tag, nonce or additional data is another, it is not opened,
// and nothing of it is left where it would have been. Nor is what was cut off.
func TestForged(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, n := range []int{0, 1, 16, 17, 255, 256, 300} {
		key, nonce, plain, additional := random(r, 16), random(r, NonceSize), random(r, n), random(r, 5)
		aead, err := New(key)
		if err != nil {
			t.Fatal(err)
		}
		sealed := library(t, key).Seal(nil, nonce, plain, additional)
		refused := func(what string, nonce, sealed, additional []byte) {
			t.Helper()
			out := bytes.Repeat([]byte{0xaa}, n)
			if got, err := aead.Open(out[:0], nonce, sealed, additional); err == nil || got != nil {
				t.Fatalf("%d bytes, %s: opened", n, what)
			}
			if len(sealed) == n+TagSize && !bytes.Equal(out, make([]byte, n)) {
				t.Fatalf("%d bytes, %s: %x is left", n, what, out)
			}
		}
		for bit := range 8 * len(sealed) {
			sealed[bit/8] ^= 1 << (bit % 8)
			refused(fmt.Sprint("bit ", bit), nonce, sealed, additional)
			sealed[bit/8] ^= 1 << (bit % 8)
		}
		for bit := range 8 * NonceSize {
			nonce[bit/8] ^= 1 << (bit % 8)
			refused(fmt.Sprint("bit of the nonce ", bit), nonce, sealed, additional)
			nonce[bit/8] ^= 1 << (bit % 8)
		}
		for bit := range 8 * len(additional) {
			additional[bit/8] ^= 1 << (bit % 8)
			refused(fmt.Sprint("bit of additional data ", bit), nonce, sealed, additional)
			additional[bit/8] ^= 1 << (bit % 8)
		}
		refused("less additional data", nonce, sealed, additional[:4])
		for cut := range min(len(sealed), 40) {
			refused("cut off", nonce, sealed[:len(sealed)-1-cut], additional)
		}
		if got, err := aead.Open(nil, nonce, sealed, additional); err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("%d bytes are not opened: %v", n, err)
		}
	}
}

// TestNothingBeside: no byte before or after the destination is written.
func TestNothingBeside(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	aead, err := New(random(r, 32))
	if err != nil {
		t.Fatal(err)
	}
	nonce := random(r, NonceSize)
	for n := range 600 {
		room := bytes.Repeat([]byte{0xaa}, 64+n+1+TagSize+64)
		sealed := aead.Seal(room[64:64], nonce, random(r, n), 0, nil)
		if &sealed[0] != &room[64] || !untouched(room, 64+n+1+TagSize) {
			t.Fatalf("sealing %d bytes writes beside them", n)
		}
		message := bytes.Clone(sealed)
		room = bytes.Repeat([]byte{0xaa}, 64+n+1+64)
		if _, err := aead.Open(room[64:64], nonce, message, nil); err != nil || !untouched(room, 64+n+1) {
			t.Fatalf("opening %d bytes writes beside them (%v)", n, err)
		}
	}
}

// untouched tells whether 64 bytes before what was written and those behind its end are as they were.
func untouched(room []byte, end int) bool {
	as := bytes.Repeat([]byte{0xaa}, 64)
	return bytes.Equal(room[:64], as) && bytes.Equal(room[end:end+64], as)
}

// TestNoMemory: a record takes none.
func TestNoMemory(t *testing.T) {
	aead, err := New(make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	content, buf, nonce, additional := make([]byte, 1000), make([]byte, 0, 1017), make([]byte, 12), make([]byte, 5)
	if n := testing.AllocsPerRun(10, func() {
		sealed := aead.Seal(buf, nonce, content, 1, additional)
		if _, err := aead.Open(sealed[:0], nonce, sealed, additional); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%g allocations", n)
	}
}

// TestMisuse: what no record of TLS is panics before anything is written.
func TestMisuse(t *testing.T) {
	aead, err := New(make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	nonce, room := make([]byte, NonceSize), make([]byte, 100)
	for what, call := range map[string]func(){
		"a short nonce":   func() { aead.Seal(nil, nonce[1:], room, 0, nil) },
		"a long nonce":    func() { aead.Seal(nil, append(nonce, 0), room, 0, nil) },
		"much additional": func() { aead.Seal(room[:0], nonce, nil, 1, make([]byte, 17)) },
		"in place":        func() { aead.Seal(room[:0], nonce[1:], nil, 1, nil) },
		"one of opening":  func() { _, _ = aead.Open(nil, nonce[1:], room, nil) },
		"one of sealing":  func() { aead.Seal(room[:0], nonce, room[10:20], 0, nil) },
		"an overlap":      func() { _, _ = aead.Open(room[:0], nonce, room[1:50], nil) },
		"another":         func() { _, _ = aead.Open(room[1:1], nonce, room[:50], nil) },
	} {
		func() {
			defer func() {
				if recover() == nil || !bytes.Equal(room, make([]byte, 100)) {
					t.Errorf("%s: no panic, or after the fact", what)
				}
			}()
			call()
		}()
	}
	if _, err := New(make([]byte, 20)); err == nil {
		t.Error("a key of 20 bytes is one")
	}
	if aead, err := New(make([]byte, 24)); err != nil || len(aead.Seal(nil, nonce, nil, 0, nil)) != 1+TagSize {
		t.Errorf("a key of 24 bytes is none: %v", err)
	}
}

// FuzzBesideTheLibrary: the same bytes sealed, and the same taken.
func FuzzBesideTheLibrary(f *testing.F) {
	f.Add([]byte("0123456789abcdef"), []byte("twelve bytes"), []byte("a message"), []byte("head"))
	f.Add(make([]byte, 32), make([]byte, 12), make([]byte, 300), make([]byte, 16))
	f.Fuzz(func(t *testing.T, key, nonce, message, additional []byte) {
		long := make([]byte, 16+16*(len(key)&1))
		copy(long, key)
		var number [NonceSize]byte
		copy(number[:], nonce)
		additional = additional[:min(len(additional), MostAdditionalData)]
		compare(t, long, number[:], message, additional)
		ours, err := New(long)
		if err != nil {
			t.Fatal(err)
		}
		want, wantErr := library(t, long).Open(nil, number[:], message, additional)
		got, err := ours.Open(nil, number[:], message, additional)
		if (err == nil) != (wantErr == nil) || !bytes.Equal(got, want) {
			t.Errorf("opened to %x (%v), want %x (%v)", got, err, want, wantErr)
		}
	})
}

func compare(t *testing.T, key, nonce, content, additional []byte) {
	t.Helper()
	const last = 23
	theirs, plain := library(t, key), append(bytes.Clone(content), last)
	want := theirs.Seal(nil, nonce, plain, additional)
	for name, ours := range both(t, key) {
		what := fmt.Sprintf("%s: key of %d, %d bytes, %d of additional data", name, len(key), len(content), len(additional))
		if got := ours.Seal([]byte("head"), nonce, content, last, additional); !bytes.Equal(got, append([]byte("head"), want...)) {
			t.Fatalf("%s: sealed another way:\n%x\n%x", what, got, want)
		}
		if !bytes.Equal(content, plain[:len(content)]) {
			t.Fatalf("%s: the content was changed", what)
		}
		got, err := ours.Open([]byte("head"), nonce, want, additional)
		if err != nil || !bytes.Equal(got, append([]byte("head"), plain...)) {
			t.Fatalf("%s: not opened: %v", what, err)
		}
		place := append(make([]byte, 3), want...)
		if got, err = ours.Open(place[3:3], nonce, place[3:], additional); err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("%s: not opened in place: %v", what, err)
		}
		none, err := ours.Open(nil, nonce, theirs.Seal(nil, nonce, nil, additional), additional)
		if err != nil || len(none) != 0 {
			t.Fatalf("%s: nothing is not opened: %v", what, err)
		}
	}
}

// both are the implementations of a key, as far as the processor has them.
func both(t testing.TB, key []byte) map[string]AEAD {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	chosen, err := New(key)
	if err != nil {
		t.Fatal(err)
	}
	other, err := newNarrow(block)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]AEAD{"chosen": chosen, "narrow": other}
}

var sizes = []int{64, 256, 1100, 16384}

func BenchmarkSeal(b *testing.B) {
	for name, aead := range both(b, make([]byte, 16)) {
		for _, n := range sizes {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				content, buf := make([]byte, n), make([]byte, 0, n+1+TagSize)
				nonce, additional := make([]byte, 12), make([]byte, 5)
				b.SetBytes(int64(n))
				for b.Loop() {
					aead.Seal(buf, nonce, content, 23, additional)
				}
			})
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	for name, aead := range both(b, make([]byte, 16)) {
		for _, n := range sizes {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				nonce, additional, out := make([]byte, 12), make([]byte, 5), make([]byte, 0, n+1)
				sealed := aead.Seal(nil, nonce, make([]byte, n), 23, additional)
				b.SetBytes(int64(n))
				for b.Loop() {
					if _, err := aead.Open(out, nonce, sealed, additional); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkNew(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := New(make([]byte, 16)); err != nil {
			b.Fatal(err)
		}
	}
}

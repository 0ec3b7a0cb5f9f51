//go:build gc && !purego

package gcm

import (
	"crypto/aes"
	"testing"
	"unsafe"
)

// TestWide: the assembly finds the fields where they are, and is what is tested where the processor
// can run it.
func TestWide(t *testing.T) {
	w := &wide{}
	if unsafe.Offsetof(w.last) != 240 || unsafe.Offsetof(w.powers) != 256 || unsafe.Sizeof(*w) != 256+20*16 {
		t.Errorf("fields at %d and %d of %d bytes", unsafe.Offsetof(w.last), unsafe.Offsetof(w.powers), unsafe.Sizeof(*w))
	}
	t.Logf("AVX-512 with VAES and VPCLMULQDQ: %t, under the race detector: %t", hasWide, instrumented)
	for _, size := range []int{16, 24, 32} {
		block, err := aes.NewCipher(make([]byte, size))
		if err != nil {
			t.Fatal(err)
		}
		if used := newWide(block, make([]byte, size)) != nil; used != (hasWide && !instrumented && size != 24) {
			t.Errorf("key of %d bytes: used %t", size, used)
		}
	}
}

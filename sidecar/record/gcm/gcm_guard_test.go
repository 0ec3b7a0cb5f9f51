package gcm

import (
	"math/rand/v2"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNothingReadBeside: no byte before or behind what is sealed and opened, and where it goes, is touched:
// there is no memory.
func TestNothingReadBeside(t *testing.T) {
	page := os.Getpagesize()
	island := func() []byte {
		all, err := unix.Mmap(-1, 0, 3*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Munmap(all) })
		for _, beside := range [][]byte{all[:page], all[2*page:]} {
			if err := unix.Mprotect(beside, unix.PROT_NONE); err != nil {
				t.Fatal(err)
			}
		}
		return all[page : 2*page : 2*page]
	}
	from, to := island(), island()
	r := rand.New(rand.NewPCG(7, 8))
	for _, size := range []int{16, 32} {
		aead, err := New(random(r, size))
		if err != nil {
			t.Fatal(err)
		}
		nonce, additional := random(r, NonceSize), random(r, 5)
		for n := range 600 {
			for _, end := range []bool{false, true} {
				place := func(island []byte, n int) []byte {
					if end {
						return island[page-n:]
					}
					return island[:n:n]
				}
				content := place(from, n)
				copy(content, random(r, n))
				sealed := aead.Seal(place(to, n+1+TagSize)[:0], nonce, content, 23, additional)
				if opened, err := aead.Open(place(from, n+1)[:0], nonce, sealed, additional); err != nil || opened[n] != 23 {
					t.Fatalf("%d bytes: %v", n, err)
				}
				if opened, err := aead.Open(sealed[:0], nonce, sealed, additional); err != nil || opened[n] != 23 {
					t.Fatalf("%d bytes in place: %v", n, err)
				}
			}
		}
	}
}

package gcm

import "unsafe"

// grown is dst with n bytes more, and these alone.
func grown(dst []byte, n int) (all, more []byte) {
	if have := len(dst) + n; cap(dst) >= have {
		all = dst[:have]
	} else {
		all = make([]byte, have)
		copy(all, dst)
	}
	return all, all[len(dst):]
}

// checkApart: slices that have a byte in common are a fault of the program's.
func checkApart(a, b []byte) {
	if len(a) == 0 || len(b) == 0 {
		return
	}
	x, y := uintptr(unsafe.Pointer(&a[0])), uintptr(unsafe.Pointer(&b[0]))
	if x < y+uintptr(len(b)) && y < x+uintptr(len(a)) {
		panic("gcm: the buffers overlap")
	}
}

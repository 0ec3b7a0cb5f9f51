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

// checkOverlap: what is written is read, where it is read from, before and never after.
func checkOverlap(out, in []byte) {
	if len(out) == 0 || len(in) == 0 || &out[0] == &in[0] {
		return
	}
	o, i := uintptr(unsafe.Pointer(&out[0])), uintptr(unsafe.Pointer(&in[0]))
	if o < i+uintptr(len(in)) && i < o+uintptr(len(out)) {
		panic("gcm: the buffers overlap")
	}
}

// pointer is that of the first byte, nil where there is none.
func pointer(b []byte) *byte { return unsafe.SliceData(b) }

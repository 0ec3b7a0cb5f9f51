package telemetry

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"strconv"
	"testing"
)

// TestUUID: version 4, of the bytes that it is given (RFC 9562 5.4).
func TestUUID(t *testing.T) {
	for i := range 10_000 {
		low, high := rand.Uint64(), rand.Uint64()
		if i < 2 {
			low, high = -uint64(i), -uint64(i)
		}
		var b [16]byte
		binary.LittleEndian.PutUint64(b[:8], low)
		binary.LittleEndian.PutUint64(b[8:], high)
		b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
		h := hex.EncodeToString(b[:])
		want := h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
		if got := string(appendUUID(nil, low, high)); got != want {
			t.Fatalf("%s, want %s", got, want)
		}
	}
}

func TestAppendNumber(t *testing.T) {
	for _, n := range []int64{-1 << 63, -1000, -1, 1<<63 - 1} {
		if got := string(appendNumber([]byte("x"), n)); got != "x"+strconv.FormatInt(n, 10) {
			t.Errorf("%d is %s", n, got)
		}
	}
	for n := range int64(1200) {
		if got := string(appendNumber(nil, n)); got != strconv.FormatInt(n, 10) {
			t.Errorf("%d is %s", n, got)
		}
	}
}

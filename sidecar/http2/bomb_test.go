package http2

import (
	"bytes"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// TestLargeHeadsLeaveNoGarbage: heads beyond the limits, which a few bytes of an indexed field make,
// are read into the same memory one after the other.
func TestLargeHeadsLeaveNoGarbage(t *testing.T) {
	var d decoder
	d.init(initialTable)
	h := head{cfg: Default()}
	var f message.Fields
	read := func(block []byte) {
		f.Reset()
		h.begin(requestHead, &f)
		if r := d.decode(block, &h); r != "" {
			t.Fatal(r)
		}
	}
	var first bytes.Buffer
	if err := hpack.NewEncoder(&first).WriteField(hpack.HeaderField{Name: "bomb", Value: strings.Repeat("x", 3900)}); err != nil {
		t.Fatal(err)
	}
	read(first.Bytes())
	bomb := bytes.Repeat([]byte{0x80 | 62}, 14000)
	read(bomb)
	if !h.over {
		t.Fatal("it is within the limits")
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 100 {
		read(bomb)
	}
	runtime.ReadMemStats(&after)
	if n := (after.TotalAlloc - before.TotalAlloc) / 100; n > 1<<10 {
		t.Errorf("%d bytes for each", n)
	}
}

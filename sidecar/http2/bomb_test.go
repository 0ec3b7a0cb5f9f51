package http2

import (
	"bytes"
	"runtime"
	"slices"
	"strings"
	"testing"

	xhttp2 "golang.org/x/net/http2"
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

// TestNamesOfTheTable: a block that names an entry of the table again and again, which costs it three
// bytes and us the entry, is read to a bound, whether or not it enters the table. What is only too much ends
// one stream.
func TestNamesOfTheTable(t *testing.T) {
	name := strings.Repeat("n", 4000)
	for what, again := range map[string][]byte{"not indexed": {0x0f, 62 - 15, 0}, "indexed": {0x40 | 62, 0}} {
		var d decoder
		d.init(initialTable)
		h := head{cfg: Default()}
		var f message.Fields
		read := func(block []byte) string {
			f.Reset()
			h.begin(requestHead, &f)
			return d.decode(block, &h)
		}
		var first bytes.Buffer
		if err := hpack.NewEncoder(&first).WriteField(hpack.HeaderField{Name: name, Value: "v"}); err != nil {
			t.Fatal(err)
		}
		if r := read(first.Bytes()); r != "" {
			t.Fatal(what, r)
		}
		if r := read(bytes.Repeat(again, 200)); r != "" || !h.over {
			t.Errorf("%s: a large head: %q, too large: %v", what, r, h.over)
		}
		if r := read(bytes.Repeat(again, 10000)); r != headBomb || h.literals > 2*mostLiterals {
			t.Fatalf("%s: %q after %d bytes", what, r, h.literals)
		}
	}
	var counted counts
	s := serve(t, counted.cfg(), ok)
	r := rawClient(t, s.addr)
	block := r.block(append(slices.Clone(get), name, "v")...)
	block = append(block, bytes.Repeat([]byte{0x40 | 62, 0}, 2000)...)
	r.must(r.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndStream: true, EndHeaders: true}))
	r.wantGoAway(EnhanceYourCalm)
	if counted[GlitchHeaderSize].Load() == 0 {
		t.Error("it is not counted")
	}
	alive(t, s.addr)
}

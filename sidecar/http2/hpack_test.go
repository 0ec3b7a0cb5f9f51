package http2

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"
	"pgregory.net/rapid"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

func TestStaticTableIsHPACKs(t *testing.T) {
	// An indexed field of each index, decoded by x/net.
	for i := 1; i <= staticLen; i++ {
		f, err := hpack.NewDecoder(4096, nil).DecodeFull(appendInt(nil, 0x80, 7, i))
		if err != nil || len(f) != 1 || f[0].Name != staticTable[i].name || f[0].Value != staticTable[i].value {
			t.Errorf("%d: %v %v, ours is %v", i, f, err, staticTable[i])
		}
	}
}

func TestHuffmanIsHPACKs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := string(rapid.SliceOf(rapid.Byte()).Draw(t, "s"))
		want := hpack.AppendHuffmanString(nil, s)
		if got := appendHuffman(nil, s); !bytes.Equal(got, want) || huffmanLen(s) != len(want) {
			t.Fatalf("%q: %x, want %x", s, got, want)
		}
		if got, ok := appendHuffmanDecoded(nil, want); !ok || string(got) != s {
			t.Fatalf("%x: %q %v, want %q", want, got, ok, s)
		}
	})
}

func TestHuffmanRefusals(t *testing.T) {
	for _, in := range []string{
		"\xff\xff\xff\xff", // EOS
		"\xff",             // padding of eight bits
		"\x1f\xff",         // 'a', then padding of more
		"\x18",             // 'a', then padding that is not EOS
	} {
		if got, ok := appendHuffmanDecoded(nil, []byte(in)); ok {
			t.Errorf("%x is %q", in, got)
		}
		if got, err := hpack.HuffmanDecodeToString([]byte(in)); err == nil {
			t.Errorf("x/net takes %x for %q", in, got)
		}
	}
}

// decodeBlock decodes a block with limits that nothing reaches. The arena then holds the
// names and values of all fields, in order.
func decodeBlock(d *decoder, block []byte) (all, reason string) {
	cfg := Default()
	cfg.Limits.HeadBytes, cfg.Limits.Fields = 1<<30, 1<<20
	var f message.Fields
	h := head{cfg: cfg}
	h.begin(requestHead, &f)
	reason = d.decode(block, &h)
	return string(h.arena), reason
}

// FuzzDecoder compares with x/net's decoder, block after block on one connection.
func FuzzDecoder(f *testing.F) {
	f.Add([]byte("\x82\x86\x84\x41\x0fwww.example.com"), []byte("\x82\x86\x84\xbe\x58\x08no-cache"))
	f.Add([]byte("\x40\x0acustom-key\x0dcustom-header"), []byte("\xbe"))
	f.Add([]byte("\x3f\xe1\x1f\x20\x82"), []byte("\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"))
	f.Add([]byte("\x10\x08password\x06secret"), []byte("\x1f\x80\x80\x80\x80\x00"))
	f.Fuzz(func(t *testing.T, one, two []byte) {
		var d decoder
		d.init(4096)
		var foreign string
		x := hpack.NewDecoder(4096, func(hf hpack.HeaderField) { foreign += hf.Name + hf.Value })
		x.SetMaxStringLength(1 << 20)
		for _, block := range [][]byte{one, two} {
			foreign = ""
			_, err := x.Write(block)
			if err == nil {
				err = x.Close()
			}
			got, reason := decodeBlock(&d, block)
			if err != nil || reason != "" {
				// We are stricter in three points: how long an integer, how long a string and
				// how many size updates may be.
				// x/net does not allow the second size update of RFC 7541 4.2.
				if err != nil && reason == "" && !strings.Contains(err.Error(), "beginning of a header block") {
					t.Fatalf("%x: x/net says %v, we say nothing: %q", block, err, got)
				}
				return
			}
			if got != foreign {
				t.Fatalf("%x:\n got %q\nwant %q", block, got, foreign)
			}
		}
	})
}

// TestEncoderRoundTrip: what the encoder writes, with table sizes that change between
// blocks, x/net's decoder and ours read.
func TestEncoderRoundTrip(t *testing.T) {
	names := []string{"content-type", "user-agent", "x-thing", "grpc-encoding", "authorization", "cookie", "date", "x-envoy-foo", "te"}
	rapid.Check(t, func(t *rapid.T) {
		var e encoder
		e.init(rapid.SampledFrom([]uint32{0, 100, 4096}).Draw(t, "max"), rapid.Bool().Draw(t, "huffman"))
		x := hpack.NewDecoder(4096, nil)
		x.SetAllowedMaxDynamicTableSize(4096)
		var d decoder
		d.init(4096)
		for range rapid.IntRange(1, 20).Draw(t, "blocks") {
			if rapid.Bool().Draw(t, "resize") {
				e.resize(rapid.SampledFrom([]uint32{0, 64, 200, 4096, 1 << 20}).Draw(t, "size"))
			}
			r := newRequest(rapid.SampledFrom([]string{"GET", "POST", "PUT"}).Draw(t, "method"), "/"+rapid.StringMatching(`[a-z]{0,20}`).Draw(t, "path"))
			want := []string{}
			for range rapid.IntRange(0, 8).Draw(t, "fields") {
				name := rapid.SampledFrom(names).Draw(t, "name")
				value := rapid.SampledFrom([]string{"", "a", "bb", strings.Repeat("long", 40), "text/plain"}).Draw(t, "value")
				r.Fields.Add(name, value)
				if name != "te" {
					want = append(want, name+"\x00"+value)
				}
			}
			block := e.request(nil, r)
			hf, err := x.DecodeFull(block)
			if err != nil {
				t.Fatalf("x/net: %v", err)
			}
			var theirs []string
			var all string
			for i, f := range hf {
				all += f.Name + f.Value
				if i >= 4 {
					theirs = append(theirs, f.Name+"\x00"+f.Value)
				}
			}
			if fmt.Sprint(theirs) != fmt.Sprint(want) {
				t.Fatalf("x/net %q\nwant %q", theirs, want)
			}
			if ours, reason := decodeBlock(&d, block); reason != "" || ours != all {
				t.Fatalf("ours %q %q\nwant %q", ours, reason, all)
			}
			if hf[0].Value != r.Method || hf[2].Value != r.Path || hf[3].Value != r.Authority {
				t.Fatalf("pseudo-headers %v", hf[:4])
			}
		}
	})
}

func TestEncoderIndexesWhatRepeats(t *testing.T) {
	var e encoder
	e.init(4096, false)
	r := unaryRequest()
	first := len(e.request(nil, r))
	second := len(e.request(nil, r))
	third := len(e.request(nil, r))
	if second < first-10 || third >= second-40 {
		t.Errorf("blocks of %d, %d, %d bytes: the third should refer to the table", first, second, third)
	}
	for i := range e.table.len() {
		entry := e.table.at(i)
		if name := string(e.table.name(entry)); name == "x-request-id" || name == "grpc-timeout" {
			t.Errorf("%s is in the table", name)
		}
	}
	// Secrets go out as never indexed.
	var secretReq = newRequest("GET", "/")
	secretReq.Fields.Add("Authorization", "Bearer x")
	hf, err := hpack.NewDecoder(4096, nil).DecodeFull(func() []byte { var e encoder; e.init(4096, false); return e.request(nil, secretReq) }())
	if err != nil || !hf[len(hf)-1].Sensitive {
		t.Errorf("authorization: %v, sensitive %v", err, hf[len(hf)-1].Sensitive)
	}
}

func TestDecoderTableSize(t *testing.T) {
	block := func(b ...byte) []byte { return b }
	var d decoder
	d.init(100)
	h := head{cfg: Default()}
	try := func(b []byte) string {
		var f message.Fields
		h.begin(requestHead, &f)
		return d.decode(b, &h)
	}
	if r := try(block(0x82)); r != "" {
		t.Error(r)
	}
	d.acknowledged(100)
	if r := try(block(0x82)); r != "no_table_size_update" {
		t.Errorf("after the acknowledgement of a smaller table: %q", r)
	}
	if r := try(append(appendInt(nil, 0x20, 5, 101), 0x82)); r != "table_size_update_too_large" {
		t.Errorf("101 of 100: %q", r)
	}
	if r := try(append(appendInt(nil, 0x20, 5, 100), 0x82)); r != "" {
		t.Error(r)
	}
	if r := try(block(0x82, 0x20)); r != "late_table_size_update" {
		t.Errorf("in the middle: %q", r)
	}
	if r := try(block(0x20, 0x20, 0x20)); r != "too_many_table_size_updates" {
		t.Errorf("three: %q", r)
	}
}

// TestDecoderKeepsFieldsApart: what x/net's encoder writes arrives as the same fields.
func TestDecoderKeepsFieldsApart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var block bytes.Buffer
		x := hpack.NewEncoder(&block)
		var d decoder
		d.init(4096)
		h := head{cfg: Default()}
		for range rapid.IntRange(1, 10).Draw(t, "blocks") {
			block.Reset()
			var want []string
			for range rapid.IntRange(0, 20).Draw(t, "fields") {
				name := rapid.StringMatching(`[a-d][a-z0-9-]{0,12}`).Draw(t, "name")
				if id := message.IDOf(name); id != message.Other {
					continue
				}
				value := rapid.StringMatching(`([!-~]([ -~]{0,60}[!-~])?)?`).Draw(t, "value")
				want = append(want, name, value)
				_ = x.WriteField(hpack.HeaderField{Name: name, Value: value, Sensitive: rapid.Bool().Draw(t, "sensitive")})
			}
			var f message.Fields
			h.begin(requestHead, &f)
			if r := d.decode(block.Bytes(), &h); r != "" || h.malformed != "" {
				t.Fatal(r, h.malformed)
			}
			h.load()
			var got []string
			for i := range f.Slots() {
				name, value, _ := f.At(i)
				got = append(got, name, value)
			}
			if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
				t.Fatalf("got %q\nwant %q", got, want)
			}
		}
	})
}

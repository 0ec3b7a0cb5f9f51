package message

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestIDs(t *testing.T) {
	for id := ID(1); id < numIDs; id++ {
		name := id.String()
		if name == "" {
			continue
		}
		for _, n := range []string{name, strings.ToUpper(name)} {
			if got := IDOf(n); got != id {
				t.Errorf("%s has id %d, not %d: the hash collides, search new factors", n, got, id)
			}
		}
	}
	for name, want := range map[string]ID{
		"": Other, "x": Other, "hos": Other, "x-envoy-anything": XEnvoyOther, "X-Envoy-Retry-On": XEnvoyOther, ":path": Fake, "x-envoy": Other,
	} {
		if got := IDOf(name); got != want {
			t.Errorf("%q: %d, want %d", name, got, want)
		}
	}
}

// TestIDsAreExact: a byte that is not the name's, in either case, makes it another name.
func TestIDsAreExact(t *testing.T) {
	for id := ID(1); id < numIDs; id++ {
		name := id.String()
		for at := range len(name) {
			for c := range 256 {
				b := []byte(name)
				b[at] = byte(c)
				if want, got := EqualFold(string(b), name), IDOf(string(b)) == id; got != want {
					t.Fatalf("%q is %s: %v", b, name, got)
				}
			}
		}
	}
}

func list(f *Fields) string {
	var b strings.Builder
	for i := range f.Slots() {
		if n, v, ok := f.At(i); ok {
			b.WriteString(n + "=" + v + ";")
		}
	}
	return b.String()
}

func TestFields(t *testing.T) {
	var f Fields
	f.Add("Accept", "a")
	f.Add("X-Two", "1")
	f.Add("x-two", "2")
	f.Add("Cookie", "c")
	if v, ok := f.Get("x-two"); !ok || v != "1" {
		t.Errorf("%q %v", v, ok)
	}
	if v, _ := f.Joined("x-two"); v != "1,2" {
		t.Errorf("%q", v)
	}
	if v, ok := f.HeaderValue("x-two", 1); !ok || v != "2" {
		t.Errorf("%q %v", v, ok)
	}
	if _, ok := f.HeaderValue("x-two", 2); ok {
		t.Error("there is no third value")
	}
	old, _ := f.Get("accept")
	f.Set("accept", strings.Repeat("b", 100000))
	if old != "a" {
		t.Errorf("a mutation moved what was handed out: %q", old)
	}
	f.Set("accept", "b")
	f.Set("x-two", "3")
	f.Set("new", "n")
	if got := list(&f); got != "Accept=b;X-Two=3;Cookie=c;new=n;" {
		t.Error(got)
	}
	if f.Len() != 4 || f.Del("x-two") != 1 || f.Del("x-two") != 0 || f.Len() != 3 {
		t.Error("Del or Len")
	}
	f.DelID(Cookie)
	if f.Has(Cookie) || !f.Has(Accept) {
		t.Error("Has")
	}
	f.Add("Other-One", "1")
	f.DelName("OTHER-ONE")
	if got := list(&f); got != "Accept=b;new=n;" {
		t.Error(got)
	}
	var g Fields
	g.CopyFrom(&f)
	f.Reset()
	if got := list(&g); got != "Accept=b;new=n;" || f.Len() != 0 || f.Has(Accept) {
		t.Error(got)
	}
}

func TestRequestHeader(t *testing.T) {
	r := &Request{Method: "GET", Path: "/a?b", Authority: "h", Scheme: "http"}
	r.Fields.Add("Host", "ignored")
	for name, want := range map[string]string{":method": "GET", ":path": "/a?b", ":authority": "h", "host": "h", ":scheme": "http"} {
		if v, ok := r.Header(name); !ok || v != want {
			t.Errorf("%s: %q", name, v)
		}
	}
	if r.PathOnly() != "/a" {
		t.Error(r.PathOnly())
	}
	resp := &Response{Status: 404}
	if v, _ := resp.Header(":status"); v != "404" {
		t.Error(v)
	}
	if !r.Idempotent() || (&Request{Method: "POST"}).Idempotent() {
		t.Error("Idempotent")
	}
}

// TestResetForgetsAll: no member of a message is the next one's.
func TestResetForgetsAll(t *testing.T) {
	for _, m := range []interface{ Reset() }{&Request{}, &Response{}} {
		v := reflect.ValueOf(m).Elem()
		for i := range v.NumField() {
			switch f := v.Field(i); f.Interface().(type) {
			case string:
				f.SetString("x")
			case bool:
				f.SetBool(true)
			case int, int64:
				f.SetInt(1)
			case Version:
				f.SetUint(1)
			case Fields:
				f.Addr().Interface().(*Fields).Add("a", "b")
			default: // the body
				f.Set(reflect.ValueOf(someBody{}))
			}
			if f := v.Field(i); f.IsZero() {
				t.Fatalf("%T.%s is as it is after a Reset", m, v.Type().Field(i).Name)
			}
		}
		m.Reset()
		for i := range v.NumField() {
			name, f := v.Type().Field(i).Name, v.Field(i)
			if name == "Fields" {
				if n := f.Addr().Interface().(*Fields).Len(); n != 0 {
					t.Errorf("%T has %d fields", m, n)
				}
			} else if !f.IsZero() {
				t.Errorf("%T.%s is %v", m, name, f)
			}
		}
	}
}

type someBody struct{ Body }

func TestResetKeepsLittle(t *testing.T) {
	var r Request
	r.Fields.Add("x", strings.Repeat("y", 1<<20))
	r.Reset()
	if cap(r.Fields.arena) != 0 {
		t.Errorf("%d bytes kept", cap(r.Fields.arena))
	}
	if n := testing.AllocsPerRun(100, func() {
		r.Reset()
		r.Fields.Add("Accept", "a")
		r.Fields.Set("accept", "b")
		r.Fields.Del("accept")
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestHeaderFrom(t *testing.T) {
	var r Request
	r.Authority, r.Path = "h", "/"
	for _, f := range [][2]string{{"X-A", "1"}, {"X-B", "2"}, {"x-a", "3"}, {"Cookie", "c"}, {"X-A", ""}} {
		r.Fields.Add(f[0], f[1])
	}
	r.Fields.Del("x-b")
	for name, want := range map[string][]string{"x-a": {"1", "3", ""}, "x-b": nil, "cookie": {"c"}, "host": {"h"}, ":path": {"/"}, ":scheme": nil, "": nil} {
		var got []string
		for v, next, ok := r.HeaderFrom(NameOf(name), 0); ok; v, next, ok = r.HeaderFrom(NameOf(name), next) {
			got = append(got, v)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// TestRewind: values that were joined to be read leave nothing behind.
func TestRewind(t *testing.T) {
	var f Fields
	f.Add("x-two", "1")
	f.Add("x-two", "2")
	for range 3 {
		n := f.Stored()
		if v, _ := f.Joined("x-two"); v != "1,2" {
			t.Fatal(v)
		}
		if f.Stored() == n {
			t.Fatal("joining stores nothing: nothing is to be given back")
		}
		f.Rewind(n)
		if f.Stored() != n || list(&f) != "x-two=1;x-two=2;" {
			t.Fatalf("%d bytes, not %d: %s", f.Stored(), n, list(&f))
		}
	}
}

// TestNotedFieldHasNoText: what is left of an earlier message in the arena is nobody's, also
// where a field was noted whose head was not loaded yet.
func TestNotedFieldHasNoText(t *testing.T) {
	var f Fields
	f.Add("set-cookie", "another-client's")
	f.Reset()
	f.Note(Server, 2, 6, 10, 7, false)
	f.Note(Server, 2, 6, 10, 7, false)
	for name, read := range map[string]func() string{
		"ByID":   func() string { v, _ := f.ByID(Server); return v },
		"Joined": func() string { v, _ := f.Joined("server"); return v },
		"At":     func() string { _, v, _ := f.At(0); return v },
		"Span":   func() string { return f.Span(2, 6) },
	} {
		func() {
			defer func() { _ = recover() }()
			if v := read(); v != "" {
				t.Errorf("%s: %q", name, v)
			}
		}()
	}
	f.Load([]byte("x\nserver: loaded!\r\n"))
	if v, _ := f.ByID(Server); v != "loaded!" {
		t.Errorf("loaded: %q", v)
	}
}

// TestJoinSingles: a repeated field of the set is one, without its empty values; a field of a
// single value stays as it was noted.
func TestJoinSingles(t *testing.T) {
	const head = "user-agentviaforwardedabc"
	values := len(head) - 3
	for _, tc := range []struct {
		values string // one of each letter's own, . for an empty one
		want   string
	}{
		{"a", "a"}, {".", ""}, {"ab", "a,b"}, {".a", "a"}, {"a.", "a"}, {"..", ""}, {".a.b.", "a,b"}, {"abc", "a,b,c"}, {"...", ""},
	} {
		var f Fields
		for _, v := range tc.values {
			off, n := values+int(v-'a'), 1
			if v == '.' {
				off, n = values, 0
			}
			f.Note(UserAgent, 0, 10, off, n, false)
			f.Note(Forwarded, 13, 9, off, n, false) // not of the set
		}
		f.Note(Via, 10, 3, values, 1, false)
		f.Load([]byte(head))
		f.JoinSingles(RequestSingles)
		if v, ok := f.ByID(UserAgent); !ok || v != tc.want || f.Find(UserAgent, f.Find(UserAgent, 0)+1) >= 0 {
			t.Errorf("%q: %q, want %q", tc.values, v, tc.want)
		}
		if f.Len() != len(tc.values)+2 {
			t.Errorf("%q: %d fields", tc.values, f.Len())
		}
		if name, v, _ := f.At(f.Find(Via, 0)); name != "via" || v != "a" {
			t.Errorf("%q: %s is %q", tc.values, name, v)
		}
	}
}

// TestBytes: what access logs take for the size of a head is that of Envoy's, which has an
// :authority whatever the request's own version calls it, and the length of its own answers.
func TestBytes(t *testing.T) {
	request := func(change func(*Request)) int {
		r := &Request{Method: "GET", Path: "/", Scheme: "http", Authority: "a.example"}
		change(r)
		return r.Bytes()
	}
	named := request(func(*Request) {})
	if got := request(func(r *Request) { r.Fields.AddID(Host, "before.it.was.rewritten.example") }); got != named {
		t.Errorf("with a Host %d, with an :authority %d", got, named)
	}
	told := &Response{Status: 200, ContentLength: 12}
	told.Fields.AddID(ContentLength, "12")
	for _, tc := range []struct {
		r    *Response
		want int
	}{
		{&Response{}, 0},
		{&Response{Status: 204, ContentLength: UnknownLength}, len(":status204")},
		{&Response{Status: 302}, len(":status302")},
		{&Response{Status: 503, ContentLength: 91}, len(":status503content-length91")},
		{told, len(":status200content-length12")},
	} {
		if got := tc.r.Bytes(); got != tc.want {
			t.Errorf("%d of length %d: %d bytes, want %d", tc.r.Status, tc.r.ContentLength, got, tc.want)
		}
	}
}

// TestLengthOfOurOwnAnswer: the length that a codec will write is there to be read.
func TestLengthOfOurOwnAnswer(t *testing.T) {
	r := &Response{Status: 503, ContentLength: 91}
	first, next, ok := r.HeaderFrom(NameOf("content-length"), 0)
	_, _, more := r.HeaderFrom(NameOf("content-length"), next)
	joined, _ := r.Header("content-length")
	if first != "91" || !ok || more || joined != "91" {
		t.Errorf("%q %v, joined %q, another %v", first, ok, joined, more)
	}
	for _, none := range []*Response{{Status: 204, ContentLength: UnknownLength}, {Status: 302}} {
		if v, ok := none.Header("content-length"); ok {
			t.Errorf("length %d is read as %q", none.ContentLength, v)
		}
	}
}

// TestBytesOfHops: what a client asks of this hop is a part of its head.
func TestBytesOfHops(t *testing.T) {
	r := &Request{AcceptTrailers: true, Upgrade: "websocket"}
	want := (&Request{}).Bytes() + len("te"+"trailers"+"upgrade"+"websocket"+"connection"+"upgrade")
	if n := r.Bytes(); n != want {
		t.Errorf("%d bytes, want %d", n, want)
	}
}

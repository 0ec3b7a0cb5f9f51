package http1

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// parsed is what came of a message.
type parsed struct {
	req      message.Request
	resp     message.Response
	framing  Framing
	body     []byte
	trailers message.Fields
	used     int
	whole    bool // the body's end was seen
}

// readRequest feeds raw to the parser in pieces of step bytes.
func readRequest(raw []byte, step int, l Limits, u Underscores) (*parsed, error) {
	var p RequestParser
	p.Configure(l, u)
	p.Reset()
	out := &parsed{}
	n, err := feed(raw, step, func(b []byte) (n int, err error) {
		n, out.framing, err = p.Parse(b, &out.req)
		return n, err
	})
	if err != nil || n == 0 {
		return out, err
	}
	return out, out.readBody(raw, n, step, out.req.ContentLength)
}

func readResponse(raw []byte, step int, method string) (*parsed, error) {
	var p ResponseParser
	p.Configure(Limits{})
	p.Reset()
	out := &parsed{}
	n, err := feed(raw, step, func(b []byte) (n int, err error) {
		n, out.framing, err = p.Parse(b, method, &out.resp)
		return n, err
	})
	if err != nil || n == 0 {
		return out, err
	}
	return out, out.readBody(raw, n, step, out.resp.ContentLength)
}

func feed(raw []byte, step int, parse func([]byte) (int, error)) (int, error) {
	for end := min(step, len(raw)); ; end = min(end+step, len(raw)) {
		// A copy, so that looking beyond what was given fails the test.
		n, err := parse(slices.Clone(raw[:end]))
		if err != nil || n > 0 || end == len(raw) {
			return n, err
		}
	}
}

func (p *parsed) readBody(raw []byte, at, step int, length int64) error {
	var d BodyDecoder
	d.Start(p.framing, length, Limits{}.WithDefaults())
	if p.framing == NoBody {
		p.used, p.whole = at, true
		return nil
	}
	end := at
	for {
		end = min(end+step, len(raw))
		for {
			data, n, done, err := d.Decode(raw[at:end], &p.trailers)
			if err != nil {
				return err
			}
			p.body = append(p.body, data...)
			at += n
			p.used = at
			if done {
				p.whole = true
				return nil
			}
			if n == 0 || at == end {
				break
			}
		}
		if end == len(raw) {
			p.whole = p.framing == UntilClose
			return nil
		}
	}
}

func reasonOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// steps are the sizes of the pieces that a message arrives in: the verdict must not
// depend on them.
var steps = []int{1, 2, 3, 7, 1 << 20}

func TestRequestCases(t *testing.T) {
	if n := len(requestCases) + len(responseCases); n < 150 {
		t.Fatalf("only %d cases", n)
	}
	for i, tc := range requestCases {
		for _, step := range steps {
			p, err := readRequest([]byte(tc.raw), step, Limits{}, AllowUnderscores)
			if got := reasonOf(err); got != tc.want {
				t.Errorf("case %d (%s) step %d: %q: got %q, want %q", i, tc.cite, step, tc.raw, got, tc.want)
				break
			}
			if err == nil && tc.want == "" && !p.whole {
				t.Errorf("case %d (%s) step %d: %q: taken, and not whole", i, tc.cite, step, tc.raw)
				break
			}
		}
	}
}

func TestResponseCases(t *testing.T) {
	for i, tc := range responseCases {
		for _, step := range steps {
			p, err := readResponse([]byte(tc.raw), step, "GET")
			if got := reasonOf(err); got != tc.want {
				t.Errorf("case %d (%s) step %d: %q: got %q, want %q", i, tc.cite, step, tc.raw, got, tc.want)
				break
			}
			if err == nil && tc.want == "" && !p.whole {
				t.Errorf("case %d (%s) step %d: %q: taken, and not whole", i, tc.cite, step, tc.raw)
				break
			}
		}
	}
}

// TestErrorsStay: a body that was refused stays refused, however often it is looked
// at again: who only asks whether there is something to read does not repair it.
func TestErrorsStay(t *testing.T) {
	seen := 0
	for i, tc := range requestCases {
		for _, step := range steps {
			var p RequestParser
			p.Configure(Limits{}, AllowUnderscores)
			var r message.Request
			n, framing, err := p.Parse([]byte(tc.raw), &r)
			if err != nil || framing != Chunked || tc.want == "" {
				continue
			}
			var d BodyDecoder
			var trailers message.Fields
			d.Start(framing, 0, Limits{}.WithDefaults())
			for end := min(n+step, len(tc.raw)); err == nil && end <= len(tc.raw); {
				var used int
				_, used, _, err = d.Decode([]byte(tc.raw[n:end]), &trailers)
				if n += used; used == 0 || n == end {
					end += max(1, min(step, len(tc.raw)-end))
				}
			}
			for _, again := range []string{tc.raw[n:], tc.raw, "", "0\r\n\r\n", "\r\n"} {
				data, used, done, err2 := d.Decode([]byte(again), &trailers)
				if len(data) > 0 || used > 0 || done || err2 != err || err == nil {
					t.Errorf("case %d (%s) step %d: %v, then %q %d %v %v", i, tc.cite, step, err, data, used, done, err2)
				}
			}
			seen++
		}
	}
	if seen < 100 {
		t.Errorf("only %d bodies were refused", seen)
	}
}

func TestLimits(t *testing.T) {
	l := Limits{HeadBytes: 400, LineBytes: 100, Fields: 5, TrailerBytes: 60}
	for _, tc := range []struct{ name, raw, want string }{
		{"fits", get + host + end, ""},
		{"target too long", "GET /" + strings.Repeat("a", 200) + " HTTP/1.1\r\n" + host + end, "uri_too_long"},
		{"target too long, unfinished", "GET /" + strings.Repeat("a", 300), "uri_too_long"},
		{"too many fields", get + host + strings.Repeat("A: b\r\n", 5) + end, "too_many_headers"},
		{"most fields", get + host + strings.Repeat("A: b\r\n", 4) + end, ""},
		{"head too large", get + host + "X: " + strings.Repeat("x", 400) + "\r\n\r\n", "headers_too_large"},
		{"head too large, unfinished", get + host + "X: " + strings.Repeat("x", 500), "headers_too_large"},
	} {
		for _, step := range steps {
			if _, err := readRequest([]byte(tc.raw), step, l, AllowUnderscores); reasonOf(err) != tc.want {
				t.Errorf("%s, step %d: got %q, want %q", tc.name, step, reasonOf(err), tc.want)
			}
		}
	}
	chunked := post + "Transfer-Encoding: chunked\r\n\r\n"
	for _, tc := range []struct{ name, raw, want string }{
		{"trailers", chunked + "0\r\nX: " + strings.Repeat("x", 9000) + "\r\n\r\n", "trailers_too_large"},
		{"extension", chunked + "1;" + strings.Repeat("x", 5000) + "\r\na\r\n0\r\n\r\n", "chunk_extensions_too_long"},
		{"extensions of many chunks", chunked + strings.Repeat("1;"+strings.Repeat("x", 50)+"\r\na\r\n", 100) + "0\r\n\r\n", "chunk_extensions_too_long"},
	} {
		for _, step := range []int{7, 1 << 20} {
			if _, err := readRequest([]byte(tc.raw), step, Limits{}, AllowUnderscores); reasonOf(err) != tc.want {
				t.Errorf("%s, step %d: got %q, want %q", tc.name, step, reasonOf(err), tc.want)
			}
		}
	}
}

func TestUnderscores(t *testing.T) {
	raw := []byte(get + host + "X_Y: z\r\nA: b\r\n" + end)
	if _, err := readRequest(raw, 1<<20, Limits{}, RejectUnderscores); reasonOf(err) != "underscore_in_field_name" {
		t.Errorf("got %v", err)
	}
	p, err := readRequest(raw, 1<<20, Limits{}, DropUnderscores)
	if _, ok := p.req.Fields.Get("x_y"); err != nil || ok {
		t.Errorf("not dropped: %v", err)
	}
	if v, _ := p.req.Fields.Get("a"); v != "b" {
		t.Errorf("a is %q", v)
	}
}

func TestControls(t *testing.T) {
	parse := func(head string) *message.Request {
		t.Helper()
		p, err := readRequest([]byte(head+end), 1<<20, Limits{}, AllowUnderscores)
		if err != nil {
			t.Fatal(err)
		}
		return &p.req
	}
	if r := parse(get + host + "Connection: CLOSE\r\n"); !r.Close {
		t.Error("close was not seen")
	}
	if r := parse(get + host + "Proxy-Connection: keep-alive\r\nProxy-Connection: Close\r\n"); !r.Close {
		t.Error("close of a proxy's connection was not seen")
	}
	r := parse(get + host + "Connection: X-A, Authorization, Traceparent, x-envoy-a, Content-Length\r\nX-A: 1\r\n" +
		"Authorization: a\r\nTraceparent: 1\r\nX-Envoy-A: 1\r\nContent-Length: 0\r\n")
	if _, ok := r.Fields.Get("x-a"); ok {
		t.Error("a field that Connection lists was kept")
	}
	for _, name := range []string{"authorization", "traceparent", "x-envoy-a", "content-length"} {
		if _, ok := r.Fields.Get(name); !ok {
			t.Errorf("Connection stripped %s, which it must not", name)
		}
	}
	if r := parse(get + host + "Connection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n"); r.Upgrade != "" || r.Fields.Len() != 1 {
		t.Errorf("h2c was offered on: %q, %d fields", r.Upgrade, r.Fields.Len())
	}
	if r := parse(get + host + "Upgrade: websocket\r\n"); r.Upgrade != "" {
		t.Error("an Upgrade that Connection does not list was taken")
	}
	if r := parse(get + host + "Connection: Upgrade\r\nUpgrade: websocket\r\n"); r.Upgrade != "websocket" {
		t.Error("the upgrade was lost")
	}
	if r := parse(get + host + "TE: trailers, deflate\r\n"); !r.AcceptTrailers {
		t.Error("TE: trailers was not seen")
	}
	if r := parse("GET http://X.example?q HTTP/1.1\r\nHost: x.example:80\r\n"); r.Path != "/?q" || r.Authority != "X.example" {
		t.Errorf("absolute form: %q %q", r.Authority, r.Path)
	}
	if r := parse("OPTIONS http://h HTTP/1.1\r\n" + host); r.Path != "*" {
		t.Errorf("OPTIONS without a path: %q", r.Path)
	}
}

func TestHTTP10(t *testing.T) {
	parse := func(raw string) (*message.Request, error) {
		var p RequestParser
		p.Configure(Limits{}, AllowUnderscores)
		p.AcceptHTTP10 = true
		var r message.Request
		_, _, err := p.Parse([]byte(raw), &r)
		return &r, err
	}
	r, err := parse("GET / HTTP/1.0\r\n" + host + end)
	if err != nil || !r.Close || r.Version != message.HTTP10 {
		t.Errorf("%v %+v", err, r)
	}
	if r, _ := parse("GET / HTTP/1.0\r\n" + host + "Connection: keep-alive\r\n\r\n"); r.Close {
		t.Error("keep-alive was not seen")
	}
	// RFC 9110 7.8: Upgrade is ignored there. Whoever sent it may go on in that protocol.
	if r, _ := parse("GET / HTTP/1.0\r\n" + host + "Connection: keep-alive, upgrade\r\nUpgrade: websocket\r\n\r\n"); !r.Close || r.Upgrade != "" {
		t.Errorf("close %v, upgrade %q", r.Close, r.Upgrade)
	}
	if _, err := parse("POST / HTTP/1.0\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n"); reasonOf(err) != "transfer_encoding_in_http_1_0" {
		t.Errorf("got %v", err)
	}
}

func TestWrite(t *testing.T) {
	p, err := readRequest([]byte("PUT /p?q HTTP/1.1\r\nX-A:  1 \r\nhOST: h:1\r\nContent-Length: 003\r\nCookie: c\r\n\r\nabc"), 1<<20, Limits{}, AllowUnderscores)
	if err != nil {
		t.Fatal(err)
	}
	p.req.Fields.Add("X-New", "v")
	out, err := AppendRequest(nil, &p.req, RequestOptions{Framing: Length})
	want := "PUT /p?q HTTP/1.1\r\nX-A: 1\r\nhOST: h:1\r\nContent-Length: 3\r\nCookie: c\r\nX-New: v\r\n\r\n"
	if err != nil || string(out) != want {
		t.Errorf("%v\n%q\n%q", err, out, want)
	}
	out, err = AppendRequest(nil, &p.req, RequestOptions{Framing: Chunked})
	want = "PUT /p?q HTTP/1.1\r\nX-A: 1\r\nhOST: h:1\r\nCookie: c\r\nX-New: v\r\nTransfer-Encoding: chunked\r\n\r\n"
	if err != nil || string(out) != want {
		t.Errorf("%v\n%q\n%q", err, out, want)
	}
	// What comes behind the head of an upgrade is no content of it.
	upgrade := &message.Request{Method: "POST", Path: "/", Authority: "h", ContentLength: message.UnknownLength}
	upgrade.Fields.Add("Content-Length", "0")
	out, err = AppendRequest(nil, upgrade, RequestOptions{Framing: NoBody, Upgrade: "x"})
	want = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"
	if err != nil || string(out) != want {
		t.Errorf("%v\n%q\n%q", err, out, want)
	}
	for method, want := range map[string]string{"POST": "Content-Length: 0\r\n", "PURGE": "Content-Length: 0\r\n", "GET": "", "DELETE": "", "HEAD": ""} {
		r := &message.Request{Method: method, Path: "/", Authority: "h"}
		if out, err := AppendRequest(nil, r, RequestOptions{}); err != nil || string(out) != method+" / HTTP/1.1\r\nHost: h\r\n"+want+"\r\n" {
			t.Errorf("no content: %v %q", err, out)
		}
	}
	for _, bad := range [][2]string{{"X", "a\r\nY: b"}, {"X\r\nY", "b"}, {"X Y", "b"}, {"", "b"}, {"X", "\x00"}, {"X:", "b"}} {
		r := &message.Request{Method: "GET", Path: "/", Authority: "h"}
		r.Fields.Add(bad[0], bad[1])
		if _, err := AppendRequest(nil, r, RequestOptions{}); err == nil {
			t.Errorf("a request with %q was written", bad)
		}
		resp := &message.Response{Status: 200}
		resp.Fields.Add(bad[0], bad[1])
		if _, err := AppendResponse(nil, resp, ResponseOptions{}); err == nil {
			t.Errorf("a response with %q was written", bad)
		}
		var trailers message.Fields
		trailers.Add(bad[0], bad[1])
		if _, err := AppendLastChunk(nil, &trailers); err == nil {
			t.Errorf("a trailer %q was written", bad)
		}
	}
	for _, r := range []message.Request{
		{Method: "G T", Path: "/", Authority: "h"}, {Method: "GET", Path: "/ x", Authority: "h"},
		{Method: "GET", Path: "/", Authority: "h\r\nX: y"}, {Method: "GET", Path: "", Authority: "h"},
	} {
		if _, err := AppendRequest(nil, &r, RequestOptions{}); err == nil {
			t.Errorf("a request %q %q %q was written", r.Method, r.Path, r.Authority)
		}
	}
}

// TestLinesAreCopied: lines that go out as they came are copied together; whatever else
// there is between them is written as itself.
func TestLinesAreCopied(t *testing.T) {
	for _, tc := range []struct {
		lines  string
		change func(*message.Fields)
		want   string
	}{
		{"A: 1\r\nB: 2\r\nAccept: 3\r\n", nil, "A: 1\r\nB: 2\r\nAccept: 3\r\n"},
		{"A:1\r\nB: 2\r\nC:\t3\r\nD: 4 \r\nE:  5\r\nF: \r\nG:\r\nH: 8\r\n", nil, "A: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\nE: 5\r\nF: \r\nG: \r\nH: 8\r\n"},
		{"A: 1\r\nB: 2\r\nC: 3\r\n", func(f *message.Fields) { f.Del("b") }, "A: 1\r\nC: 3\r\n"},
		{"A: 1\r\nB: 2\r\nC: 3\r\n", func(f *message.Fields) { f.Set("b", "new") }, "A: 1\r\nB: new\r\nC: 3\r\n"},
		{"A: 1\r\nB: 2\r\nC: 3\r\n", func(f *message.Fields) { f.Add("D", "4"); f.Del("a") }, "B: 2\r\nC: 3\r\nD: 4\r\n"},
		{"A: 1\r\nTE: trailers\r\nKeep-Alive: 5\r\nB: 2\r\nConnection: x\r\nX: y\r\nTrailer: t\r\nC: 3\r\n", nil, "A: 1\r\nB: 2\r\nC: 3\r\nTE: trailers\r\nConnection: TE\r\n"},
	} {
		p, err := readRequest([]byte("GET / HTTP/1.1\r\nHost: h\r\n"+tc.lines+"\r\n"), 1<<20, Limits{}, AllowUnderscores)
		if err != nil {
			t.Fatal(err)
		}
		if tc.change != nil {
			tc.change(&p.req.Fields)
		}
		out, err := AppendRequest(nil, &p.req, RequestOptions{})
		if want := "GET / HTTP/1.1\r\nHost: h\r\n" + tc.want + "\r\n"; err != nil || string(out) != want {
			t.Errorf("%q: %v\n%q\n%q", tc.lines, err, out, want)
		}
	}
}

func TestValidValue(t *testing.T) {
	for n := range 40 {
		for at := range n {
			for c := range 256 {
				b := bytes.Repeat([]byte("v"), n)
				b[at] = byte(c)
				if want := c == '\t' || c >= ' ' && c != 0x7f; validValue(b) != want {
					t.Fatalf("%q is valid: %v", b, !want)
				}
			}
		}
	}
}

func TestReuseDoesNotAllocate(t *testing.T) {
	raw := []byte("GET /api/v1/items?id=42 HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\nConnection: keep-alive\r\nX-Request-Id: 4b9b\r\nCookie: a=b\r\n\r\n")
	var p RequestParser
	p.Configure(Limits{}, AllowUnderscores)
	var r message.Request
	var out []byte
	if n := testing.AllocsPerRun(100, func() {
		p.Reset()
		r.Reset()
		if n, _, err := p.Parse(raw, &r); n == 0 || err != nil {
			t.Fatal(n, err)
		}
		out, _ = AppendRequest(out[:0], &r, RequestOptions{})
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkParseRequest(b *testing.B) {
	raw := []byte("GET /api/v1/items?id=42 HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate\r\nX-Request-Id: 4b9b3b1e-6a1c-4a6f-9f3e-0b1f0f6f3c11\r\nCookie: session=abcdef0123456789\r\nAuthorization: Bearer abcdefghijklmnopqrstuvwxyz\r\nX-Custom: value\r\n\r\n")
	var p RequestParser
	p.Configure(Limits{}, AllowUnderscores)
	var r message.Request
	b.ReportAllocs()
	for b.Loop() {
		p.Reset()
		r.Reset()
		if n, _, err := p.Parse(raw, &r); n == 0 || err != nil {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkAppendRequest(b *testing.B) {
	p, _ := readRequest([]byte("GET /api/v1/items?id=42 HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate\r\nX-Request-Id: 4b9b3b1e-6a1c-4a6f-9f3e-0b1f0f6f3c11\r\nCookie: session=abcdef0123456789\r\nAuthorization: Bearer abcdefghijklmnopqrstuvwxyz\r\nX-Custom: value\r\n\r\n"), 1<<20, Limits{}, AllowUnderscores)
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		out, _ = AppendRequest(out[:0], &p.req, RequestOptions{})
	}
}

func ExampleReason() {
	fmt.Println(Reason(404), Reason(299))
	// Output: Not Found Unknown
}

// TestProperCase: the capitals are those of the words, however a name came.
func TestProperCase(t *testing.T) {
	head := []byte("GET /a:b-c HTTP/1.1\r\nHOST: X-y\r\nx-FOO-bar: a-B\r\nx_y1z-2a: v\r\n\r\n")
	const want = "GET /a:b-c HTTP/1.1\r\nHost: X-y\r\nX-Foo-Bar: a-B\r\nX_Y1z-2a: v\r\n\r\n"
	if ProperCase(head); string(head) != want {
		t.Errorf("%q, want %q", head, want)
	}
}

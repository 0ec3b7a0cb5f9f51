package http1

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// TestAgainstNetHTTP: whatever we take, net/http takes to mean the same.
func TestAgainstNetHTTP(t *testing.T) {
	for _, tc := range requestCases {
		if tc.want == "" {
			sameRequest(t, []byte(tc.raw))
		}
	}
	for _, tc := range responseCases {
		if tc.want == "" {
			for _, method := range methods {
				sameResponse(t, []byte(tc.raw), method)
			}
		}
	}
}

// methods are those whose responses differ in framing.
var methods = []string{"GET", "HEAD", "CONNECT"}

func sameRequest(t *testing.T, raw []byte) {
	t.Helper()
	p, err := readRequest(raw, 1<<20, Limits{}, AllowUnderscores)
	if err != nil || !p.whole {
		return
	}
	// The empty line that may precede a request is not to net/http's taste.
	rest := bufio.NewReader(bytes.NewReader(bytes.TrimPrefix(raw, []byte("\r\n"))))
	std, err := http.ReadRequest(rest)
	if err != nil {
		if tolerated(err) {
			return
		}
		t.Fatalf("%q: taken, but net/http says %v", raw, err)
	}
	body, err := io.ReadAll(std.Body)
	if err != nil {
		t.Fatalf("%q: taken, but net/http's body fails: %v", raw, err)
	}
	if !bytes.Equal(body, p.body) {
		t.Fatalf("%q: body %q, net/http's %q", raw, p.body, body)
	}
	if std.Method != p.req.Method {
		t.Fatalf("%q: method %q, net/http's %q", raw, p.req.Method, std.Method)
	}
	if !strings.EqualFold(std.Host, p.req.Authority) {
		t.Fatalf("%q: authority %q, net/http's %q", raw, p.req.Authority, std.Host)
	}
	if want := pathOf(std); p.req.Path != want {
		t.Fatalf("%q: path %q, net/http's %q", raw, p.req.Path, want)
	}
	if std.Close && !p.req.Close {
		t.Fatalf("%q: net/http closes", raw)
	}
	if p.req.Upgrade != "" { // it is left to be seen
		if v, _ := p.req.Fields.Joined("connection"); !hasToken(v, "upgrade") {
			t.Fatalf("%q: an upgrade that %q asks for", raw, v)
		}
		p.req.Fields.DelID(message.Connection)
	}
	sameFields(t, raw, &p.req.Fields, std.Header)
	sameTrailers(t, raw, p, std.Trailer)
	sameRest(t, raw, p, rest)
}

// pathOf is the path that net/http's request leads to, in our form.
func pathOf(r *http.Request) string {
	switch {
	case r.Method == "CONNECT":
		return ""
	case r.RequestURI == "*", r.Method == "OPTIONS" && r.URL.Host != "" && r.URL.Path == "" && r.URL.RawQuery == "" && !r.URL.ForceQuery:
		return "*"
	case r.RequestURI[0] == '/':
		return r.RequestURI
	}
	_, rest, _ := strings.Cut(r.RequestURI, "://")
	if i := strings.IndexAny(rest, "/?"); i < 0 {
		return "/"
	} else if rest[i] == '?' {
		return "/" + rest[i:]
	} else {
		return rest[i:]
	}
}

// tolerated are refusals of net/http's own taste, which are not about framing: the
// URL's escapes and method names.
func tolerated(err error) bool {
	msg := err.Error()
	return strings.Contains(msg, "invalid URL escape") || strings.Contains(msg, "invalid method") ||
		strings.Contains(msg, "parse \"") || strings.Contains(msg, "invalid port")
}

// sameRest: what is behind the message is the same for both.
func sameRest(t *testing.T, raw []byte, p *parsed, r *bufio.Reader) {
	t.Helper()
	rest, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(rest, raw[p.used:]) {
		t.Fatalf("%q: %q is left, with net/http %q", raw, raw[p.used:], rest)
	}
}

func sameResponse(t *testing.T, raw []byte, method string) {
	t.Helper()
	p, err := readResponse(raw, 1<<20, method)
	if err != nil || !p.whole || p.resp.Status < 200 {
		return
	}
	if method == "CONNECT" && p.framing == UntilClose && p.resp.Status < 300 {
		return // a tunnel, of which net/http's function knows nothing
	}
	rest := bufio.NewReader(bytes.NewReader(raw))
	std, err := http.ReadResponse(rest, &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%q: taken, but net/http says %v", raw, err)
	}
	body, err := io.ReadAll(std.Body)
	if err != nil {
		t.Fatalf("%q: taken, but net/http's body fails: %v", raw, err)
	}
	if std.StatusCode != p.resp.Status || !bytes.Equal(body, p.body) {
		t.Fatalf("%q: %d %q, net/http's %d %q", raw, p.resp.Status, p.body, std.StatusCode, body)
	}
	sameFields(t, raw, &p.resp.Fields, std.Header)
	sameTrailers(t, raw, p, std.Trailer)
	sameRest(t, raw, p, rest)
}

// sameFields compares end-to-end fields.
func sameFields(t *testing.T, raw []byte, f *message.Fields, std http.Header) {
	t.Helper()
	ours := lists(f)
	ours.Del("Host")
	theirs := http.Header{}
	listed := map[string]bool{}
	for _, v := range std["Connection"] {
		for _, o := range strings.Split(v, ",") {
			listed[http.CanonicalHeaderKey(strings.Trim(o, " \t"))] = true
		}
	}
	for name, values := range std {
		id := message.IDOf(name)
		if slices.Contains(hopByHop[:], id) || id == message.Expect || listed[name] && !protected(name) {
			continue
		}
		theirs[name] = values
	}
	if d := cmp.Diff(theirs, ours); d != "" {
		t.Fatalf("%q: fields differ (-net/http +ours):\n%s", raw, d)
	}
}

// sameTrailers: net/http knows trailers only with their announcement, and drops none
// of them, so ours are a part of its.
func sameTrailers(t *testing.T, raw []byte, p *parsed, std http.Header) {
	t.Helper()
	for name, values := range lists(&p.trailers) {
		if !slices.Equal(std[name], values) {
			t.Fatalf("%q: trailer %s is %q, net/http's %q", raw, name, values, std[name])
		}
	}
}

func lists(f *message.Fields) http.Header {
	h := http.Header{}
	for i := range f.Slots() {
		if name, value, ok := f.At(i); ok {
			name = http.CanonicalHeaderKey(name)
			h[name] = append(h[name], value)
		}
	}
	return h
}

func FuzzRequest(f *testing.F) {
	for _, tc := range requestCases {
		f.Add([]byte(tc.raw), 5)
	}
	f.Fuzz(func(t *testing.T, raw []byte, step int) {
		if step < 1 || step > 1<<16 {
			step = 1
		}
		whole, err1 := readRequest(raw, 1<<20, Limits{}, AllowUnderscores)
		pieces, err2 := readRequest(raw, step, Limits{}, AllowUnderscores)
		if whole.whole != pieces.whole && err1 == nil && err2 == nil || whole.whole && err2 != nil || pieces.whole && err1 != nil {
			t.Fatalf("verdict depends on the pieces: %v %v, %v %v", whole.whole, err1, pieces.whole, err2)
		}
		if err1 != nil || !whole.whole {
			return
		}
		if !bytes.Equal(whole.body, pieces.body) || whole.used != pieces.used {
			t.Fatalf("body depends on the pieces: %q %q", whole.body, pieces.body)
		}
		sameRequest(t, raw)
		requestAgain(t, whole)
	})
}

// big are limits that what we write does not reach.
var big = Limits{HeadBytes: 1 << 20, LineBytes: 1 << 19, Fields: 200, TrailerBytes: 1 << 19}

// requestAgain: what we write we read as the same message.
func requestAgain(t *testing.T, p *parsed) {
	t.Helper()
	want := lists(&p.req.Fields)
	out, err := AppendRequest(nil, &p.req, RequestOptions{Framing: p.framing})
	if err != nil {
		t.Fatalf("a request that was taken cannot be written: %v", err)
	}
	out = appendBody(t, out, p)
	q, err := readRequest(out, 1<<20, big, AllowUnderscores)
	if err != nil || !q.whole || q.used != len(out) {
		t.Fatalf("%q: what was written is not taken: %v", out, err)
	}
	if q.req.Method != p.req.Method || q.req.Path != p.req.Path || q.req.Authority != p.req.Authority || !bytes.Equal(q.body, p.body) {
		t.Fatalf("%q: read back as another message", out)
	}
	got := lists(&q.req.Fields)
	for _, derived := range []string{"Host", "Content-Length", "Connection"} {
		want.Del(derived)
		got.Del(derived)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("%q: fields differ:\n%s", out, d)
	}
	if d := cmp.Diff(lists(&p.trailers), lists(&q.trailers)); d != "" {
		t.Fatalf("%q: trailers differ:\n%s", out, d)
	}
}

func appendBody(t *testing.T, out []byte, p *parsed) []byte {
	t.Helper()
	if p.framing != Chunked {
		return append(out, p.body...)
	}
	out, err := AppendLastChunk(AppendChunk(out, p.body), &p.trailers)
	if err != nil {
		t.Fatalf("trailers that were taken cannot be written: %v", err)
	}
	return out
}

func FuzzResponse(f *testing.F) {
	for _, tc := range responseCases {
		f.Add([]byte(tc.raw), 5, uint8(0))
	}
	f.Fuzz(func(t *testing.T, raw []byte, step int, m uint8) {
		if step < 1 || step > 1<<16 {
			step = 1
		}
		method := methods[int(m)%len(methods)]
		whole, err1 := readResponse(raw, 1<<20, method)
		pieces, err2 := readResponse(raw, step, method)
		if whole.whole && err2 != nil || pieces.whole && err1 != nil || !bytes.Equal(whole.body, pieces.body) && err1 == nil && err2 == nil {
			t.Fatalf("verdict depends on the pieces: %v %v", err1, err2)
		}
		if err1 != nil || !whole.whole {
			return
		}
		sameResponse(t, raw, method)
		responseAgain(t, whole, method)
	})
}

// responseAgain: what we write we read as the same message.
func responseAgain(t *testing.T, p *parsed, method string) {
	t.Helper()
	want := lists(&p.resp.Fields)
	status, framing := p.resp.Status, p.framing
	o := ResponseOptions{Framing: framing, KnownLength: framing == NoBody && p.resp.ContentLength >= 0 && status >= 200 && status != 204}
	out, err := AppendResponse(nil, &p.resp, o)
	if err != nil {
		t.Fatalf("a response that was taken cannot be written: %v", err)
	}
	out = appendBody(t, out, p)
	q, err := readResponse(out, 1<<20, method)
	if err != nil || !q.whole || q.used != len(out) {
		t.Fatalf("%q: what was written is not taken: %v", out, err)
	}
	if q.resp.Status != status || q.framing != framing || !bytes.Equal(q.body, p.body) || q.resp.Reason != p.resp.Reason && p.resp.Reason != "" {
		t.Fatalf("%q: read back as another message", out)
	}
	got := lists(&q.resp.Fields)
	want.Del("Content-Length")
	got.Del("Content-Length")
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("%q: fields differ:\n%s", out, d)
	}
}

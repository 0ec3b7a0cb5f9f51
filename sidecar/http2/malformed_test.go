package http2

import (
	"errors"
	"strings"
	"testing"

	xhttp2 "golang.org/x/net/http2"

	"github.com/hauberk-mesh/hauberk/sidecar/http1"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// TestMalformedRequests: each is a stream error, the handler never sees it, and the
// connection goes on (RFC 9113 8.1.1).
func TestMalformedRequests(t *testing.T) {
	with := func(pairs ...string) []string { return append(append([]string(nil), get...), pairs...) }
	without := func(name string) (out []string) {
		for i := 0; i < len(get); i += 2 {
			if get[i] != name {
				out = append(out, get[i], get[i+1])
			}
		}
		return out
	}
	replace := func(name, value string) (out []string) {
		out = append(out, get...)
		for i := 0; i < len(out); i += 2 {
			if out[i] == name {
				out[i+1] = value
			}
		}
		return out
	}
	cases := map[string][]string{
		"no method":                   without(":method"),
		"no scheme":                   without(":scheme"),
		"no path":                     without(":path"),
		"no authority":                without(":authority"),
		"bad method":                  replace(":method", "GE T"),
		"empty method":                replace(":method", ""),
		"empty path":                  replace(":path", ""),
		"relative path":               replace(":path", "a/b"),
		"path with space":             replace(":path", "/a b"),
		"path that splits":            replace(":path", "/ HTTP/1.1\r\nX: y"),
		"path with DEL":               replace(":path", "/\x7f"),
		"asterisk for GET":            replace(":path", "*"),
		"scheme that splits":          replace(":scheme", "http://evil/\r\n"),
		"unknown scheme":              replace(":scheme", "ftp"),
		"authority with user":         replace(":authority", "user@example.com"),
		"authority with space":        replace(":authority", "a b"),
		"authority with port 70000":   replace(":authority", "a:70000"),
		"empty authority":             replace(":authority", ""),
		"host differs":                with("host", "other.com"),
		"two hosts":                   with("host", "example.com", "host", "example.com"),
		"repeated path":               with(":path", "/b"),
		"unknown pseudo-header":       with(":foo", "bar"),
		"response's pseudo-header":    with(":status", "200"),
		"pseudo-header after a field": append([]string{"a", "b"}, get...),
		"protocol when it is off":     append(replace(":method", "CONNECT"), ":protocol", "websocket"),
		"CONNECT with path":           replace(":method", "CONNECT"),
		"CONNECT without port":        {":method", "CONNECT", ":authority", "example.com"},
		"CONNECT without authority":   {":method", "CONNECT"},
		"upper-case name":             with("X-Thing", "1"),
		"empty name":                  with("", "1"),
		"name with space":             with("a b", "1"),
		"name with colon":             with("a:b", "1"),
		"name with CR":                with("a\rb", "1"),
		"value with LF":               with("a", "x\ny: z"),
		"value with CR":               with("a", "x\rz"),
		"value with NUL":              with("a", "x\x00"),
		"value with DEL":              with("a", "\x7f"),
		"value with leading space":    with("a", " x"),
		"value with trailing tab":     with("a", "x\t"),
		"connection":                  with("connection", "close"),
		"keep-alive":                  with("keep-alive", "1"),
		"proxy-connection":            with("proxy-connection", "close"),
		"transfer-encoding":           with("transfer-encoding", "chunked"),
		"upgrade":                     with("upgrade", "h2c"),
		"te":                          with("te", "gzip"),
		"te with a long s":            with("te", "trailer\u017f"),
		"te with more":                with("te", "trailers, gzip"),
		"content-length not a number": with("content-length", "1x"),
		"content-length negative":     with("content-length", "-1"),
		"content-length twice":        with("content-length", "0", "content-length", "0"),
		"content-length without body": with("content-length", "1"),
	}
	served := make(chan string, 1)
	srv := serve(t, nil, func(s *Stream) {
		served <- s.Request().Path
		ok(s)
	})
	r := rawClient(t, srv.addr)
	id := uint32(1)
	for name, fields := range cases {
		r.headers(id, true, fields...)
		f := r.next(xhttp2.FrameRSTStream).(*xhttp2.RSTStreamFrame)
		if f.StreamID != id || Code(f.ErrCode) != ProtocolError {
			t.Fatalf("%s: stream %d reset with %v", name, f.StreamID, f.ErrCode)
		}
		id += 2
	}
	r.get(id)
	if f := r.wantStatus(id, "200"); f == nil || <-served != "/" || len(served) > 0 {
		t.Error("a malformed request reached the handler")
	}
}

// TestMalformedBodies: what comes after a good head can be wrong too. The handler, which
// is at work by then, learns of it.
func TestMalformedBodies(t *testing.T) {
	started, errs := make(chan bool), make(chan error, 1)
	srv := serve(t, nil, func(s *Stream) {
		started <- true
		for {
			_, last, err := s.Next()
			if err != nil || last {
				errs <- err
				return
			}
		}
	})
	length := func(n string) []string { return []string{"content-length", n} }
	for name, c := range map[string]struct {
		head []string
		rest func(r *raw)
	}{
		"more than content-length":    {length("3"), func(r *raw) { r.must(r.fr.WriteData(1, false, []byte("1234"))) }},
		"less than content-length":    {length("3"), func(r *raw) { r.must(r.fr.WriteData(1, true, []byte("12"))) }},
		"less, then trailers":         {length("3"), func(r *raw) { r.headers(1, true, "a", "b") }},
		"trailers without end":        {nil, func(r *raw) { r.headers(1, false, "a", "b") }},
		"trailers with pseudo-header": {nil, func(r *raw) { r.headers(1, true, ":path", "/") }},
		"trailers that frame":         {nil, func(r *raw) { r.headers(1, true, "content-length", "0") }},
		"trailers in upper case":      {nil, func(r *raw) { r.headers(1, true, "A", "b") }},
		"trailers too large":          {nil, func(r *raw) { r.headers(1, true, many("a", strings.Repeat("b", 1000), 9)...) }},
	} {
		r := rawClient(t, srv.addr)
		r.headers(1, false, append(append([]string(nil), get...), c.head...)...)
		<-started
		c.rest(r)
		r.wantReset(1, ProtocolError)
		var se *StreamError
		if err := <-errs; !errors.As(err, &se) || se.Remote {
			t.Errorf("%s: the handler saw %v", name, err)
		}
		_ = r.c.Close()
	}
}

func TestMalformedEndsConnection(t *testing.T) {
	cfg := Default()
	cfg.MalformedEndsConnection = true
	srv := serve(t, cfg, ok)
	r := rawClient(t, srv.addr)
	r.get(1, "connection", "close")
	r.wantGoAway(ProtocolError)
}

// TestMalformedTrailersEndConnection: a length that is not that of the content, or none, and a TE
// that is no word of HTTP/2 malform a message; what only is no trailer ends its stream.
func TestMalformedTrailersEndConnection(t *testing.T) {
	cfg := Default()
	cfg.MalformedEndsConnection = true
	srv := serve(t, cfg, func(s *Stream) {
		for last := false; !last; {
			var err error
			if _, last, err = s.Next(); err != nil {
				return
			}
		}
	})
	for field, ends := range map[[2]string]bool{
		{"content-length", "5"}: true, {"content-length", "x"}: true, {"te", "gzip"}: true,
		{"content-length", "2"}: false, {"te", "trailers"}: false, {"host", "a"}: false,
	} {
		r := rawClient(t, srv.addr)
		r.headers(1, false, post...)
		r.must(r.fr.WriteData(1, false, []byte("hi")))
		r.headers(1, true, field[0], field[1])
		if ends {
			r.wantGoAway(ProtocolError)
		} else {
			r.wantReset(1, ProtocolError)
		}
		_ = r.c.Close()
	}
}

// TestGoodRequests: what is odd and right is taken, in the model's form.
func TestGoodRequests(t *testing.T) {
	type seen struct {
		method, authority, path, scheme, cookie, upgrade string
		trailers, expect                                 bool
		length                                           int64
	}
	got := make(chan seen, 1)
	cfg := Default()
	cfg.AllowConnect = true
	cfg.Underscores = http1.DropUnderscores
	srv := serve(t, cfg, func(s *Stream) {
		r := s.Request()
		cookie, _ := r.Fields.Get("cookie")
		if _, ok := r.Fields.Get("under_score"); ok {
			t.Error("under_score was kept")
		}
		got <- seen{strings.Clone(r.Method), strings.Clone(r.Authority), strings.Clone(r.Path), r.Scheme, strings.Clone(cookie),
			strings.Clone(r.Upgrade), r.AcceptTrailers, r.ExpectContinue, r.ContentLength}
		ok(s)
	})
	for name, c := range map[string]struct {
		fields []string
		end    bool
		want   seen
	}{
		"host instead of :authority": {[]string{":method", "GET", ":scheme", "http", ":path", "/", "host", "h.com"}, true,
			seen{method: "GET", authority: "h.com", path: "/", scheme: "http"}},
		"host that is the same": {append([]string{}, append(get, "host", "EXAMPLE.com")...), true,
			seen{method: "GET", authority: "example.com", path: "/", scheme: "http"}},
		"crumbs": {append([]string{}, append(get, "cookie", "a=b", "x", "y", "cookie", "c=d", "under_score", "1")...), true,
			seen{method: "GET", authority: "example.com", path: "/", scheme: "http", cookie: "a=b; c=d"}},
		"te and expect": {append([]string{}, append(get, "te", "trailers", "expect", "100-continue")...), false,
			seen{method: "GET", authority: "example.com", path: "/", scheme: "http", trailers: true, expect: true, length: message.UnknownLength}},
		"a scheme that is not the transport's": {[]string{":method", "OPTIONS", ":scheme", "https", ":authority", "h.com:8443", ":path", "*"}, true,
			seen{method: "OPTIONS", authority: "h.com:8443", path: "*", scheme: "https"}},
		"a path that is no URI": {[]string{":method", "GET", ":scheme", "http", ":authority", "h.com", ":path", "/<é>?q={\"a\":1}\xff"}, true,
			seen{method: "GET", authority: "h.com", path: "/<é>?q={\"a\":1}\xff", scheme: "http"}},
		"connect": {[]string{":method", "CONNECT", ":authority", "h.com:443"}, false,
			seen{method: "CONNECT", authority: "h.com:443", scheme: "http", length: message.UnknownLength}},
		"websocket": {[]string{":method", "CONNECT", ":scheme", "http", ":authority", "h.com", ":path", "/chat", ":protocol", "websocket"}, false,
			seen{method: "GET", authority: "h.com", path: "/chat", scheme: "http", upgrade: "websocket", length: message.UnknownLength}},
	} {
		r := rawClient(t, srv.addr)
		r.headers(1, c.end, c.fields...)
		r.wantStatus(1, "200")
		if g := <-got; g != c.want {
			t.Errorf("%s:\n got %+v\nwant %+v", name, g, c.want)
		}
		_ = r.c.Close()
	}
}

// TestRefusedRequests: well-formed, and yet answered without a handler.
func TestRefusedRequests(t *testing.T) {
	cfg := Default()
	cfg.Limits.HeadBytes = 20 << 10
	srv := serve(t, cfg, ok)
	for name, c := range map[string]struct {
		status string
		fields []string
	}{
		"too many fields":   {"431", many("a", "b", 97)},
		"too many bytes":    {"431", many("a", strings.Repeat("b", 1000), 21)},
		"path too long":     {"414", []string{":path", "/" + strings.Repeat("x", 9<<10)}},
		"path and fragment": {"400", []string{":path", "/a#b"}},
		"other expectation": {"417", []string{"expect", "200-ok"}},
	} {
		r := rawClient(t, srv.addr)
		fields := append([]string(nil), get...)
		if c.fields[0] == ":path" {
			fields[7] = c.fields[1]
		} else {
			fields = append(fields, c.fields...)
		}
		r.headers(1, true, fields...)
		if f := r.wantStatus(1, c.status); !f.StreamEnded() {
			t.Errorf("%s: not ended", name)
		}
		r.get(3)
		r.wantStatus(3, "200")
		_ = r.c.Close()
	}
	// Exactly a hundred are fine, with the pseudo-headers.
	r := rawClient(t, srv.addr)
	r.get(1, many("a", "b", 96)...)
	r.wantStatus(1, "200")
}

func many(name, value string, n int) (out []string) {
	for range n {
		out = append(out, name, value)
	}
	return out
}

// TestMalformedResponses: the client resets the stream and the exchange learns of it.
func TestMalformedResponses(t *testing.T) {
	for name, send := range map[string]func(r *raw){
		"no status":               func(r *raw) { r.headers(1, true, "a", "b") },
		"status of two digits":    func(r *raw) { r.headers(1, true, ":status", "20") },
		"status of 600":           func(r *raw) { r.headers(1, true, ":status", "600") },
		"two statuses":            func(r *raw) { r.headers(1, true, ":status", "200", ":status", "200") },
		"late status":             func(r *raw) { r.headers(1, true, "a", "b", ":status", "200") },
		"request's pseudo-header": func(r *raw) { r.headers(1, true, ":status", "200", ":path", "/") },
		"101":                     func(r *raw) { r.headers(1, false, ":status", "101") },
		"interim that ends":       func(r *raw) { r.headers(1, true, ":status", "103") },
		"connection":              func(r *raw) { r.headers(1, true, ":status", "200", "connection", "close") },
		"transfer-encoding":       func(r *raw) { r.headers(1, true, ":status", "200", "transfer-encoding", "chunked") },
		"value that splits":       func(r *raw) { r.headers(1, true, ":status", "200", "a", "b\r\nc: d") },
		"upper case":              func(r *raw) { r.headers(1, true, ":status", "200", "A", "b") },
		"length without body":     func(r *raw) { r.headers(1, true, ":status", "200", "content-length", "5") },
		"length with 204":         func(r *raw) { r.headers(1, true, ":status", "204", "content-length", "5") },
		"more than content-length": func(r *raw) {
			r.headers(1, false, ":status", "200", "content-length", "1")
			r.must(r.fr.WriteData(1, true, []byte("12")))
		},
		"less than content-length": func(r *raw) {
			r.headers(1, false, ":status", "200", "content-length", "3")
			r.must(r.fr.WriteData(1, true, []byte("12")))
		},
		"body of 204":          func(r *raw) { r.headers(1, false, ":status", "204"); r.must(r.fr.WriteData(1, true, []byte("12"))) },
		"body before the head": func(r *raw) { r.must(r.fr.WriteData(1, true, []byte("12"))) },
		"trailers without end": func(r *raw) { r.headers(1, false, ":status", "200"); r.headers(1, false, "a", "b") },
		"trailers with status": func(r *raw) { r.headers(1, false, ":status", "200"); r.headers(1, true, ":status", "200") },
		"endless interim": func(r *raw) {
			for range maxInterim + 1 {
				r.headers(1, false, ":status", "103")
			}
		},
		"too many fields": func(r *raw) { r.headers(1, true, append([]string{":status", "200"}, many("a", "b", 101)...)...) },
	} {
		r, cc := rawServer(t, nil)
		done := make(chan error, 1)
		go func() {
			_, _, err := exchange(cc, newRequest("GET", "/"), "")
			done <- err
		}()
		r.next(xhttp2.FrameHeaders)
		send(r)
		var se *StreamError
		if err := <-done; !errors.As(err, &se) || se.Remote || se.Code != ProtocolError {
			t.Errorf("%s: %v", name, err)
		}
		r.wantReset(1, ProtocolError)
		// The connection is as good as before.
		go func() {
			_, _, err := exchange(cc, newRequest("GET", "/"), "")
			done <- err
		}()
		r.next(xhttp2.FrameHeaders)
		r.headers(3, true, ":status", "200")
		if err := <-done; err != nil {
			t.Errorf("%s: the next request: %v", name, err)
		}
	}
}

// TestUnwritable: nothing invalid is sent, whoever put it into a message.
func TestUnwritable(t *testing.T) {
	_, cc := rawServer(t, nil)
	for name, change := range map[string]func(*message.Request){
		"method":    func(r *message.Request) { r.Method = "GE T" },
		"path":      func(r *message.Request) { r.Path = "/ HTTP/1.1\r\n" },
		"no path":   func(r *message.Request) { r.Path = "" },
		"authority": func(r *message.Request) { r.Authority = "a b" },
		"value":     func(r *message.Request) { r.Fields.Add("a", "b\nc") },
		"padding":   func(r *message.Request) { r.Fields.Add("a", " b") },
		"name":      func(r *message.Request) { r.Fields.Add("a b", "c") },
		"upgrade":   func(r *message.Request) { r.Upgrade = "web socket" },
		"two wants": func(r *message.Request) { r.Method, r.Authority, r.Upgrade = "CONNECT", "h:80", "websocket" },
	} {
		req := newRequest("GET", "/")
		change(req)
		if _, err := cc.Open(req, true); !errors.Is(err, ErrUnwritable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var r message.Response
	s := &Stream{}
	for name, status := range map[string]int{"status 99": 99, "status 600": 600, "101 to no upgrade": 101} {
		r.Status = status
		if err := s.WriteHead(&r, false); !errors.Is(err, ErrUnwritable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

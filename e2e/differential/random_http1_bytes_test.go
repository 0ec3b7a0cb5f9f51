//go:build e2e

package differential

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// http1Maker makes messages of HTTP/1 as bytes, most of which are almost right.
type http1Maker struct {
	*rand.Rand
	kb, fields int  // the limits of the listener, 0 for the defaults
	old        bool // HTTP/1.0 is taken
}

func (m *http1Maker) chance(n int) bool { return chance(m.Rand, n) }

// conversation is what a client sends: one request or several at once, and perhaps a byte of
// it otherwise, or not all.
func (m *http1Maker) conversation() string {
	var b strings.Builder
	n := one(m.Rand, 1, 1, 1, 2, 2, 3)
	for i := range n {
		b.WriteString(m.request(i == 0, i == n-1))
	}
	s := b.String()
	switch m.IntN(12) {
	case 0, 1:
		s = m.mutated(s)
	case 2:
		if m.chance(3) {
			s = s[:m.IntN(len(s))+1]
		}
	case 3:
		s = m.otherLine(s)
	}
	return s
}

// request is one; the last asks for the end of the connection most times.
func (m *http1Maker) request(first, last bool) string {
	r := m.Rand
	method := one(r, "GET", "GET", "GET", "POST", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")
	if m.chance(8) {
		method = one(r, "get", "FOO", "M-SEARCH", "QUERY", "TRACE", "G!#$T", "GETGET", "PRI", "PURGE", "X", strings.Repeat("M", 40), "CONNECT", "SEARCH")
	}
	if first && m.chance(10) {
		method = "HEAD"
	}
	target := one(r, "/", "/a", "/a/b?c=d", "/a?b=c&d", "/local", "/move", "/up")
	if m.chance(6) {
		target = one(r, "/a//b", "/a/../b", "/%2e%2e/x", "/a%2Fb", "/a%2fb", "/a%5Cb", "/a\\b", "/a;b=c/d", "//x", "/?q={\"a\":1}", "/a%zz", "/a%", "/%00", "/a?b?c", "/./a",
			"/a/.", "/a/..", "/..", "/%7Ea", "/%41", "/a|b^c`d", "/a'b", "/[a]", "/a?%2F..%2f", "?", "/?")
	}
	if m.chance(10) {
		target = one(r, "http://test.example/a", "http://TEST.example:80/a", "http://test.example", "http://test.example?x=y", "https://test.example/a", "http://other.example/a", "HTTP://test.example/a",
			"http://test.example:8080/a", "*", "test.example:443", "test.example", "/a#b", "a", "ftp://test.example/", "http://u@test.example/", "http:///a", "http://", "http:/a", "http://test.example/a?b#c",
			"/\xc3\xa4", "/a\tb", "/a b", "", "http://[::1]/a", "/"+strings.Repeat("l", one(r, 900, 1000, 1024, 8000)), "http://test.example//a/../b", "http://test.example:/a", "http://test.example:0/")
	}
	if method == "CONNECT" {
		target = one(r, "test.example:443", "test.example:443", "test.example", "/a", "[::1]:80", "test.example:99999", ":443", "test.example:")
	}
	if method == "OPTIONS" && m.chance(4) {
		target = "*"
	}
	version := "HTTP/1.1"
	if m.old && m.chance(3) || m.chance(20) {
		version = "HTTP/1.0"
	}
	if m.chance(40) {
		version = one(r, "HTTP/1.2", "HTTP/2.0", "HTTP/0.9", "http/1.1", "HTTP/1.1 ", "HTTP/01.1", "HTTP/1.", "HTTP/11", "HTTP/3", "HTTP/1.10", "HTTP/1,1")
	}
	lines := m.hosts(target)
	framing, body := m.body(method)
	lines = append(lines, framing...)
	lines = append(lines, m.more()...)
	m.Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
	if last && !m.chance(6) {
		lines = append(lines, "Connection: close")
	}
	return method + " " + target + " " + version + "\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n" + body
}

func (m *http1Maker) hosts(target string) []string {
	if !m.chance(10) {
		if strings.HasPrefix(target, "test.example:") || strings.HasPrefix(target, "[") {
			return []string{"Host: " + target}
		}
		return []string{"Host: test.example"}
	}
	return one(m.Rand, []string{"Host:test.example"}, []string{"host:\ttest.example \t"}, []string{"Host: TEST.example:80"}, []string{"Host: test.example."},
		nil, []string{"Host: a", "Host: b"}, []string{"Host: test.example", "host: test.example"}, []string{"Host: [::1]:80"}, []string{"Host: [::1"}, []string{"Host: a_b"}, []string{"Host: a%41"}, []string{"Host: a:"},
		[]string{"Host: a:0"}, []string{"Host: a:99999"}, []string{"Host:"}, []string{"Host: test.example:443"}, []string{"Host: a,b"}, []string{"Host: a b"}, []string{"Host: \xc3\xa4"}, []string{"Host: 127.0.0.1"},
		[]string{"Host: test.example:80"}, []string{"Host : test.example"}, []string{"Host: *"}, []string{"Host: a'b!$&"})
}

// smuggled is content, which nobody is to take for a request.
const smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"

// body is one with the fields that frame it, which agree most times.
func (m *http1Maker) body(method string) (fields []string, body string) {
	r := m.Rand
	has := method == "POST" || method == "PUT" || method == "PATCH" || method == "QUERY"
	if !has && !m.chance(12) {
		return nil, ""
	}
	switch m.IntN(10) {
	case 0, 1, 2, 3:
		data := one(r, "hello", "hello", smuggled)
		return []string{fmt.Sprintf("Content-Length: %d", len(data))}, data
	case 4, 5, 6:
		return []string{"Transfer-Encoding: " + one(r, "chunked", "chunked", "chunked", "Chunked", "CHUNKED")}, m.chunks()
	case 7:
		return one(r, []string{"Content-Length: 0"}, nil), ""
	case 8:
		return []string{one(r, "content-length:5", "Content-Length:\t5", "Content-Length: 05", "Content-Length: +5", "Content-Length: 5 ", "Content-Length: 5,5", "Content-Length: 5, 5", "Content-Length:", "Content-Length: 5;a",
			"Content-Length: -5", "Content-Length: 0x5", "Content-Length: 5.0", "Content-Length: 99999999999999999999", "Content-Length: 9223372036854775808", "Content-Length: 00000000000000000000005",
			"Content_Length: 5", "Content-Length : 5", "Content-Length: 5\r\nContent-Length: 5", "Content-Length: 5\r\nContent-Length: 6", "Content-Length: \"5\"")}, "hello"
	}
	return []string{one(r, "Transfer-Encoding: chunked\r\nContent-Length: 5", "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: chunked, chunked", "Transfer-Encoding: chunked, identity", "Transfer-Encoding: identity",
		"Transfer-Encoding:chunked", "Transfer-Encoding: \tchunked\t", "Transfer-Encoding: chunked,", "Transfer-Encoding: ,chunked", "Transfer-Encoding: \"chunked\"", "Transfer-Encoding: xchunked", "Transfer-Encoding: chunked;q=1",
		"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", "Transfer-Encoding", "Transfer-Encoding:", "Transfer_Encoding: chunked", "Transfer-Encoding: identity\r\nContent-Length: 5",
		"Transfer-Encoding: chun\x00ked", "Transfer-Encoding:\x0bchunked", "Transfer-Encoding: trailers", "Transfer-Encoding: deflate")}, m.chunks()
}

// chunks is a body in chunks.
func (m *http1Maker) chunks() string {
	r := m.Rand
	var b strings.Builder
	for range m.IntN(3) {
		data := one(r, "h", "hello", "hello, world!", smuggled, "0\r\n\r\n", "5\r\nhello\r\n", strings.Repeat("z", 17))
		size := fmt.Sprintf("%x", len(data))
		if m.chance(6) {
			size = one(r, strings.ToUpper(size), "0"+size, "000000000000000"+size, "0000000000000000"+size, strings.Repeat("0", 40)+size, size+" ", " "+size, "0x"+size, "+"+size, size+"\t", "-"+size, size+"g")
		}
		if m.chance(6) {
			size += one(r, ";a", ";a=b", "; a=b", ";a=\"b\"", ";a=\"b;c\\\"\"", ";", ";;", " ;a", ";a=", ";=b", ";a=\"b", ";a b", ";a\x00", ";a=b;c=d", ";a=\xff", ";a\nb", ";a\rb", ";"+strings.Repeat("e", one(r, 100, 5000)))
		}
		end := "\r\n"
		if m.chance(30) {
			end = one(r, "\n", "\r", "", "x\r\n", "\r\n\r\n")
		}
		b.WriteString(size + "\r\n" + data + end)
	}
	last := "0"
	if m.chance(12) {
		last = one(r, "00", "0;a=b", "0 ", "", "0000000000000000000000", "0;a=\"b\"", "-0", "0x0")
	}
	b.WriteString(last + "\r\n")
	if m.chance(5) {
		for range 1 + m.IntN(3) {
			b.WriteString(one(r, "X-Sum: 1", "X-Sum: 1", "x-sum:2", "X_Sum: 3", "Content-Length: 5", "Transfer-Encoding: chunked", "Host: evil.example", "Cookie: a=b", "X-Empty:", "X-Odd : 1", " folded: 1", "X-Sum: \xe4", ":", "X",
				"Trailer: x", "Connection: close", "X-Forwarded-For: 1.2.3.4", "X-Long: "+strings.Repeat("t", one(r, 100, 900, 1100, 9000)), "X-Nul: \x00", "Authorization: a", "TE: trailers", "Content-Type: a/b", "Grpc-Status: 0",
				"GET /smuggled HTTP/1.1") + "\r\n")
		}
	}
	b.WriteString(one(r, "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\n", ""))
	return b.String()
}

// more are other fields.
func (m *http1Maker) more() (lines []string) {
	r := m.Rand
	for range one(r, 0, 0, 1, 1, 2, 3, 5) {
		switch m.IntN(4) {
		case 0:
			lines = append(lines, one(r, "Connection: keep-alive", "Connection: close", "Connection: Close, X-A", "Connection: X-A, x-b", "Connection: ,", "Connection:", "Connection: keep-alive, close", "Connection: te", "Connection: Host",
				"Connection: content-length", "Connection: transfer-encoding", "Connection: x-forwarded-for", "Connection: \"x-a\"", "Connection: a b", "Connection: upgrade", "Keep-Alive: timeout=5", "Proxy-Connection: close",
				"Proxy-Connection: keep-alive", "Upgrade: websocket", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13", "Connection: Upgrade\r\nUpgrade: odd",
				"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__", "Connection: upgrade, close\r\nUpgrade: websocket", "Upgrade: websocket\r\nUpgrade: odd\r\nConnection: upgrade",
				"TE: trailers", "TE: trailers\r\nConnection: te", "TE: gzip", "TE: trailers, deflate;q=0.5\r\nConnection: TE", "TE:", "Trailer: X-Sum", "Trailer: Content-Length", "HTTP2-Settings: AAMAAABkAAQAAP__"))
		case 1:
			lines = append(lines, one(r, "Expect: 100-continue", "Expect: 100-Continue", "Expect: 200-ok", "Expect:", "Expect: 100-continue, x", "Expect: 100-continue\r\nExpect: 100-continue", "Max-Forwards: 5", "Max-Forwards: 0", "Range: bytes=0-1",
				"Content-Type: application/grpc", "Content-Type: text/plain", "Accept: a/b", "Accept:", "Cookie: a=b", "Cookie: a=b\r\nCookie: c=d", "User-Agent: me", "User-Agent:", "Via: 1.0 x", "Via: 1.0 x\r\nVia: 1.1 y",
				"X-Forwarded-For: 10.0.0.1", "X-Forwarded-Proto: https", "X-Forwarded-Proto: ftp", "X-Request-Id: mine", "Authorization: Basic eA==", "Proxy-Authorization: x",
				"Referer: /a", "Content-Encoding: gzip", "Date: x", "X-Forwarded-Host: x", "X-Forwarded-Port: 81", "Forwarded: for=x", "Traceparent: 00-x", "Early-Data: 1"))
		case 2:
			lines = append(lines, one(r, "X-A: 1", "X-A:1", "X-A: \t1\t ", "X-A:", "X-A:  ", "X-A: 1\r\nX-A: 2", "x-a: 1\r\nX-A:", "X-a: \"q, r\"", "X_A: 1", "X__: 1", "_: 1", "X-Multi: a, b", "X-Empty:", "X-B: b", "X-A: caf\xc3\xa9", "X-A: \xff\xfe",
				"x!#$%&'*+-.^`|~: 1", "0: 1", "X-A: a\tb", "X-"+strings.Repeat("n", 300)+": 1"))
		case 3:
			if m.chance(4) {
				lines = append(lines, one(r, "X-A : 1", "X-A\t: 1", "X A: 1", " X-A: 1", "X-A", ":", ": 1", "X-A: 1\r\n 2", "X-A: 1\r\n\t2", "X-A: 1\r\n ", "X-A: a\x00b", "X-A: a\x01b", "X-A: a\x7fb", "X-A: a\rb", "X-A: a\nb: c", "X\x00A: 1", "X\xe4: 1",
					"X(A): 1", "X-A: 1\n", "\x00: 1", "X-A: 1\r", "\"X\": 1", "X/A: 1", "X-A: \x0b1", "X-A:\x0c1", "X@A: 1", ":path: /x", ":authority: x", "X-A: a\x1bb"))
			}
		}
	}
	if m.fields > 0 && m.chance(8) {
		for i := range max(0, m.fields-len(lines)-3+m.IntN(4)) {
			lines = append(lines, fmt.Sprintf("F%d: 1", i))
		}
	}
	if m.kb > 0 && m.chance(8) {
		lines = append(lines, "X-Long: "+strings.Repeat("v", max(1, m.kb<<10-40*len(lines)-200+m.IntN(300))))
	}
	return lines
}

// mutated changes a byte, takes one off, puts one in, or has one twice.
func (m *http1Maker) mutated(s string) string {
	i := m.IntN(len(s))
	b := one(m.Rand, "\x00", "\t", "\n", "\r", " ", ":", ",", ";", "\x7f", "\x80", "\xff", "a", "0", "/", "=", "\"", "\r\n", "\r\n\r\n", "\x0b", "#", "%")
	switch m.IntN(4) {
	case 0:
		return s[:i] + b + s[i+1:]
	case 1:
		return s[:i] + s[i+1:]
	case 2:
		return s[:i] + b + s[i:]
	}
	return s[:i] + s[i:i+1] + s[i:]
}

// otherLine has a line twice, not at all, or in the place of another.
func (m *http1Maker) otherLine(s string) string {
	lines := strings.SplitAfter(s, "\r\n")
	i, j := m.IntN(len(lines)), m.IntN(len(lines))
	switch m.IntN(3) {
	case 0:
		lines[i] += lines[i]
	case 1:
		lines[i] = ""
	case 2:
		lines[i], lines[j] = lines[j], lines[i]
	}
	return strings.Join(lines, "")
}

// answer is what an origin says.
func (m *http1Maker) answer() Answer {
	r := m.Rand
	if m.chance(3) {
		return Answer{}
	}
	var b strings.Builder
	if m.chance(8) {
		for range 1 + m.IntN(2) {
			b.WriteString(one(r, "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", "HTTP/1.1 102 Processing\r\nX-A: 1\r\n\r\n", "HTTP/1.1 199 Odd\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
				"HTTP/1.0 100 Continue\r\n\r\n", "HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 101 X\r\n\r\n"))
		}
	}
	status := one(r, "200 OK", "200 OK", "200", "204 No Content", "304 Not Modified", "404 Not Found", "500 x", "206 Partial Content", "301 Moved Permanently", "299 x", "201 ", "503 x", "205 Reset Content")
	if m.chance(12) {
		status = one(r, "20 OK", "2000 OK", "600 x", "999 x", "099 x", "0 x", "abc x", " 200 OK", "200\tOK", "200  OK", "200 O\x00K", "200 \xe4", "200 O\rK", "+20 x", "-20 x", "2e2 x", "")
	}
	version := "HTTP/1.1"
	if m.chance(10) {
		version = one(r, "HTTP/1.0", "HTTP/1.0", "HTTP/1.0", "HTTP/2.0", "HTTP/1.2", "http/1.1", "ICY", "HTTP/0.9", "HTTP/1.1 ", "HTTP")
	}
	a := Answer{}
	if m.chance(8) {
		a.End = one(r, "close", "reset")
	}
	fields, body := m.answerBody(&a)
	for range one(r, 0, 1, 1, 2, 4) {
		fields = append(fields, one(r, "X-A: 1", "X-A:1", "X-A: \t1 ", "X-A:", "X-A: 1\r\nX-A: 2", "Server: s", "Via: 1.1 o", "Date: x", "Set-Cookie: a=b\r\nSet-Cookie: c=d", "X_A: 1", "Connection: close", "Connection: keep-alive", "Connection: X-A",
			"Keep-Alive: timeout=5", "Proxy-Connection: close", "Trailer: X-Sum", "Upgrade: websocket", "Upgrade: h2c\r\nConnection: upgrade", "X-Envoy-Upstream-Service-Time: 5", "X-A: \xc3\xa9", "Content-Type: a/b", "Location: /x", "X-Envoy-Overloaded: true",
			"ETag: \"x\"", "X-Request-Id: theirs", "Retry-After: 1", "TE: trailers", "Alt-Svc: h3", "Expect: 100-continue", "Content-Range: bytes 0-1/2", "X-Envoy-Attempt-Count: 4", "Grpc-Status: 0", "WWW-Authenticate: Basic", "Proxy-Authenticate: x"))
	}
	if m.chance(12) {
		fields = append(fields, one(r, "X-A : 1", "X A: 1", "X-A", ": 1", "X-A: 1\r\n 2", "X-A: a\x00b", "X-A: a\x01b", "X-A: a\rb", "X-A: a\nb: c", "X(A): 1", "X\xe4: 1", "X-Long: "+strings.Repeat("v", one(r, 1000, 5000, 61000)), "X-A: 1\n", " X: 1"))
	}
	m.Shuffle(len(fields), func(i, j int) { fields[i], fields[j] = fields[j], fields[i] })
	b.WriteString(version + " " + status + "\r\n" + strings.Join(append(fields, ""), "\r\n") + "\r\n" + body)
	a.Raw = b.String()
	switch {
	case m.chance(12):
		a.Raw = m.mutated(a.Raw)
	case m.chance(16):
		a.Raw = a.Raw[:m.IntN(len(a.Raw))+1]
		if a.End == "" {
			a.End = one(r, "close", "reset")
		}
	case m.chance(24):
		a.Raw = m.otherLine(a.Raw)
	}
	a.Early = m.chance(20)
	return a
}

// answerBody is one with the fields that frame it, which agree most times.
func (m *http1Maker) answerBody(a *Answer) (fields []string, body string) {
	r := m.Rand
	switch m.IntN(12) {
	case 0, 1, 2, 3, 4:
		return []string{"Content-Length: 5"}, "hello"
	case 5, 6:
		return []string{"Transfer-Encoding: chunked"}, m.chunks()
	case 7:
		a.End = "close"
		return nil, one(r, "hello", "", "HTTP/1.1 200 OK\r\n\r\n")
	case 8:
		return []string{"Content-Length: 0"}, ""
	case 9: // more than was said, or less
		if m.chance(2) {
			a.End = "close"
			return []string{"Content-Length: 9"}, "hello"
		}
		return []string{"Content-Length: 3"}, "hello"
	case 10:
		a.End = "close"
		return []string{one(r, "Content-Length: 05", "Content-Length: +5", "Content-Length: 5,5", "Content-Length: 5, 5", "Content-Length:", "Content-Length: 5\r\nContent-Length: 5", "Content-Length: 5\r\nContent-Length: 6", "Content-Length: -1",
			"Content-Length: 0x5", "Content-Length : 5", "Content_Length: 5", "Content-Length: 99999999999999999999", "Content-Length: 5 5")}, "hello"
	}
	a.End = "close"
	return []string{one(r, "Transfer-Encoding: chunked\r\nContent-Length: 5", "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: gzip", "Transfer-Encoding: identity", "Transfer-Encoding: chunked, chunked", "Transfer-Encoding:", "Transfer-Encoding: Chunked",
		"Transfer-Encoding: xchunked", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "Transfer-Encoding : chunked", "Transfer-Encoding: identity, chunked", "Transfer-Encoding: chunked;a")}, m.chunks()
}

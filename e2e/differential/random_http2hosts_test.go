//go:build e2e

package differential

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// randomHTTP2Hosts are hosts of HTTP/2, and hosts of HTTP/1 behind clients of HTTP/2.
func randomHTTP2Hosts(r *rand.Rand) *Group {
	g := &Group{About: "random hosts of HTTP/2"}
	for i := range 3 {
		c := Config{Name: fmt.Sprintf("h%d", i), About: "random", Fresh: true, HCM: map[string]any{}}
		framed := !chance(r, 3)
		if framed {
			c.HCM["codec_type"] = "HTTP2"
		}
		cluster := "origin"
		if framed && chance(r, 4) {
			c.Fresh = false
		} else {
			cluster = "h" + c.Name
			g.Clusters = append(g.Clusters, http2Cluster(r, cluster))
		}
		route := map[string]any{"cluster": cluster}
		if chance(r, 3) {
			route["retry_policy"] = map[string]any{"retry_on": one(r, "reset", "refused-stream", "5xx", "gateway-error", "connect-failure", "reset-before-request"), "num_retries": 1, "retry_back_off": map[string]any{"base_interval": "0.005s", "max_interval": "0.01s"}}
		}
		if chance(r, 4) {
			route["timeout"] = "0.3s"
		}
		c.Routes = []map[string]any{{"match": map[string]any{"prefix": "/"}, "route": route}}
		for n := range 6 {
			h := &http2Case{Rand: r}
			h.asks(framed)
			for range 1 + h.IntN(2) {
				if cluster == "origin" {
					h.x.Respond = append(h.x.Respond, h.answerHTTP1())
				} else {
					h.x.Respond = append(h.x.Respond, h.answer())
				}
			}
			if cluster != "origin" { // of what is tried again
				h.x.Respond = append(h.x.Respond, Answer{Frames: []string{"HEADERS * END\n:status: 200"}})
			}
			c.Cases = append(c.Cases, h.done(n))
		}
		g.Configs = append(g.Configs, c)
	}
	return g
}

// asks sends one request, plainly; of HTTP/1 where it is not framed.
func (h *http2Case) asks(framed bool) {
	method := one(h.Rand, "GET", "GET", "POST", "HEAD")
	h.odd(1, method)
	h.logs = 1
	if !framed {
		h.x.Send = method + " /s1"
		if method == "POST" {
			h.x.Send += "\n\nhello"
		}
		return
	}
	switch {
	case method != "POST":
		h.step("%s 1 END /s1", method)
	case chance(h.Rand, 2):
		h.step("POST 1 /s1")
		h.step("DATA 1 END\nhello")
	default:
		h.odd(1, "open")
		h.step("POST 1 /s1")
		h.step("DATA 1\nhello")
	}
	h.step("settle")
}

// oddAnswers are heads of answers.
var oddAnswers = []named{
	{"a-no-status", "x-a: 1"}, {"a-status-empty", ":status:"}, {"a-status-2", ":status: 20"}, {"a-status-4", ":status: 2000"}, {"a-status-words", ":status: 200 OK"}, {"a-status-plus", ":status: +20"}, {"a-status-0", ":status: 000"}, {"a-status-99", ":status: 099"}, {"a-status-600", ":status: 600"}, {"a-status-999", ":status: 999"}, {"a-status-letters", ":status: abc"},
	{"a-two-statuses", ":status: 200\n:status: 200"}, {"a-status-late", "x-a: 1\n:status: 200"}, {"a-method", ":status: 200\n:method: GET"}, {"a-unknown", ":status: 200\n:foo: bar"}, {"a-path", ":path: /\n:status: 200"},
	{"a-101", ":status: 101"}, {"a-101-upgrade", ":status: 101\nupgrade: websocket\nconnection: upgrade"}, {"a-204", ":status: 204"}, {"a-205", ":status: 205"}, {"a-304", ":status: 304"}, {"a-304-length", ":status: 304\ncontent-length: 5"}, {"a-204-length", ":status: 204\ncontent-length: 5"}, {"a-204-length-0", ":status: 204\ncontent-length: 0"}, {"a-500", ":status: 500"}, {"a-503", ":status: 503"}, {"a-407", ":status: 407"}, {"a-421", ":status: 421"}, {"a-426", ":status: 426\nupgrade: h2c"},
}

// oddAnswerFields are fields of answers.
var oddAnswerFields = []named{
	{"a-te", "te: trailers"}, {"connection", "connection: close"}, {"keep-alive", "keep-alive: timeout=5"}, {"transfer-encoding", "transfer-encoding: chunked"}, {"upgrade", "upgrade: h2c"}, {"proxy-connection", "proxy-connection: keep-alive"},
	{"upper", "X-Upper: 1"}, {"space-after", "x-a: v "}, {"space-before", "x-a:  v"}, {"control", "x-a: a\x01b"}, {"cr", "x-a: a\rb"}, {"nul", "x-a: a\x00b"}, {"utf8", "x-a: é"}, {"bytes", "x-a: a\xffb"}, {"del", "x-a: a\x7fb"}, {"name-space", "x a: v"}, {"underscore", "a_b: 1"},
	{"length-0", "content-length: 0"}, {"length-5", "content-length: 5"}, {"length-7", "content-length: 7"}, {"length-two", "content-length: 5\ncontent-length: 5"}, {"length-differ", "content-length: 5\ncontent-length: 6"}, {"length-list", "content-length: 5, 5"}, {"length-plus", "content-length: +5"}, {"length-zeros", "content-length: 005"}, {"length-empty", "content-length:"}, {"length-huge", "content-length: 99999999999999999999"},
	{"empty", "x-a:"}, {"empties", "x-a:\nx-a:"}, {"repeated", "x-a: 1\nx-b: 2\nx-a: 3"}, {"cookies", "set-cookie: a=1\nset-cookie: b=2"}, {"cookie", "cookie: a=1\ncookie: b=2"}, {"host", "host: test.example"}, {"trailer", "trailer: x-sum"}, {"date", "date: x"}, {"server", "server: me"}, {"expect", "expect: 100-continue"},
	{"fields-20", manyFields(20)}, {"long", "x-long: " + strings.Repeat("l", 900)}, {"longer", "x-long: " + strings.Repeat("l", 15000)}, {"location", "location: /x"}, {"grpc-status", "grpc-status: 5"}, {"envoy", "x-envoy-upstream-service-time: 5"}, {"via", "via: 1.1 x"}, {"alt-svc", "alt-svc: h2=\":1\""},
}

// answer is what a host of HTTP/2 does with a request.
func (h *http2Case) answer() Answer {
	var a Answer
	say := func(format string, args ...any) { a.Frames = append(a.Frames, fmt.Sprintf(format, args...)) }
	a.Early = chance(h.Rand, 3)
	if a.Early {
		h.odd(1, "early")
	}
	for chance(h.Rand, 8) {
		f := one(h.Rand, named{"i-100", ":status: 100"}, named{"i-102", ":status: 102"}, named{"i-103", ":status: 103\nlink: </a>"}, named{"i-199", ":status: 199"}, named{"i-end", ":status: 103"})
		h.odd(1, f.name)
		say("HEADERS *%s\n%s", map[bool]string{true: " END"}[f.name == "i-end"], f.text)
		say("wait 20ms")
	}
	if chance(h.Rand, 6) {
		h.hostDoes(say)
	}
	head := ":status: 200"
	switch h.IntN(6) {
	case 0:
		f := one(h.Rand, oddAnswers...)
		h.odd(1, f.name)
		head = f.text
	case 1, 2:
		f := one(h.Rand, oddAnswerFields...)
		h.odd(1, f.name)
		head += "\n" + f.text
	case 3:
		if chance(h.Rand, 2) {
			code := one(h.Rand, resetCodes...)
			h.odd(1, "r-"+code)
			say("RST_STREAM * %s", code)
			return a
		}
	}
	end := chance(h.Rand, 3)
	if end {
		h.odd(1, "whole")
		say("HEADERS * END%s\n%s", one(h.Rand, "", " PAD"), head)
	} else if chance(h.Rand, 5) {
		say("HEADERS * MORE\n%s", head)
		say("CONTINUATION *\nx-more: 1")
	} else {
		say("HEADERS *\n%s", head)
	}
	say("wait 50ms")
	if chance(h.Rand, 6) {
		h.hostDoes(say)
	}
	if end {
		return a
	}
	switch h.IntN(8) {
	case 0, 1, 2:
		say("DATA * END%s\n%s", one(h.Rand, "", " PAD"), one(h.Rand, "hello", "hello", ""))
	case 3:
		say("DATA *\nhel")
		say("wait 20ms")
		say("DATA * END\nlo")
	case 4:
		say("DATA *\nhello")
		say("wait 20ms")
		f := one(h.Rand, oddTrailers...)
		h.odd(1, f.name)
		say("HEADERS * END\n%s", f.text)
	case 5:
		say("DATA *\nhello")
		say("wait 50ms")
		code := one(h.Rand, resetCodes...)
		h.odd(1, "late-"+code)
		say("RST_STREAM * %s", code)
	case 6:
		say("DATA *\nhello")
		say("wait 20ms")
		h.odd(1, "t-open")
		say("HEADERS *\nx-t: 1")
		say("wait 20ms")
		say("DATA * END\nx")
	case 7:
		say("DATA *\nhello")
		h.odd(1, "hangs")
	}
	return a
}

// hostDoes is something beside an answer.
func (h *http2Case) hostDoes(say func(string, ...any)) {
	f := one(h.Rand, named{"h-ping", "PING 0"}, named{"h-settings-window", "SETTINGS 4 " + one(h.Rand, "0", "1", "65535", "2147483647", "2147483648")}, named{"h-settings-streams", "SETTINGS 3 " + one(h.Rand, "0", "1", "100")}, named{"h-settings-push", "SETTINGS 2 " + one(h.Rand, "0", "1", "2")}, named{"h-settings-frame", "SETTINGS 5 " + one(h.Rand, "16383", "16384", "16777216")},
		named{"h-settings-connect", "SETTINGS 8 " + one(h.Rand, "0", "1", "2")}, named{"h-settings-table", "SETTINGS 1 " + one(h.Rand, "0", "4096", "100000")}, named{"h-window-0", "WINDOW_UPDATE 0 0"}, named{"h-window-overflow", "WINDOW_UPDATE 0 2147483647"}, named{"h-window-stream-0", "WINDOW_UPDATE * 0"}, named{"h-window-stream-overflow", "WINDOW_UPDATE * 2147483647"}, named{"h-window", "WINDOW_UPDATE * 5"},
		named{"h-goaway", "GOAWAY 1 NO_ERROR"}, named{"h-goaway-0", "GOAWAY 0 NO_ERROR"}, named{"h-goaway-max", "GOAWAY 2147483647 NO_ERROR"}, named{"h-goaway-error", "GOAWAY 1 " + one(h.Rand, resetCodes...)}, named{"h-goaway-error-0", "GOAWAY 0 " + one(h.Rand, resetCodes...)}, named{"h-priority", "PRIORITY * 0"}, named{"h-push", "FRAME 1 05 04\n0000000288"},
		named{"h-unknown", "FRAME 0 fa 00\n00"}, named{"h-unknown-stream", "FRAME * fa ff\n00"}, named{"h-altsvc", "FRAME 0 0a 00\n00013a"}, named{"h-origin", "FRAME 0 0c 00\n00013a"}, named{"h-data-0", "DATA 0\nx"}, named{"h-data-idle", "DATA 99\nx"}, named{"h-reset-idle", "RST_STREAM 99 CANCEL"}, named{"h-headers-even", "HEADERS 2\n:status: 200"}, named{"h-headers-idle", "HEADERS 99\n:status: 200"}, named{"h-data-first", "DATA *\nx"}, named{"h-ping-ack", "PING 0 END"}, named{"h-hpack", "FRAME * 01 04\nff ff ff ff ff ff ff"}, named{"h-continuation", "CONTINUATION *\nx-a: 1"})
	h.odd(1, f.name)
	say("%s", f.text)
	say("wait 30ms")
}

// answerHTTP1 is what a host of HTTP/1 answers.
func (h *http2Case) answerHTTP1() Answer {
	f := one(h.Rand,
		named{"1-plain", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"}, named{"1-chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"}, named{"1-trailers", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\nA_b: 2\r\n\r\n"}, named{"1-trailer-host", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nHost: a\r\n\r\n"},
		named{"1-hop", "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nhi"}, named{"1-te", "HTTP/1.1 200 OK\r\nTE: trailers\r\nContent-Length: 2\r\n\r\nhi"}, named{"1-upper", "HTTP/1.1 200 OK\r\nX-UPPER: A\r\nx-upper: B\r\nContent-Length: 2\r\n\r\nhi"}, named{"1-utf8", "HTTP/1.1 200 OK\r\nX-A: é\r\nContent-Length: 2\r\n\r\nhi"},
		named{"1-status", "HTTP/1.1 999 Odd\r\nContent-Length: 2\r\n\r\nhi"}, named{"1-600", "HTTP/1.1 600 Odd\r\nContent-Length: 2\r\n\r\nhi"}, named{"1-204", "HTTP/1.1 204 No\r\n\r\n"}, named{"1-304", "HTTP/1.1 304 No\r\nContent-Length: 7\r\n\r\n"}, named{"1-101", "HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"}, named{"1-103", "HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"}, named{"1-100", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"},
		named{"1-pseudo", "HTTP/1.1 200 OK\r\n:status: 500\r\nContent-Length: 2\r\n\r\nhi"}, named{"1-http2-settings", "HTTP/1.1 200 OK\r\nHTTP2-Settings: a\r\nProxy-Connection: x\r\nContent-Length: 2\r\n\r\nhi"}, named{"1-empty", "HTTP/1.1 200 OK\r\nX-A:\r\nX-A:\r\nContent-Length: 0\r\n\r\n"}, named{"1-cookies", "HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nCookie: c\r\nCookie: d\r\nContent-Length: 2\r\n\r\nhi"}, named{"1-close", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello"})
	h.odd(1, f.name)
	a := Answer{Raw: f.text, Early: chance(h.Rand, 4)}
	if f.name == "1-close" {
		a.End = "close"
	}
	return a
}

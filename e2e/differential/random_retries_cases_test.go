//go:build e2e

package differential

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// retryCase is a request to a route and what its hosts answer.
func retryCase(r *rand.Rand, c *Config, m retried, name string) Case {
	grpc := chance(r, 4)
	x := Case{Name: name, Send: retryRequest(r, c, m, grpc)}
	m.head = strings.HasPrefix(x.Send, "HEAD")
	m.bounded = m.bounded || m.told && grpc && strings.Contains(x.Send, "Timeout: 250")
	switch quiet := m.quiet || c.HCM["stream_idle_timeout"] != nil || c.HCM["request_timeout"] != nil; {
	case chance(r, 15) && quiet && !c.HTTP2 && !m.hedged && !m.mirrored && m.hosts == "http1":
		x.Raw, x.Send = "POST "+m.path+" HTTP/1.1\r\nHost: test.example\r\nX-H: cut\r\nContent-Length: 5\r\n\r\n"+one(r, "", "he"), ""
		return x
	case chance(r, 10) && !m.mirrored && !hasBody(&x):
		x.More = []string{retryRequest(r, c, retried{path: m.path, hosts: "busy"}, false)}
		if strings.HasPrefix(x.More[0], "HEAD") {
			x.More = nil // what stands for a head of frames is for the first
		}
	}
	n := r.IntN(4)
	if m.mirrored {
		n = 0 // the copies would take the answers
		x.Unsteady = []string{"upstream"}
	}
	delays, hangs := 0, m.bounded && chance(r, 3)
	for range n {
		a := retryAnswer(r, m, grpc)
		switch {
		case hangs && chance(r, 2):
			a = hung(r, m)
		case !hangs && (delays == 0 || m.hedged) && chance(r, 6):
			delays++
			a.late(one(r, 100, 750))
		}
		x.Respond = append(x.Respond, a)
	}
	x.endHead(m)
	if m.redirects && !m.mirrored && chance(r, 2) && m.hosts == "http1" {
		x.Respond = append(x.Respond, Answer{Send: one(r, "302", "302", "303", "307") + " Found\nLocation: http://test.example/target\nX-Retry: 1\n\n"})
		x.Respond = append(x.Respond, retryAnswer(r, m, grpc))
		x.Unsteady = []string{"log"}
	}
	return x
}

// late has an answer come after some milliseconds.
func (a *Answer) late(ms int) {
	if a.Frames != nil {
		a.Frames = append([]string{fmt.Sprintf("wait %dms", ms)}, a.Frames...)
		return
	}
	a.Delay = Duration(time.Duration(ms) * time.Millisecond)
}

// hung is no answer, or one that has no end.
func hung(r *rand.Rand, m retried) Answer {
	if m.hosts == "frames" {
		if m.head {
			return Answer{Frames: []string{"wait 1ms"}}
		}
		return Answer{Frames: one(r, []string{"wait 1ms"}, []string{"wait 1ms"}, []string{"HEADERS *\n:status: 200\nx-retry: 1"}, []string{"HEADERS *\n:status: 503", "DATA *\nhalf"})}
	}
	if m.hosts != "http2" && chance(r, 3) {
		return Answer{Raw: "HTTP/1.1 " + one(r, "200 OK", "503 No", "404 No") + "\r\nContent-Length: 9\r\nX-Retry: a\r\n\r\nhalf", End: "hang"}
	}
	return Answer{End: "hang"}
}

func retryRequest(r *rand.Rand, c *Config, m retried, grpc bool) string {
	var b strings.Builder
	method := one(r, "GET", "GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS")
	if grpc {
		method = "POST"
	}
	fmt.Fprintf(&b, "%s %s%s\nX-H: %s\n", method, m.path, one(r, "", "/", "/a?b=c"), one(r, "a", "b", "c", "d"))
	if grpc {
		b.WriteString("Content-Type: " + one(r, "application/grpc", "application/grpc+proto", "application/grpc;x=1") + "\nTE: trailers\n")
	}
	none := "0S"
	if m.limited {
		none = "1H"
	}
	if grpc && chance(r, 2) || chance(r, 12) {
		// 0 and what cannot be read are no time, a minute is longer than all limits.
		b.WriteString("Grpc-Timeout: " + one(r, "250m", "250000u", "1M", none, "9s", "123456789S", "") + "\n")
	}
	if chance(r, 4) {
		b.WriteString(one(r, "X-Retry: 1", "X-Retry: a", "x-retry: A5", "X-Retry:", "X-Retry: 1\nX-Retry: a") + "\n")
	}
	if chance(r, 5) {
		// Of a client outside, from whom nothing of this is taken.
		b.WriteString(one(r, "X-Envoy-Retry-On: 5xx,reset", "X-Envoy-Retry-Grpc-On: cancelled", "X-Envoy-Max-Retries: 3", "X-Envoy-Upstream-Rq-Timeout-Ms: 50",
			"X-Envoy-Upstream-Rq-Per-Try-Timeout-Ms: 50", "X-Envoy-Hedge-On-Per-Try-Timeout: true", "X-Envoy-Expected-Rq-Timeout-Ms: 7",
			"X-Envoy-Retriable-Status-Codes: 200", "X-Envoy-Retriable-Header-Names: x-retry", "X-Envoy-Upstream-Rq-Timeout-Alt-Response: 1") + "\n")
	}
	if chance(r, 10) {
		b.WriteString(one(r, "X-Envoy-Attempt-Count: 7", "X-Envoy-Is-Timeout-Retry: true") + "\n")
	}
	if chance(r, 8) {
		b.WriteString("X-Forwarded-For: " + one(r, "8.8.8.8", "8.8.8.8, 10.0.0.1", "10.0.0.1") + "\n")
	}
	if method == "GET" || method == "HEAD" || method == "OPTIONS" || method == "DELETE" {
		return b.String()
	}
	switch m.hosts {
	case "refused", "half", "busy": // how much of a body has come when the answer is given depends on who is faster
		return b.String()
	}
	if chance(r, 4) && !c.HTTP2 {
		return b.String() + "Transfer-Encoding: chunked\n\n5\nhello\n0\n\n"
	}
	if m.hosts == "frames" { // it opens no windows
		return b.String() + one(r, "\n", "\nhello", "\n{1000}")
	}
	return b.String() + one(r, "\n", "\nhello", "\nhello", "\nx", "\n{1000}", "\n{1001}", "\n{70000}", "\n{70001}", "\n{200000}")
}

// retryAnswer is an answer that a policy may retry.
func retryAnswer(r *rand.Rand, m retried, grpc bool) Answer {
	var fields string
	if chance(r, 4) {
		fields += "\n" + one(r, "x-retry: 1", "x-retry: a", "x-retry: A5", "x-retry:")
	}
	if chance(r, 8) {
		fields += "\nx-envoy-ratelimited: " + one(r, "true", "", "false")
	}
	if chance(r, 6) {
		fields += "\n" + one(r, "retry-after", "x-reset") + ": " + one(r, "0", "abc", "", "-1", "1.5", "+1", "9999999999", "99999999999999999999999", "1")
	}
	if chance(r, 10) {
		fields += "\n" + one(r, "x-envoy-degraded: 1", "x-envoy-degraded:", "x-envoy-overloaded: true", "x-envoy-immediate-health-check-fail: true", "x-envoy-attempt-count: 9")
	}
	status := one(r, "503", "503", "503", "500", "502", "504", "200", "404", "409", "418", "429", "599", "204")
	if grpc {
		status = "200"
		fields += "\ncontent-type: application/grpc"
		if !chance(r, 3) {
			fields += "\ngrpc-status: " + one(r, "0", "1", "4", "8", "13", "14", "14", "2", "04", "x", "")
		}
	}
	if m.hosts == "frames" {
		return frameAnswer(r, m, status, fields)
	}
	a := Answer{Send: status + " Is" + fields + one(r, "\n\n", "\n\nno")}
	if grpc {
		a.Send = status + " Is" + fields + "\n\n"
	}
	if status == "204" {
		a.Send = status + " Is" + fields + "\n\n"
	}
	if grpc && m.hosts == "http2" && chance(r, 2) {
		a.Trailers = map[string]string{"grpc-status": one(r, "0", "1", "4", "13", "14"), "grpc-message": "said"}
	}
	ends := r.IntN(8)
	if m.kept {
		ends = 7
	}
	switch ends {
	case 0:
		a = Answer{End: "reset"}
	case 1:
		a = Answer{End: one(r, "close", "reset")}
		if m.hosts == "http2" {
			a.End = "reset"
		}
	case 2:
		if m.hosts != "http2" && chance(r, 2) {
			a = Answer{Raw: "HTTP/1.1 " + status + " Is\r\nContent-Length: 9\r\n\r\nhalf", End: "reset"}
		}
	}
	return a
}

func frameAnswer(r *rand.Rand, m retried, status, fields string) Answer {
	head := "HEADERS *"
	n := r.IntN(7)
	if (m.head || status == "204") && n > 1 {
		n = 3 // there is nothing behind the head
	}
	switch n {
	case 0, 1:
		return Answer{Frames: []string{"RST_STREAM * " + one(r, "REFUSED_STREAM", "REFUSED_STREAM", "CANCEL", "INTERNAL_ERROR", "NO_ERROR", "ENHANCE_YOUR_CALM", "PROTOCOL_ERROR", "HTTP_1_1_REQUIRED")}}
	case 2:
		return Answer{Frames: []string{head + "\n:status: " + status + fields, "wait 30ms", "RST_STREAM * " + one(r, "REFUSED_STREAM", "CANCEL", "INTERNAL_ERROR", "PROTOCOL_ERROR")}}
	case 3:
		return Answer{Frames: []string{head + " END\n:status: " + status + fields}}
	case 4:
		return Answer{Frames: []string{head + "\n:status: " + status + fields, "HEADERS * END\ngrpc-status: " + one(r, "0", "1", "14") + "\nx-t: 1"}}
	}
	return Answer{Frames: []string{head + "\n:status: " + status + fields, "DATA * END\nno"}}
}

// endHead has the last answers to HEAD have no content, as the default of frames has.
func (x *Case) endHead(m retried) {
	for range 5 {
		if m.head && m.hosts == "frames" {
			x.Respond = append(x.Respond, Answer{Frames: []string{"HEADERS * END\n:status: 200"}})
		}
	}
}

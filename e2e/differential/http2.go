//go:build e2e

package differential

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

func http2Only() *http.Protocols {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	return p
}

// converseHTTP2 sends the case over HTTP/2.
func (x *Case) converseHTTP2(addr string) (*outcome, error) {
	out := &outcome{}
	t := &http.Transport{Protocols: http2Only(), DisableCompression: true}
	defer t.CloseIdleConnections()
	for _, text := range append([]string{x.Send}, x.More...) {
		if !x.overHTTP2(t, addr, text, out) {
			break
		}
	}
	return out, nil
}

func (x *Case) overHTTP2(t *http.Transport, addr, text string, out *outcome) bool {
	head, body := request(text)
	lines := strings.Split(strings.TrimSpace(head), "\r\n")
	parts := strings.Split(lines[0], " ")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if x.Abandon > 0 {
		time.AfterFunc(time.Duration(x.Abandon), cancel)
	}
	// The transport sends what was not looked at again and again, until the time is over, or it
	// gives up for the order in which it sees a GOAWAY and the end behind it.
	var sent atomic.Int32
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) {
			if sent.Add(1) > 1 {
				cancel()
			}
		},
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			out.responses = append(out.responses, &Message{Start: "HTTP/2 " + strconv.Itoa(code), Headers: headersOf(http.Header(h)), Framing: "none"})
			return nil
		},
	})
	r := (&http.Request{Method: parts[0], URL: &url.URL{Scheme: "http", Host: addr, Opaque: parts[1]}, Header: http.Header{"User-Agent": nil}}).WithContext(ctx)
	for _, l := range lines[1:] {
		name, value, _ := strings.Cut(l, ":")
		if value = strings.TrimSpace(value); strings.EqualFold(name, "host") {
			r.Host = value
		} else if !strings.EqualFold(name, "content-length") {
			r.Header[name] = append(r.Header[name], value)
		}
	}
	if body != "" {
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
	}
	resp, err := t.RoundTrip(r)
	switch {
	case err != nil && sent.Load() > 1:
		out.end = "not looked at"
		return false
	case err != nil:
		out.end = endedHTTP2(err)
		return false
	}
	defer resp.Body.Close()
	m := &Message{Start: "HTTP/2 " + strconv.Itoa(resp.StatusCode), Headers: headersOf(resp.Header), Framing: "stream"}
	out.responses = append(out.responses, m)
	b, err := io.ReadAll(resp.Body)
	m.Body, m.Trailers = string(b), headersOf(resp.Trailer)
	if err != nil {
		m.Broken, out.end = "cut off", endedHTTP2(err)
	}
	return err == nil
}

// endedHTTP2 names what ended a stream or connection.
func endedHTTP2(err error) string {
	var s http2.StreamError
	switch {
	case errors.As(err, &s):
		return "RST_STREAM " + s.Code.String()
	case strings.Contains(err.Error(), "GOAWAY"):
		return "GOAWAY"
	case errors.Is(err, context.DeadlineExceeded):
		return "open"
	case errors.Is(err, context.Canceled):
		return ""
	case strings.Contains(err.Error(), "stream error"):
		_, code, _ := strings.Cut(err.Error(), "; ")
		return "RST_STREAM " + code
	}
	return "closed"
}

func headersOf(h http.Header) (out []Header) {
	for _, k := range slices.Sorted(maps.Keys(h)) {
		for _, v := range h[k] {
			out = append(out, Header{k, v})
		}
	}
	return out
}

// startHTTP2 is the origin that speaks HTTP/2, without TLS.
func (o *origins) startHTTP2() error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	o.lns = append(o.lns, ln)
	o.ports["http2"] = ln.Addr().(*net.TCPAddr).Port
	s := &http.Server{Protocols: http2Only(), Handler: http.HandlerFunc(o.serveHTTP2)}
	go func() { _ = s.Serve(ln) }()
	return nil
}

func (o *origins) serveHTTP2(w http.ResponseWriter, r *http.Request) {
	m := &Message{Start: r.Method + " " + r.RequestURI + " HTTP/2", Framing: "stream"}
	m.Headers = append(headersOf(r.Header), Header{":authority", r.Host})
	m.Said, _ = r.Context().Value(announcedKey{}).(string)
	a, i := o.arrive("http2", m)
	if a.Fresh {
		a.End = "" // a stream is never used again
	}
	if !a.Early {
		o.reads(1)
		b, err := io.ReadAll(r.Body)
		whole := *m
		whole.Body, whole.Trailers = string(b), headersOf(r.Trailer)
		if err != nil {
			whole.Broken = "cut off"
		}
		o.mu.Lock()
		if i < len(o.seen) && o.seen[i].Message == m {
			o.seen[i].Message = &whole
		}
		o.mu.Unlock()
		o.reads(-1)
	}
	time.Sleep(time.Duration(a.Delay))
	if a.Send == "" && a.End != "" {
		o.endHTTP2(a.End)
		return
	}
	head, body, _ := strings.Cut(a.Send, "\n\n")
	if a.Send == "" {
		head, body = "200 OK", "ok"
	}
	lines := strings.Split(head, "\n")
	for _, l := range lines[1:] {
		name, value, _ := strings.Cut(l, ":")
		w.Header().Add(name, strings.TrimSpace(value))
	}
	w.Header().Set("X-Origin", "http2")
	w.Header()["Date"] = nil
	status, _, _ := strings.Cut(lines[0], " ")
	code, _ := strconv.Atoi(status)
	w.WriteHeader(code)
	_, _ = io.WriteString(w, body)
	for k, v := range a.Trailers {
		w.Header().Set(http.TrailerPrefix+k, v)
	}
	if a.End != "" {
		_ = http.NewResponseController(w).Flush()
		time.Sleep(50 * time.Millisecond) // so that the answer is on its way before its end
		o.endHTTP2(a.End)
	}
}

// endHTTP2 ends a stream other than by its last frame.
func (o *origins) endHTTP2(how string) {
	if how == "hang" {
		o.hold()
	}
	panic(http.ErrAbortHandler)
}

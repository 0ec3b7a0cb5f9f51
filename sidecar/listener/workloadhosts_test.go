package listener

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Every message of the stress test is made of its request's own name, again and again: any
// byte of another shows.
type pattern string

// text is n bytes of the pattern.
func (p pattern) text(n int) string {
	return strings.Repeat(string(p), n/len(p)+1)[:n]
}

// check reads a body to its end; n is how many bytes were the pattern's. The error is the
// reader's, or that other bytes came.
func (p pattern) check(r io.Reader) (n int, err error) {
	buf := make([]byte, 8<<10)
	for {
		k, err := r.Read(buf)
		for i, c := range buf[:k] {
			if c != p[(n+i)%len(p)] {
				return n + i, fmt.Errorf("%w: at %d of %q there is %q", errForeign, n+i, string(p), buf[max(0, i-20):min(k, i+60)])
			}
		}
		if n += k; err != nil {
			return n, err
		}
	}
}

var errForeign = errors.New("bytes of another message")

// foreign tells whether an error is a finding; others are what the test provokes.
func foreign(err error) bool { return errors.Is(err, errForeign) }

// moody is an origin that does what a request's x-do says, and more by chance. It checks that
// what it gets is of one request.
type moody struct{ t *testing.T }

func (m moody) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p := pattern(r.Header.Get("X-Name"))
	if p == "" || r.URL.Path != "/"+strings.Trim(string(p), "|") {
		m.t.Errorf("a request for %q is named %q", r.URL.Path, p)
		return
	}
	do := r.Header.Get("X-Do")
	switch {
	case do == "503" || rand.N(50) == 0:
		w.WriteHeader(503)
		return
	case do == "early":
	case do == "stall":
		time.Sleep(rand.N(30 * time.Millisecond))
		fallthrough
	default:
		n, err := p.check(r.Body)
		if foreign(err) {
			m.t.Errorf("%s: %v", r.Proto, err)
		} else if err == io.EOF {
			if want := r.Header.Get("X-Size"); strconv.Itoa(n) != want {
				m.t.Errorf("%s: %d bytes came of %s", r.Proto, n, want)
			}
			if v := r.Trailer.Get("X-Last"); v != "" && v != string(p) {
				m.t.Errorf("%s: the trailers are of %q", r.Proto, v)
			}
		} else {
			return
		}
	}
	size, _ := strconv.Atoi(r.Header.Get("X-Answer"))
	w.Header().Set("X-Name", string(p))
	w.Header().Set("Trailer", "X-Last")
	if rand.N(4) == 0 {
		w.Header().Set("Connection", "close")
	}
	if rand.N(4) == 0 {
		w.Header().Del("Trailer")
		w.Header().Set("Content-Length", strconv.Itoa(size))
	}
	text := p.text(size)
	for len(text) > 0 {
		n := min(len(text), 1+rand.N(40<<10))
		if _, err := io.WriteString(w, text[:n]); err != nil {
			return
		}
		if text = text[n:]; rand.N(4) == 0 {
			_ = http.NewResponseController(w).Flush()
		}
		if do == "abort" && rand.N(3) == 0 {
			panic(http.ErrAbortHandler)
		}
	}
	w.Header().Set("X-Last", string(p))
}

// breaker is the address of a host that ends its connections, at once or when something comes.
func breaker(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if rand.N(2) == 0 {
				_ = c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
				_, _ = c.Read(make([]byte, 100))
			}
			if rand.N(2) == 0 {
				_ = c.(*net.TCPConn).SetLinger(0)
			}
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().String()
}

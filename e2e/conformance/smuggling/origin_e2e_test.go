//go:build e2e

package smuggling

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// origin records what reaches it. It does not parse requests: it answers when what it
// has seen of a message is what the case says it may see, and nothing else.
type origin struct {
	addr string

	mu      sync.Mutex
	want    []string // messages still to come, in normal form
	partial string   // the most to be seen of the last, which never ends
	wrong   error
	ended   bool // the case is over
	strays  []string
	before  string // what was partial in the case before: it may be read late
	halves  int    // connections with a message that is not whole
}

func newOrigin(t *testing.T) *origin {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := &origin{addr: l.Addr().String()}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go o.serve(c)
		}
	}()
	return o
}

func (o *origin) expect(want []string, partial string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.before = o.partial
	o.want, o.partial, o.wrong, o.ended = want, partial, nil, false
}

// verdict tells what the origin saw that it should not have, or did not see.
func (o *origin) verdict() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	// The connection with the message that never ends has to end.
	for end := time.Now().Add(patience); o.halves > 0 && time.Now().Before(end); {
		o.mu.Unlock()
		time.Sleep(time.Millisecond)
		o.mu.Lock()
	}
	if o.halves > 0 && o.wrong == nil {
		o.wrong = errors.New("the connection with half a message stays open")
	}
	o.ended = true
	if o.wrong == nil && len(o.want) > 0 {
		return fmt.Errorf("the origin did not see %q", o.want[0])
	}
	return o.wrong
}

func (o *origin) serve(c net.Conn) {
	defer c.Close()
	var seen []byte
	half := false
	defer func() {
		if half {
			o.mu.Lock()
			o.halves--
			o.mu.Unlock()
		}
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		seen = append(seen, buf[:n]...)
		answer := o.look(string(seen), &half)
		if answer == "" {
			continue
		}
		seen = seen[:0]
		if _, err := c.Write([]byte(answer)); err != nil {
			return
		}
	}
}

// look judges what was seen of a message, and answers it when it is whole.
func (o *origin) look(seen string, half *bool) (answer string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	got, ok := normal(seen)
	switch {
	case o.ended && o.partial != "" && strings.HasPrefix(must(o.partial), got):
	case o.ended:
		o.strays = append(o.strays, seen)
	case !ok:
		o.wrong = fmt.Errorf("the origin saw broken chunks: %q", seen)
	case len(o.want) > 0 && got == must(o.want[0]):
		o.want = o.want[1:]
		if strings.HasPrefix(seen, "HEAD ") {
			return "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
		}
		return "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	case len(o.want) > 0 && strings.HasPrefix(must(o.want[0]), got):
	case len(o.want) == 0 && o.partial != "" && strings.HasPrefix(must(o.partial), got):
		if !*half {
			*half = true
			o.halves++
		}
	case o.before != "" && strings.HasPrefix(must(o.before), got):
	default:
		o.wrong = fmt.Errorf("the origin saw %q", seen)
		if len(o.want) > 0 {
			o.wrong = fmt.Errorf("%w, want %q", o.wrong, o.want[0])
		}
	}
	return ""
}

func must(s string) string { n, _ := normal(s); return n }

// ended stands in the normal form for the last chunk's line.
const ended = "\x00last chunk\x00"

// normal is a message without its chunks' sizes, which depend on when the bytes
// arrive: the head, the data, and behind the last chunk whatever follows. It is false
// when the framing is not exact.
func normal(s string) (string, bool) {
	head, body, ok := strings.Cut(s, "\r\n\r\n")
	if !ok || !strings.Contains(strings.ToLower(head), "\r\ntransfer-encoding: chunked") {
		return s, true
	}
	out := head + "\r\n\r\n"
	for {
		line, rest, ok := strings.Cut(body, "\r\n")
		if !ok {
			return out, len(body) <= 16
		}
		n, err := strconv.ParseUint(line, 16, 31)
		switch {
		case err != nil:
			return out, false
		case n == 0:
			return out + ended + rest, true
		case uint64(len(rest)) <= n:
			return out + rest, true
		case !strings.HasPrefix("\r\n", rest[n:min(len(rest), int(n)+2)]):
			return out, false
		}
		out += rest[:n]
		body = strings.TrimPrefix(rest[n:], "\r\n")
	}
}

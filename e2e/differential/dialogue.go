//go:build e2e

package differential

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// dialoguePatience is how long a speaker awaits anything.
const dialoguePatience = 1500 * time.Millisecond

// speaker is one end of a dialogue. All that comes is read at once unless it is deaf.
type speaker struct {
	c    net.Conn
	mu   sync.Mutex
	cond *sync.Cond
	deaf bool
	late bool // the time is over
	own  bool // it closed before the other's end came
	b    []byte
	end  string
	// from is where the bytes begin that are counted, and upTo how many of them were awaited.
	from, upTo int
}

func newSpeaker(c net.Conn) *speaker {
	s := &speaker{c: c}
	s.cond = sync.NewCond(&s.mu)
	go s.hear()
	return s
}

func (s *speaker) hear() {
	for b := make([]byte, 64<<10); ; {
		s.mu.Lock()
		for s.deaf {
			s.cond.Wait()
		}
		s.mu.Unlock()
		n, err := s.c.Read(b)
		s.mu.Lock()
		s.b = append(s.b, b[:n]...)
		if err != nil {
			s.end = endOf(err)
		}
		s.cond.Broadcast()
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// endOf is what a read's error says of how the other ended.
func endOf(err error) string {
	switch {
	case err == io.EOF:
		return "closed"
	case errors.Is(err, syscall.ECONNRESET):
		return "reset"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "cut off"
	}
	return "broken"
}

// until waits for what done tells of, under mu, or for the other's end or that of patience.
func (s *speaker) until(done func() bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.late = false
	t := time.AfterFunc(dialoguePatience, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.late = true
		s.cond.Broadcast()
	})
	defer t.Stop()
	for !done() && s.end == "" && !s.late {
		s.cond.Wait()
	}
	return !s.late
}

// raw is the TCP connection under whatever there is.
func (s *speaker) raw() *net.TCPConn {
	for c := s.c; ; {
		switch v := c.(type) {
		case *net.TCPConn:
			return v
		case *tls.Conn:
			c = v.NetConn()
		case announcedConn:
			c = v.Conn
		default:
			return nil
		}
	}
}

// follow does what the script says; a text is written by itself, so that both may say much.
func (s *speaker) follow(script []string) {
	for _, line := range script {
		verb, rest, _ := strings.Cut(line, " ")
		switch verb {
		case "say":
			_ = s.c.SetWriteDeadline(time.Now().Add(dialoguePatience))
			_, _ = s.c.Write(said(rest)) // whoever has left is found out by who reads
		case "wait":
			d, _ := time.ParseDuration(rest)
			time.Sleep(d)
		case "await":
			if !s.await(rest) {
				return
			}
		case "end":
			c := s.c
			if a, ok := c.(announcedConn); ok {
				c = a.Conn
			}
			if w, ok := c.(interface{ CloseWrite() error }); ok {
				_ = w.CloseWrite()
			}
		case "close", "reset":
			s.mu.Lock()
			s.own = s.end == ""
			s.mu.Unlock()
			if t := s.raw(); verb == "reset" && t != nil {
				_ = t.SetLinger(0)
				_ = t.Close()
			}
			s.c.Close()
			return
		case "deaf", "hear":
			s.mu.Lock()
			s.deaf = verb == "deaf"
			s.cond.Broadcast()
			s.mu.Unlock()
		default:
			panic("no word: " + line)
		}
	}
	s.until(func() bool { return false })
}

func (s *speaker) await(what string) bool {
	switch what {
	case "end":
		return s.until(func() bool { return false })
	case "head":
		return s.until(func() bool {
			if i := bytes.Index(s.b, []byte("\r\n\r\n")); i >= 0 {
				s.from = i + 4
			}
			return s.from > 0
		})
	}
	n, err := strconv.Atoi(what)
	if err != nil {
		panic(err)
	}
	s.mu.Lock()
	s.upTo = max(s.upTo, n)
	s.mu.Unlock()
	return s.until(func() bool { return len(s.b)-s.from >= n })
}

// heard is the head that came, what came after it, and how it ended. Who closed itself has
// heard what it awaited.
func (s *speaker) heard() (head *Message, body, end string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, end := s.b[s.from:], s.end
	if s.from > 0 {
		head, _ = readHead(bufio.NewReader(bytes.NewReader(s.b[:s.from])))
	}
	switch {
	case s.own:
		b, end = b[:min(len(b), s.upTo)], "own"
	case end == "":
		end = "open"
	case end == "reset":
		// What came before a reset may be forgotten by it.
		b = b[:min(len(b), s.upTo)]
	}
	return head, told(b), end
}

// told is short for what is long.
func told(b []byte) string {
	if len(b) <= 200 {
		return string(b)
	}
	return fmt.Sprintf("%s... %d bytes of sum %08x", b[:20], len(b), crc32.ChecksumIEEE(b))
}

var many = regexp.MustCompile(`\{[0-9]+\}`)

// said is a text with what its numbers stand for.
func said(text string) []byte {
	return many.ReplaceAllFunc([]byte(text), func(m []byte) []byte {
		n, _ := strconv.Atoi(string(m[1 : len(m)-1]))
		b := make([]byte, 0, n+8)
		for i := 0; len(b) < n; i++ {
			b = fmt.Appendf(b, "%07d ", i)
		}
		return b[:n]
	})
}

// discuss is the client's end.
func (x *Case) discuss(c net.Conn, out *outcome) {
	_ = c.SetDeadline(time.Time{})
	s := newSpeaker(c)
	s.follow(x.Dialogue.Client)
	head, body, end := s.heard()
	if head != nil {
		out.responses = []*Message{head}
	}
	out.tcp, out.end = body, end
}

// discusses is how the connections to origins go in a case.
func (o *origins) discusses(d *Dialogue) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.dialogue, o.answered = d, 0
}

// discuss is a host's end, if the case has one.
func (o *origins) discuss(name string, c net.Conn) bool {
	o.mu.Lock()
	if o.dialogue == nil {
		o.mu.Unlock()
		return false
	}
	scripts := append([][]string{o.dialogue.Host}, o.dialogue.Next...)
	script := scripts[min(o.answered, len(scripts)-1)]
	o.answered++
	o.reading++
	i := len(o.seen)
	m := &Message{Start: "nothing", Framing: "none"}
	o.seen = append(o.seen, seen{name, m})
	of := o.dialogue
	o.mu.Unlock()
	s := newSpeaker(c)
	s.follow(script)
	head, body, end := s.heard()
	if head == nil {
		head = &Message{Start: "bytes"}
	}
	head.Body, head.Framing = body, end
	o.mu.Lock()
	defer o.mu.Unlock()
	o.reading--
	if o.dialogue == of && i < len(o.seen) {
		o.seen[i].Message = head
	}
	return true
}

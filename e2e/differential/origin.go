//go:build e2e

package differential

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// seen is one request as an origin got it.
type seen struct {
	Origin string
	*Message
}

// origins are the servers behind one of the two programs. They record requests
// and answer as the case says.
type origins struct {
	ports map[string]int
	lns   []net.Listener
	// logFile is where the collector writes what it gets for a config.
	logFile func(config string) string
	// refusing is the socket of the address on which nothing listens.
	refusing int

	hosts map[string]string // addresses of those that a group has besides

	mu       sync.Mutex
	secure   *Secure // of the case
	seen     []seen
	script   []Answer
	fresh    bool
	held     []chan struct{}
	framed   []net.Conn // of the origin that speaks frame by frame
	dialogue *Dialogue  // of the case
	answered int        // connections of it
	// reading counts the requests whose body is being read.
	reading int
	taps    []*tap
	stage   *stage // of a case that says what both ends do
}

// originNames are the addresses that a bootstrap may name, beside http2 and refused.
var originNames = []string{"origin", "other", "third"}

func startOrigins(certs *certs, logFile func(config string) string) (*origins, error) {
	o := &origins{ports: map[string]int{}, hosts: map[string]string{}, logFile: logFile}
	for _, name := range originNames {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		o.lns = append(o.lns, ln)
		o.ports[name] = ln.Addr().(*net.TCPAddr).Port
		go o.accept(name, ln)
	}
	if err := errors.Join(o.startHTTP2(), o.startFrames(), o.startAnnounced(certs), o.startSecure(certs), o.startCollector(), o.startStage(certs)); err != nil {
		return nil, err
	}
	var err error
	o.refusing, o.ports["refused"], err = boundSocket()
	return o, err
}

// boundSocket has a port and does not listen, so that connections are refused and
// nobody else gets the port.
func boundSocket() (fd, port int, err error) {
	if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return 0, 0, err
	}
	if err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, 0, err
	}
	a, err := unix.Getsockname(fd)
	if err != nil {
		return 0, 0, err
	}
	return fd, a.(*unix.SockaddrInet4).Port, nil
}

func (o *origins) close() {
	for _, ln := range o.lns {
		ln.Close()
	}
	_ = unix.Close(o.refusing)
	o.reset(nil, false)
}

// reset begins a case.
func (o *origins) reset(script []Answer, fresh bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seen, o.script, o.fresh = nil, script, fresh
	for _, h := range o.held {
		close(h)
	}
	o.held = nil
	for _, t := range o.taps {
		t.take()
	}
	if fresh && len(o.framed) > 0 {
		for _, c := range o.framed {
			c.Close()
		}
		o.framed = nil
		time.Sleep(40 * time.Millisecond) // until that is noticed
	}
}

// requests are those of the case, whole or as they were cut off: bodies that are
// still being read are waited for.
func (o *origins) requests() []seen {
	for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(time.Millisecond) {
		o.mu.Lock()
		if o.reading == 0 || time.Now().After(deadline) {
			defer o.mu.Unlock()
			return append([]seen(nil), o.seen...)
		}
		o.mu.Unlock()
	}
}

func (o *origins) accept(name string, ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			o.serve(name, c)
		}()
	}
}

// arrive records a request and takes the answer that is its turn.
func (o *origins) arrive(name string, m *Message) (Answer, int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seen = append(o.seen, seen{name, m})
	var a Answer
	if len(o.script) > 0 {
		a, o.script = o.script[0], o.script[1:]
	}
	if o.fresh && a.Raw == "" && a.End == "" {
		a.Fresh, a.End = true, "close"
	}
	return a, len(o.seen) - 1
}

// hold waits for the end of the case.
func (o *origins) hold() {
	h := make(chan struct{})
	o.mu.Lock()
	o.held = append(o.held, h)
	o.mu.Unlock()
	<-h
}

// reads counts a request whose body is about to be read, or was.
func (o *origins) reads(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.reading += n
}

func (o *origins) serve(name string, c net.Conn) {
	if o.discuss(name, c) {
		return
	}
	r := bufio.NewReader(o.tapped(c))
	if first, err := r.Peek(4); err != nil || string(first) == "tcp " {
		o.echo(name, c, r)
		return
	}
	if first, _ := r.Peek(1); first[0] < ' ' || first[0] > '~' {
		o.count(name, c, r)
		return
	}
	for {
		m, err := readHead(r)
		if err != nil {
			return
		}
		m.Said = saidOn(c)
		o.reads(1)
		a, i := o.arrive(name, m)
		if expect, ok := m.get("expect"); ok && strings.EqualFold(expect, "100-continue") && !a.Early {
			if _, err := io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
				o.reads(-1)
				return
			}
		}
		if !a.Early {
			body := *m
			body.readBody(r, false)
			o.mu.Lock()
			if i < len(o.seen) && o.seen[i].Message == m {
				o.seen[i].Message = &body
			}
			o.mu.Unlock()
			if body.Broken != "" {
				o.reads(-1)
				return
			}
		}
		o.reads(-1)
		time.Sleep(time.Duration(a.Delay))
		if _, err := io.WriteString(c, a.bytesFor(name)); err != nil {
			return
		}
		if a.Early && a.End == "" {
			m.readBody(r, false)
		}
		switch a.End {
		case "close":
			return
		case "reset":
			_ = c.(*net.TCPConn).SetLinger(0)
			return
		case "hang":
			o.hold()
			return
		}
	}
}

// bytesFor is the answer of an origin, which says its name.
func (a *Answer) bytesFor(name string) string {
	if a.Raw != "" {
		return a.Raw
	}
	b := a.bytes()
	if line, rest, ok := strings.Cut(b, "\r\n"); ok && !strings.HasPrefix(line, "HTTP/1.1 1") {
		if a.Fresh {
			rest = "Connection: close\r\n" + rest
		}
		return line + "\r\nX-Origin: " + name + "\r\n" + rest
	}
	return b
}

// echo answers lines of plain TCP: "tcp close" ends the connection, "tcp reset" resets it
// once it has been answered.
func (o *origins) echo(name string, c net.Conn, r *bufio.Reader) {
	for {
		line, err := r.ReadString('\n')
		if line != "" {
			o.arrive(name, &Message{Start: strings.TrimSpace(line), Framing: "none", Said: saidOn(c)})
		}
		if err != nil || strings.HasPrefix(line, "tcp close") {
			return
		}
		if _, err := io.WriteString(c, name+" says "+line); err != nil {
			return
		}
		if strings.HasPrefix(line, "tcp reset") {
			time.Sleep(50 * time.Millisecond) // a reset forgets what was not sent yet
			_ = c.(*net.TCPConn).SetLinger(0)
			return
		}
	}
}

// count greets who sends what is no text, and notes how much of it came.
func (o *origins) count(name string, c net.Conn, r *bufio.Reader) {
	if _, err := io.WriteString(c, name+"\n"); err != nil {
		return
	}
	n, _ := io.Copy(io.Discard, r)
	o.arrive(name, &Message{Start: fmt.Sprintf("%d bytes", n), Framing: "none"})
}

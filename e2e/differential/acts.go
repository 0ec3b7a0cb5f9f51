//go:build e2e

package differential

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"hash"
	"hash/fnv"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// stage is where both ends of a case act, one step after the other: whoever waits for what
// the other end sent decides the order. What is sent goes out on its own, so that a step
// which fills all buffers holds up no other.
type stage struct {
	mu      sync.Mutex
	changed sync.Cond
	client  *turn
	clients []*turn
	hosts   []*turn // in the order in which requests came
	all     []*actor
	windows map[string]uint32 // that the ends of HTTP/2 begin with
	vain    []string          // waits for what did not come
	over    bool
	tls     bool // of the client
	// connects has hosts of HTTP/2 tell that they take extended CONNECT.
	connects bool
}

// turn is one exchange at one end.
type turn struct {
	a       *actor
	id      uint32
	method  string
	interim []*Message
	m       *Message // the request, or the final answer
	got     int      // bytes of its body
	sum     hash.Hash64
	first   []byte // of the body: all of what a program says by itself
	end     string // how the other end ended it, empty while it is open

	steps      chan func()
	sent       int
	window     int // HTTP/2: what may be sent
	owed       int // HTTP/2: what is to be given back
	chunked    bool
	untilClose bool
	tunnel     bool // what follows the heads is bytes
	ended      bool // by this end
	given      bool // up, by this end
}

func newTurn(a *actor, id uint32) *turn {
	t := &turn{a: a, id: id, sum: fnv.New64a(), steps: make(chan func(), 100), window: int(a.initial)}
	go func() {
		for f := range t.steps {
			f()
		}
	}()
	return t
}

// take notes a piece of the body. The lock is held.
func (t *turn) take(b []byte) {
	t.got += len(b)
	_, _ = t.sum.Write(b)
	t.first = append(t.first, b[:min(len(b), max(0, shownOfBody-len(t.first)))]...)
}

// shownOfBody is how much of a body is compared to the letter.
const shownOfBody = 256

// message is what came, with its body in short.
func (t *turn) message() *Message {
	m := *t.m
	m.Body = string(t.first)
	if t.got > len(t.first) {
		m.Body = fmt.Sprintf("%d bytes, %x", t.got, t.sum.Sum64())
	}
	return &m
}

// await returns when done says so, or time is up. The lock is held while done is called.
func (s *stage) await(patience time.Duration, done func() bool) bool {
	end := time.Now().Add(patience)
	over := time.AfterFunc(patience, func() { s.mu.Lock(); s.changed.Broadcast(); s.mu.Unlock() })
	defer over.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for !done() && time.Now().Before(end) {
		s.changed.Wait()
	}
	return done()
}

// set changes what is awaited.
func (s *stage) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	s.changed.Broadcast()
}

// patienceOnStage is how long a step waits.
const patienceOnStage = 1 * time.Second

// at is the turn of "c", "h" or "h2", the second request that came to a host; nil where there is none yet.
func (s *stage) at(who string) *turn {
	if who == "c" {
		return s.client
	}
	n, _ := strconv.Atoi(who[1:])
	if n = max(n, 1); n <= len(s.hosts) {
		return s.hosts[n-1]
	}
	return nil
}

// act is one step of the script: who and what.
func (s *stage) act(step string) {
	words := strings.Fields(step)
	switch {
	case words[0] == "wait":
		d, _ := time.ParseDuration(words[1])
		time.Sleep(d)
		return
	case words[1] == "window":
		n, _ := strconv.ParseUint(words[2], 10, 32)
		s.set(func() { s.windows[words[0][:1]] = uint32(n) })
		return
	case words[1] == "await":
		if !s.await(patienceOnStage, func() bool { t := s.at(words[0]); return t != nil && t.has(words[2]) }) {
			s.vain = append(s.vain, step)
		}
		return
	}
	var t *turn
	s.set(func() { t = s.at(words[0]) })
	if t == nil {
		s.vain = append(s.vain, step)
		return
	}
	t.do(words[1:])
}

// has tells whether what is awaited has come. The lock is held.
func (t *turn) has(what string) bool {
	switch what {
	case "head":
		return t.m != nil
	case "interim":
		return len(t.interim) > 0
	case "end":
		return t.end != ""
	case "gone":
		return t.a.gone != ""
	case "left":
		return t.a.gone != "" || strings.Contains(t.end, "RST_STREAM")
	}
	n, _ := strconv.Atoi(what)
	return t.got >= n
}

// do is a step of an end.
func (t *turn) do(words []string) {
	rest := words[1:]
	n := 0
	if len(rest) > 0 {
		n, _ = strconv.Atoi(rest[0])
	}
	end := slices.Contains(rest, "END")
	a := t.a
	switch words[0] {
	case "data":
		t.steps <- func() { a.data(t, n, end) }
	case "trailers":
		t.steps <- func() { a.trailers(t, rest) }
	case "end":
		t.steps <- func() { a.data(t, 0, true) }
	case "reset":
		t.giveUp()
		a.reset(t, codeNamed(rest[0]))
	case "goaway":
		a.goAwayNow(codeNamed(rest[0]))
	case "close":
		t.steps <- func() { _ = a.c.Close() }
	case "half":
		t.steps <- func() { a.half() }
	case "leave":
		t.giveUp()
		_ = a.c.Close()
	case "cut":
		t.giveUp()
		a.cut()
	case "pause", "stall", "go":
		a.pauses(words[0])
	default: // an answer
		t.steps <- func() { a.head(t, words) }
	}
}

func (t *turn) giveUp() { t.a.s.set(func() { t.given = true }) }

// converseActs plays the case.
func (x *Case) converseActs(p *program, addr string, certs *certs) (*outcome, error) {
	s := &stage{windows: map[string]uint32{}, tls: x.TLS != nil, connects: slices.ContainsFunc(x.Acts, func(step string) bool { return strings.HasPrefix(step, "c WEBSOCKET") })}
	s.changed.L = &s.mu
	o := p.origins
	o.mu.Lock()
	o.stage = s
	o.mu.Unlock()
	defer s.close()
	asked := 0
	for _, step := range x.Acts {
		words := strings.Fields(step)
		if words[0] != "c" || strings.ToUpper(words[1]) != words[1] {
			s.act(step)
			continue
		}
		if s.client == nil {
			c, err := x.dial(addr, certs)
			if err != nil {
				return nil, err
			}
			tc, secure := c.(*tls.Conn)
			h2 := secure && tc.ConnectionState().NegotiatedProtocol == "h2" || !secure && x.HTTP2
			s.begin(newActor(s, c, h2, false), nil)
		} else {
			s.begin(s.client.a, s.client)
		}
		t := s.client
		if asked++; t.id == 0 {
			t.id = uint32(2*asked - 1)
		}
		t.method = words[1]
		if t.tunnel = t.method == "CONNECT" || t.method == "WEBSOCKET"; t.tunnel && t.method == "WEBSOCKET" {
			t.method = "GET"
		}
		s.set(func() { t.a.turns[t.id], t.window = t, int(t.a.initial) })
		t.steps <- func() { t.a.head(t, words[1:]) }
	}
	out := s.outcome()
	o.mu.Lock()
	o.seen = nil
	for _, t := range s.hosts {
		m := t.message()
		if !slices.Contains([]string{"whole", "END_STREAM"}, t.end) {
			m.Broken = cmp.Or(t.end, "open")
		}
		o.seen = append(o.seen, seen{t.a.name, m})
	}
	o.mu.Unlock()
	return out, nil
}

// begin has the client ask again, or for the first time.
func (s *stage) begin(a *actor, before *turn) {
	t := newTurn(a, 0)
	s.set(func() {
		s.client = t
		s.clients = append(s.clients, t)
	})
	if before == nil {
		a.start()
	}
}

// outcome is what came of it all.
func (s *stage) outcome() *outcome {
	s.await(200*time.Millisecond, func() bool {
		return !slices.ContainsFunc(s.hosts, func(t *turn) bool { return t.end == "" })
	})
	out := &outcome{streams: map[uint32]string{}, end: "open", vain: s.vain}
	if s.client == nil {
		return out
	}
	if a := s.client.a; a.h2 { // the reset of a request that was answered early comes behind the answer
		s.await(300*time.Millisecond, func() bool {
			return s.client.ended || s.client.given || s.client.end != "END_STREAM" || a.gone != ""
		})
	}
	out.end = s.client.a.howItEnded(s.client)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.clients {
		out.responses = append(out.responses, t.interim...)
		if t.m != nil {
			out.responses = append(out.responses, t.message())
		}
		out.streams[t.id] = t.end
	}
	return out
}

// close ends what is left, the client's end first.
func (s *stage) close() {
	s.set(func() { s.over = true })
	if s.client != nil {
		_ = s.client.a.c.Close()
		time.Sleep(10 * time.Millisecond)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.all {
		_ = a.c.Close()
		a.stalled = false
	}
	for _, t := range append(s.clients, s.hosts...) {
		t.given = true
		close(t.steps)
	}
	s.changed.Broadcast()
}

// howItEnded tells what became of the client's connection.
func (a *actor) howItEnded(t *turn) string {
	var left, whole bool
	a.s.set(func() { left, whole = t.given || a.gone != "", t.ended })
	if left {
		return "closed"
	}
	if !a.h2 {
		closes := ""
		if t.m != nil {
			closes, _ = t.m.get("connection")
		}
		if !whole || t.end != "whole" || strings.EqualFold(closes, "close") || t.m.Framing == "close" {
			a.s.await(time.Second, func() bool { return a.gone != "" })
		}
		return cmp.Or(a.gone, "open")
	}
	pongs := 0
	a.s.set(func() { pongs = a.pongs })
	a.write(func() { _ = a.fr.WritePing(false, settling) })
	lives := a.s.await(500*time.Millisecond, func() bool { return a.pongs > pongs || a.gone != "" }) && a.gone == ""
	switch {
	case a.goAway != "":
		return a.goAway
	case !lives:
		return "closed"
	}
	return "open"
}

// startStage are the origins that act as a case says: of HTTP/1 and HTTP/2, with TLS and without.
func (o *origins) startStage(certs *certs) error {
	for _, name := range []string{"acts0", "acts1", "acts2", "acts1s", "acts2s", "actss"} {
		if err := o.listen(name, "127.0.0.1", func(c net.Conn) { o.acts(name, c, certs) }); err != nil {
			return err
		}
	}
	return nil
}

func (o *origins) acts(name string, c net.Conn, certs *certs) {
	h2 := strings.HasPrefix(name, "acts2")
	if strings.HasSuffix(name, "s") {
		protocols := map[string][]string{"acts1s": {"http/1.1"}, "acts2s": {"h2"}}[name]
		if name == "acts"+"s" {
			protocols = []string{"h2", "http/1.1"}
		}
		t := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{certs.named["announced"]}, NextProtos: protocols})
		if t.Handshake() != nil {
			return
		}
		h2 = t.ConnectionState().NegotiatedProtocol == "h2"
		c = t
	}
	o.mu.Lock()
	s := o.stage
	o.mu.Unlock()
	if s == nil {
		return
	}
	a := newActor(s, c, h2, true)
	a.name, a.bytes = name, name == "acts0"
	if s.isOver() {
		return
	}
	a.start()
	<-a.done
	for _, t := range a.turns {
		if t.tunnel { // whose client may have ended its half alone
			s.await(time.Minute, func() bool { return s.over })
			break
		}
	}
}

func (s *stage) isOver() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.over
}

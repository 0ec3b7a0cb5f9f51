package cluster

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// ttlResolver is a Resolver that also tells for how long what it said is good; 0 where
// nobody told it, as of a name in the host's own files.
type ttlResolver interface {
	LookupTTL(ctx context.Context, network, host string, family DNSFamily) ([]netip.Addr, time.Duration, error)
}

// lookup asks r for the addresses of a name, and for how long they are good, if that counts.
func (d *DNS) lookup(ctx context.Context, r Resolver, host string) ([]netip.Addr, time.Duration, error) {
	if t, ok := r.(ttlResolver); ok && d.RespectTTL {
		return t.LookupTTL(ctx, d.Family.network(), host, d.Family)
	}
	addrs, err := r.LookupNetIP(ctx, d.Family.network(), host)
	return addrs, 0, err
}

// listening reads along what nameservers answer to the questions of a resolver. It is for one
// lookup after the other: two at a time would have one count.
type listening struct {
	Resolver
	mu sync.Mutex
	// v4 and v6 are the shortest TTL of the answers to the last lookup, by the type of
	// address that was asked for; nil where none said.
	v4, v6 *time.Duration
	// open are its questions that have no answer.
	open map[question]bool
}

// question is one to a nameserver, its name in lower case.
type question struct {
	name  string
	asked dnsmessage.Type
}

// LookupTTL implements ttlResolver. As in Envoy the shortest TTL of the addresses that are
// used counts, and that of an alias which leads to them. While a question has no answer, such as
// that for addresses of the other family, nothing is known of what it would have brought.
func (l *listening) LookupTTL(ctx context.Context, network, host string, family DNSFamily) ([]netip.Addr, time.Duration, error) {
	l.mu.Lock()
	l.v4, l.v6, l.open = nil, nil, map[question]bool{}
	l.mu.Unlock()
	addrs, err := l.LookupNetIP(ctx, network, host)
	l.mu.Lock()
	defer l.mu.Unlock()
	var least *time.Duration
	for _, a := range family.filter(unmapped(addrs)) {
		ttl := l.v6
		if a.Is4() {
			ttl = l.v4
		}
		least = shorter(least, ttl)
	}
	if least == nil || len(l.open) > 0 {
		return addrs, 0, err
	}
	return addrs, *least, err
}

func shorter(a, b *time.Duration) *time.Duration {
	if a == nil || b != nil && *b < *a {
		return b
	}
	return a
}

// said notes a question.
func (l *listening) said(message []byte) {
	var p dnsmessage.Parser
	if _, err := p.Start(message); err != nil {
		return
	}
	q, err := questionOf(&p)
	if err != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open != nil {
		l.open[q] = true
	}
}

func questionOf(p *dnsmessage.Parser) (question, error) {
	q, err := p.Question()
	return question{strings.ToLower(q.Name.String()), q.Type}, err
}

// heard notes what an answer says. What is no answer to the question is not believed, as by
// the resolver, which goes on waiting then.
func (l *listening) heard(message, answer []byte) {
	q, ttl, ok := leastTTL(message, answer)
	if !ok {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, q)
	switch q.asked {
	case dnsmessage.TypeA:
		l.v4 = shorter(l.v4, ttl)
	case dnsmessage.TypeAAAA:
		l.v6 = shorter(l.v6, ttl)
	}
}

// leastTTL is the shortest TTL of the addresses and aliases in an answer, nil if there are none;
// it is none where it says that the server failed.
func leastTTL(message, answer []byte) (wanted question, ttl *time.Duration, ok bool) {
	var q, a dnsmessage.Parser
	qh, err := q.Start(message)
	if err != nil {
		return question{}, nil, false
	}
	ah, err := a.Start(answer)
	if err != nil || !ah.Response || ah.ID != qh.ID || ah.Truncated {
		return question{}, nil, false
	}
	if wanted, err = questionOf(&q); err != nil {
		return question{}, nil, false
	}
	if repeated, err := questionOf(&a); err != nil || repeated != wanted || a.SkipAllQuestions() != nil ||
		ah.RCode != dnsmessage.RCodeSuccess && ah.RCode != dnsmessage.RCodeNameError {
		return question{}, nil, false
	}
	for {
		h, err := a.AnswerHeader()
		if err != nil {
			return wanted, ttl, true
		}
		if h.Type == wanted.asked || h.Type == dnsmessage.TypeCNAME {
			seconds := h.TTL
			if seconds > 1<<31-1 {
				seconds = 0 // RFC 2181 8
			}
			t := time.Duration(seconds) * time.Second
			ttl = shorter(ttl, &t)
		}
		if a.SkipAnswer() != nil {
			return wanted, ttl, true
		}
	}
}

// conn has l read along on a connection to a nameserver.
func (l *listening) conn(c net.Conn) net.Conn {
	if u, ok := c.(*net.UDPConn); ok {
		return &heardPacket{UDPConn: u, by: l}
	}
	return &heardStream{Conn: c, by: l}
}

// heardPacket is a UDP connection that is read along on: the resolver tells by its type that
// messages have no length before them.
type heardPacket struct {
	*net.UDPConn
	by       *listening
	question []byte
}

func (c *heardPacket) Write(b []byte) (int, error) {
	c.question = bytes.Clone(b)
	c.by.said(b)
	return c.UDPConn.Write(b)
}

func (c *heardPacket) Read(b []byte) (int, error) {
	n, err := c.UDPConn.Read(b)
	if err == nil {
		c.by.heard(c.question, b[:n])
	}
	return n, err
}

// heardStream is a TCP connection that is read along on, on which one question is asked.
type heardStream struct {
	net.Conn
	by               *listening
	question, answer []byte
}

func (c *heardStream) Write(b []byte) (int, error) {
	c.question = append(c.question, b...)
	if len(c.question) > 2 {
		c.by.said(c.question[2:])
	}
	return c.Conn.Write(b)
}

func (c *heardStream) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.answer = append(c.answer, b[:n]...)
	if len(c.question) > 2 && len(c.answer) > 2 && len(c.answer)-2 == int(binary.BigEndian.Uint16(c.answer)) {
		c.by.heard(c.question[2:], c.answer[2:])
	}
	return n, err
}

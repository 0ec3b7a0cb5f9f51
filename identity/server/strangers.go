package server

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Whoever reaches the port can open connections there. Until a connection has shown a
// certificate it is a stranger's: all it may do is to join, which is one short request. So it
// lives and may say no more than that takes, and of each host there are only so many.
const (
	// handshakeTime bounds TLS and the beginning of HTTP/2.
	handshakeTime = 20 * time.Second
	// strangerTime bounds the life of a connection without a certificate. A joiner gives up
	// after 15 seconds.
	strangerTime = 30 * time.Second
	// strangerBytes and strangerCalls bound what is read of it: a request to join has a
	// token's secret and a CSR of at most 16 KiB.
	strangerBytes = 64 << 10
	strangerCalls = 8

	// Handshakes under way. Each costs tens of kilobytes, and a mesh that comes back after an
	// outage makes many at once.
	maxHandshakes, maxHandshakesPerHost = 8192, 2048
	maxStrangers, maxStrangersPerHost   = 512, 128

	// maxHeaders bounds a request's headers, for each stream: gRPC's own bound is 16 MiB.
	maxHeaders = 16 << 10
	// maxStreams of one connection are more than the xDS streams that a node may have, which
	// its agent relays on one.
	maxStreams = 5000
)

// crowd counts connections by the host that they come from.
type crowd struct {
	most, perHost int

	mu     sync.Mutex
	all    int
	hosts  map[string]int
	inside []*member // those that may be sent away, the oldest first
}

// member is a connection that counts.
type member struct {
	host string
	end  func()
	left bool
}

// enter counts one, until the function it returns is called.
func (c *crowd) enter(from net.Addr) (leave func(), err error) { return c.admit(from, nil) }

// admit counts one that end ends. Where there are too many, one of the host that has most of them
// makes room for one of a host with fewer: who takes all there are keeps no other away.
func (c *crowd) admit(from net.Addr, end func()) (leave func(), err error) {
	m := &member{host: hostOf(from), end: end}
	c.mu.Lock()
	var away *member
	switch {
	case c.hosts[m.host] >= c.perHost:
		err = errCrowd
	case c.all >= c.most:
		if away = c.oldestOfMost(); away == nil || c.hosts[away.host] <= c.hosts[m.host]+1 {
			away, err = nil, errCrowd
		}
	}
	if err != nil {
		err = fmt.Errorf("%w: %d, %d of them of %s, and at most %d and %d are taken", err, c.all, c.hosts[m.host], m.host, c.most, c.perHost)
		c.mu.Unlock()
		return nil, err
	}
	if away != nil {
		c.remove(away)
	}
	if c.hosts == nil {
		c.hosts = map[string]int{}
	}
	c.all++
	c.hosts[m.host]++
	if end != nil {
		c.inside = append(c.inside, m)
	}
	c.mu.Unlock()
	if away != nil {
		away.end()
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.remove(m)
	}, nil
}

var errCrowd = errors.New("there are too many such connections")

// oldestOfMost is nil where nobody can be sent away. The caller holds mu.
func (c *crowd) oldestOfMost() (found *member) {
	for _, m := range c.inside {
		if found == nil || c.hosts[m.host] > c.hosts[found.host] {
			found = m
		}
	}
	return found
}

// remove counts one no longer, once. The caller holds mu.
func (c *crowd) remove(m *member) {
	if m.left {
		return
	}
	m.left = true
	c.all--
	if c.hosts[m.host]--; c.hosts[m.host] == 0 {
		delete(c.hosts, m.host)
	}
	if i := slices.Index(c.inside, m); i >= 0 {
		c.inside = slices.Delete(c.inside, i, i+1)
	}
}

// hostOf takes a network of IPv6 that one host usually has for itself as one.
func hostOf(a net.Addr) string {
	at, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return a.String()
	}
	ip := at.Addr().Unmap()
	if ip.Is6() {
		if p, err := ip.WithZone("").Prefix(64); err == nil {
			return p.String()
		}
	}
	return ip.String()
}

// strangerConn is a connection without a client certificate.
type strangerConn struct {
	net.Conn
	leave func()
	ends  *time.Timer

	// What its reader has seen: bytes, requests, and of the bytes to come how many are of the
	// preface or a frame's payload.
	bytes, calls, rest int
	head               []byte
}

// prefaceBytes is the length of HTTP/2's client connection preface (RFC 9113 section 3.4).
const prefaceBytes = 24

func newStrangerConn(conn net.Conn, leave func()) *strangerConn {
	c := &strangerConn{Conn: conn, leave: leave, rest: prefaceBytes}
	c.ends = time.AfterFunc(strangerTime, func() { _ = c.end() })
	return c
}

func (c *strangerConn) Close() error {
	c.ends.Stop()
	return c.end()
}

func (c *strangerConn) end() error {
	c.leave()
	return c.Conn.Close()
}

var errStranger = errors.New("a client without a certificate says more than it takes to join")

func (c *strangerConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.count(b[:n])
	if c.bytes > strangerBytes || c.calls > strangerCalls {
		_ = c.Close()
		return 0, errStranger
	}
	return n, err
}

// count follows the frames (RFC 9113 section 4.1): a request begins with one of type HEADERS.
func (c *strangerConn) count(b []byte) {
	const headLength, typeHeaders = 9, 1
	c.bytes += len(b)
	for len(b) > 0 {
		if n := min(c.rest, len(b)); n > 0 {
			c.rest, b = c.rest-n, b[n:]
			continue
		}
		n := min(headLength-len(c.head), len(b))
		c.head, b = append(c.head, b[:n]...), b[n:]
		if len(c.head) < headLength {
			return
		}
		if c.head[3] == typeHeaders {
			c.calls++
		}
		c.rest = int(c.head[0])<<16 | int(c.head[1])<<8 | int(c.head[2])
		c.head = c.head[:0]
	}
}

package server

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
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

	mu    sync.Mutex
	all   int
	hosts map[string]int
}

// enter counts one, until the function it returns is called.
func (c *crowd) enter(from net.Addr) (leave func(), err error) {
	host := hostOf(from)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all >= c.most || c.hosts[host] >= c.perHost {
		return nil, fmt.Errorf("there are %d such connections, %d of them of %s, and at most %d and %d are taken", c.all, c.hosts[host], host, c.most, c.perHost)
	}
	if c.hosts == nil {
		c.hosts = map[string]int{}
	}
	c.all++
	c.hosts[host]++
	return sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.all--
		if c.hosts[host]--; c.hosts[host] == 0 {
			delete(c.hosts, host)
		}
	}), nil
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

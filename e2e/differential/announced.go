//go:build e2e

package differential

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"golang.org/x/net/http2"
)

// announcedConn is a connection to the origin "announced", and what its beginning said.
type announcedConn struct {
	net.Conn
	said string
}

type announcedKey struct{}

// saidOn is what the beginning of a connection said; "" of most.
func saidOn(c net.Conn) string {
	if a, ok := c.(announcedConn); ok {
		return a.said
	}
	return ""
}

// startAnnounced is the origin that takes TLS, which may come behind a header of the PROXY
// protocol, and either version of HTTP.
func (o *origins) startAnnounced(c *certs) error {
	own, err := tls.LoadX509KeyPair(c.file("announced.crt"), c.file("announced.key"))
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	o.lns = append(o.lns, ln)
	o.ports["announced"] = ln.Addr().(*net.TCPAddr).Port
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				o.serveAnnounced(c, own)
			}()
		}
	}()
	return nil
}

func (o *origins) serveAnnounced(c net.Conn, own tls.Certificate) {
	r := bufio.NewReader(c)
	said, err := announcement(r)
	if err != nil {
		return
	}
	conn := announcedConn{buffered{c, r}, said}
	if first, err := r.Peek(1); err != nil || first[0] != 22 {
		o.serve("announced", conn)
		return
	}
	t := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{own}, NextProtos: []string{"h2", "http/1.1"}})
	if t.Handshake() != nil {
		return
	}
	s := t.ConnectionState()
	conn = announcedConn{t, strings.TrimSpace(fmt.Sprintf("%s SNI %q", said, s.ServerName))}
	if s.NegotiatedProtocol != "h2" {
		o.serve("announced", conn)
		return
	}
	(&http2.Server{}).ServeConn(conn, &http2.ServeConnOpts{
		Context: context.WithValue(context.Background(), announcedKey{}, conn.said), Handler: http.HandlerFunc(o.serveHTTP2),
	})
}

// buffered is a connection of which the beginning was read.
type buffered struct {
	net.Conn
	r *bufio.Reader
}

func (b buffered) Read(p []byte) (int, error) { return b.r.Read(p) }

// announcement reads a header of the PROXY protocol, where there is one.
func announcement(r *bufio.Reader) (string, error) {
	first, err := r.Peek(1)
	switch {
	case err != nil:
		return "", err
	case first[0] == 'P':
		if start, err := r.Peek(6); err != nil || string(start) != "PROXY " {
			return "", nil // a request
		}
		line, err := readLine(r)
		return withoutPorts(strings.Fields(line)), err
	case first[0] != '\r':
		return "", nil
	}
	head := make([]byte, 16)
	if _, err := io.ReadFull(r, head); err != nil || !bytes.HasPrefix(head, []byte("\r\n\r\n\x00\r\nQUIT\n")) {
		return "", fmt.Errorf("no header of version 2: %q", head)
	}
	body := make([]byte, binary.BigEndian.Uint16(head[14:]))
	if _, err := io.ReadFull(r, body); err != nil {
		return "", err
	}
	said := fmt.Sprintf("%x %x", head[12], head[13])
	for _, size := range map[byte][]int{0x11: {4, 4, 2, 2}, 0x21: {16, 16, 2, 2}}[head[13]] {
		if len(body) < size {
			return said + " short", nil
		}
		if a, ok := netip.AddrFromSlice(body[:size]); ok {
			said += " " + a.String()
		} else {
			said += " " + port(fmt.Sprint(binary.BigEndian.Uint16(body)))
		}
		body = body[size:]
	}
	return fmt.Sprintf("%s %x", said, body), nil
}

func withoutPorts(fields []string) string {
	for i := 4; i < len(fields); i++ {
		fields[i] = port(fields[i])
	}
	return strings.Join(fields, " ")
}

// port is one that a case says, or any.
func port(p string) string {
	if len(p) < 4 {
		return p
	}
	return "(a port)"
}

//go:build e2e

package differential

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
	"time"
)

// patience is how long an answer may take.
const patience = 3 * time.Second

// outcome is what a client saw on a connection.
type outcome struct {
	responses []*Message
	end       string            // what came instead of a further answer, or after the last
	tcp       string            // all bytes, of plain TCP
	streams   map[uint32]string // how they ended, of frames
	of        []uint32          // the streams of the responses, of frames
	byStream  bool
	tls       string   // what was agreed on, where it is compared
	vain      []string // steps of acts that waited for what did not come
}

// dial connects as the case says.
func (x *Case) dial(addr string, certs *certs) (net.Conn, error) {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil || x.TLS == nil {
		return c, err
	}
	cfg := &tls.Config{MinVersion: tlsVersion(x.TLS.Min), MaxVersion: tlsVersion(x.TLS.Max), CipherSuites: suites(x.TLS.Suites), ServerName: x.TLS.SNI, NextProtos: x.TLS.ALPN, RootCAs: certs.roots, InsecureSkipVerify: true} // the sidecar's identity is not what is tested here
	if x.TLS.Cert != "none" {
		cfg.Certificates = []tls.Certificate{certs.web}
		switch name := x.TLS.Cert; name {
		case "":
		case "deep":
			cfg.Certificates[0] = certs.deep
		default:
			cfg.Certificates[0] = certs.named[name]
		}
	}
	if err := x.TLS.ownFile(cfg, certs); err != nil {
		return nil, err
	}
	s := tls.Client(c, cfg)
	_ = s.SetDeadline(time.Now().Add(patience))
	if err := s.Handshake(); err != nil {
		c.Close()
		return nil, err
	}
	return s, nil
}

// converse sends the case on one connection.
func (x *Case) converse(addr string, certs *certs, plainTCP bool) (*outcome, error) {
	out := &outcome{}
	c, err := x.dial(addr, certs)
	if err != nil {
		if x.TLS != nil {
			out.end = "no handshake"
			return out, nil
		}
		return nil, err
	}
	defer c.Close()
	out.agreed(c, x)
	_ = c.SetDeadline(time.Now().Add(patience))
	r := bufio.NewReader(c)
	if x.Hello != nil {
		return out, x.greet(c, r, out)
	}
	if x.Dialogue != nil {
		x.discuss(c, out)
		return out, nil
	}
	if plainTCP {
		return out, x.talk(c, r, out)
	}
	sends := append([]string{x.Send}, x.More...)
	for i, text := range sends {
		head, body := request(text)
		method, _, _ := strings.Cut(head, " ")
		if i == 0 && x.Raw != "" {
			head, body = x.Raw, ""
			method, _, _ = strings.Cut(head, " ")
		}
		if !x.AwaitContinue {
			head, body = head+body, ""
		}
		if _, err := io.WriteString(c, head); err != nil {
			out.end = "closed"
			return out, nil
		}
		if x.Abandon > 0 {
			time.Sleep(time.Duration(x.Abandon))
			return out, nil
		}
		if !out.read(c, r, method, body) {
			return out, nil
		}
	}
	if x.Raw != "" && len(x.More) == 0 {
		// What was sent may have been more than one request.
		_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		for out.read(c, r, "GET", "") {
			continue
		}
	}
	return out, nil
}

// talk is plain TCP: all is sent, then all that comes is read until the end. A client
// that is "tcp silent" sends nothing: whoever closes cannot leave any of it unread, which
// the kernel would make a reset of.
func (x *Case) talk(c net.Conn, r *bufio.Reader, out *outcome) error {
	says := append([]string{x.Raw}, x.More...)
	silent := strings.HasPrefix(x.Raw, "tcp silent")
	if silent {
		says = nil
	}
	for i, text := range says {
		if _, err := io.WriteString(c, text); err != nil {
			break
		}
		if i < len(x.More) {
			line, err := r.ReadString('\n')
			if out.tcp += line; err != nil {
				break
			}
		}
	}
	if x.Patient {
		_, _ = r.Peek(1)
	}
	stays := silent || strings.HasPrefix(x.Raw, "tcp close") || strings.HasPrefix(x.Raw, "tcp reset") || strings.HasPrefix(x.Raw, "tcp wait")
	if w, ok := c.(interface{ CloseWrite() error }); ok && !stays {
		_ = w.CloseWrite()
	}
	b, err := io.ReadAll(r)
	out.tcp += string(b)
	switch out.end = ended(err); {
	case err == nil:
		out.end = "closed"
	case errors.Is(err, syscall.ECONNRESET):
		out.end = "reset"
	}
	return nil
}

// greet sends the ClientHello, then reads all that comes until the end.
func (x *Case) greet(c net.Conn, r *bufio.Reader, out *outcome) error {
	b, err := x.Hello.encoded()
	if err != nil {
		return err
	}
	size := len(b)
	if x.Hello.Segment > 0 {
		size = x.Hello.Segment
	}
	for part := range slices.Chunk(b, size) {
		if _, err := c.Write(part); err != nil {
			break // the end is read below
		}
		if len(part) < len(b) {
			time.Sleep(segmentPause)
		}
	}
	line, err := r.ReadString('\n')
	out.tcp = line
	if w, ok := c.(interface{ CloseWrite() error }); ok && err == nil {
		_ = w.CloseWrite()
		_, err = r.ReadByte()
	}
	// Whoever closes with bytes that it has not read resets, whether it meant to or not.
	out.end = ended(err)
	return nil
}

// read reads the answers to one request: interim ones, and the final one. False
// means that no further request can follow.
func (out *outcome) read(c net.Conn, r *bufio.Reader, method, body string) bool {
	for {
		m, err := readHead(r)
		if err != nil {
			out.end = ended(err)
			return false
		}
		out.responses = append(out.responses, m)
		_, status, _ := strings.Cut(m.Start, " ")
		interim := strings.HasPrefix(status, "1") && !strings.HasPrefix(status, "101")
		if interim {
			if body != "" {
				if _, err := io.WriteString(c, body); err != nil {
					out.end = "closed"
					return false
				}
				body = ""
			}
			continue
		}
		if method != "HEAD" && !strings.HasPrefix(status, "204") && !strings.HasPrefix(status, "304") {
			m.readBody(r, true)
		}
		closes, _ := m.get("connection")
		if m.Broken != "" || m.Framing == "close" || strings.EqualFold(closes, "close") {
			// Envoy waits a second for the client to close first.
			if w, ok := c.(interface{ CloseWrite() error }); ok {
				_ = w.CloseWrite()
			}
			_ = c.SetReadDeadline(time.Now().Add(3 * time.Second))
			_, err := r.ReadByte()
			out.end = ended(err)
			return false
		}
		return true
	}
}

func ended(err error) string {
	switch {
	case err == nil:
		return "more bytes"
	case isTimeout(err):
		return "open"
	case strings.Contains(err.Error(), "field line"):
		return err.Error()
	}
	return "closed"
}

func isTimeout(err error) bool {
	n, ok := err.(net.Error)
	return ok && n.Timeout()
}

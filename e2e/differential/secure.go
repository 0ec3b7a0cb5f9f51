//go:build e2e

package differential

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http2"
)

// tlsVersion is the number of a version that is written as 1.2; 0 for the library's own.
func tlsVersion(text string) uint16 {
	return map[string]uint16{"1.0": tls.VersionTLS10, "1.1": tls.VersionTLS11, "1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}[text]
}

// suites are those of TLS 1.2 by their names; nil for the library's own.
func suites(names []string) (out []uint16) {
	for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		if slices.Contains(names, s.Name) {
			out = append(out, s.ID)
		}
	}
	return out
}

// ownFile has the client present the certificate of a file, whatever authorities the server names.
func (c *ClientTLS) ownFile(cfg *tls.Config, certs *certs) error {
	name, ok := strings.CutPrefix(c.Cert, "file:")
	switch {
	case c.Cert == "edwards":
		name = certs.file(c.Cert)
	case !ok:
		return nil
	}
	own, err := tls.LoadX509KeyPair(name+".crt", name+".key")
	if err != nil {
		return err
	}
	cfg.Certificates = nil
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &own, nil }
	return nil
}

// agreed notes what the handshake came to.
func (out *outcome) agreed(c net.Conn, x *Case) {
	s, ok := c.(*tls.Conn)
	if !ok || !x.TLS.Shown {
		return
	}
	state := s.ConnectionState()
	out.tls = fmt.Sprintf("%s %q %s of %d", tls.VersionName(state.Version), state.NegotiatedProtocol, state.PeerCertificates[0].SerialNumber, len(state.PeerCertificates))
}

// secures is how the origin "secure" shakes hands in a case.
func (o *origins) secures(s *Secure) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.secure = s
}

// startSecure is the origin whose handshakes a case describes.
func (o *origins) startSecure(certs *certs) error {
	return o.listen("secure", "127.0.0.1", func(c net.Conn) {
		o.mu.Lock()
		s := o.secure
		o.mu.Unlock()
		if s == nil {
			return
		}
		name := s.Cert
		if !filepath.IsAbs(name) {
			name = certs.file(name)
		}
		own, err := tls.LoadX509KeyPair(name+".crt", name+".key")
		if err != nil {
			return
		}
		cfg := &tls.Config{Certificates: []tls.Certificate{own}, NextProtos: s.ALPN, MinVersion: tlsVersion(s.Min), MaxVersion: tlsVersion(s.Max)}
		if s.Asks {
			cfg.ClientAuth = tls.RequestClientCert
		}
		var offered []string
		cfg.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			offered = h.SupportedProtos
			return nil, nil
		}
		t := tls.Server(c, cfg)
		if t.Handshake() != nil {
			return
		}
		state := t.ConnectionState()
		said := fmt.Sprintf("%s %q of %q, SNI %q", tls.VersionName(state.Version), state.NegotiatedProtocol, offered, state.ServerName)
		if len(state.PeerCertificates) > 0 {
			said += fmt.Sprintf(", certificate %s of %d", state.PeerCertificates[0].SerialNumber, len(state.PeerCertificates))
		}
		conn := announcedConn{t, said}
		if state.NegotiatedProtocol == "h2" {
			(&http2.Server{}).ServeConn(conn, &http2.ServeConnOpts{
				Context: context.WithValue(context.Background(), announcedKey{}, said), Handler: http.HandlerFunc(o.serveHTTP2),
			})
			return
		}
		o.serve("secure", conn)
	})
}

// startHosts are n origins at addresses of their own: h1 has 127.0.0.101. A header of the PROXY
// protocol may come first.
func (o *origins) startHosts(n int) error {
	for i := range n {
		name := fmt.Sprintf("h%d", i+1)
		if err := o.listen(name, fmt.Sprintf("127.0.0.%d", 101+i), func(c net.Conn) {
			r := bufio.NewReader(c)
			if said, err := announcement(r); err == nil {
				o.serve(name, announcedConn{buffered{c, r}, said})
			}
		}); err != nil {
			return err
		}
	}
	return nil
}

func (o *origins) listen(name, ip string, serve func(net.Conn)) error {
	ln, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		return err
	}
	o.lns = append(o.lns, ln)
	if o.hosts[name] = ln.Addr().String(); ip == "127.0.0.1" {
		o.ports[name] = ln.Addr().(*net.TCPAddr).Port
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c)
			}()
		}
	}()
	return nil
}

// placed puts addresses in the place of names of origins.
func (p *place) placed(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, e := range v {
			if name, ok := e.(string); ok && k == "socket_address" {
				host, port, _ := net.SplitHostPort(p.address(name))
				n, _ := strconv.Atoi(port)
				out[k] = map[string]any{"address": host, "port_value": n}
				continue
			}
			out[k] = p.placed(e)
		}
		return out
	case []map[string]any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = p.placed(e)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = p.placed(e)
		}
		return out
	}
	return v
}

// address is that of an origin.
func (p *place) address(name string) string {
	if a, ok := p.origins.hosts[name]; ok {
		return a
	}
	return fmt.Sprintf("127.0.0.1:%d", p.origins.ports[name])
}

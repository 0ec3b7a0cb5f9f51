package listener

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// filters compiles the listener filters: those that are configured, and after them
// what chains of TLS, which nothing would come to otherwise, are told apart by.
func (s *snapshot) filters() []Filter {
	out := s.cfg.Filters
	inspected, needed := false, false
	for _, f := range out {
		inspected = inspected || f.TLSInspector
	}
	for i := range s.cfg.Chains {
		m := &s.cfg.Chains[i].Match
		needed = needed || m.tellsTLS()
	}
	if needed && !inspected {
		// After the configured ones: a PROXY header precedes the ClientHello.
		out = append(out[:len(out):len(out)], Filter{TLSInspector: true})
	}
	return out
}

// tellsTLS tells whether only a ClientHello can make a connection match. What asks for
// plaintext alone is not among it: who inspects nothing takes everything for that, and a
// server that speaks first must not wait for its client's first bytes.
func (m *Match) tellsTLS() bool {
	if m.TransportProtocol == "" {
		return len(m.ServerNames) > 0 || len(m.ApplicationProtocols) > 0
	}
	return m.TransportProtocol == "tls"
}

// holds decides over a destination port.
func (p *Predicate) holds(port uint16) bool {
	switch {
	case p.Any:
		return true
	case p.IsRange:
		return port >= p.From && (p.To == 0 || port < p.To)
	case p.Not != nil:
		return !p.Not.holds(port)
	case len(p.And) > 0:
		for i := range p.And {
			if !p.And[i].holds(port) {
				return false
			}
		}
		return true
	}
	for i := range p.Or {
		if p.Or[i].holds(port) {
			return true
		}
	}
	return false
}

// inspect runs the listener filters. What they refuse they have logged.
func (a *arrival) inspect(c stream.Conn) error {
	deadline := a.accepted.Add(a.snap.timeout)
	for i := range a.snap.inspectors {
		f := &a.snap.inspectors[i]
		if f.Disabled != nil && f.Disabled.holds(a.match.destination.Port()) {
			continue
		}
		reason, err := a.filter(f, c, deadline)
		if err == nil {
			continue
		}
		if stream.IsTimeout(err) && a.snap.cfg.ContinueOnTimeout && !a.needsHeader(a.snap.inspectors[i:]) {
			return c.SetReadDeadline(time.Time{})
		}
		flags := telemetry.FlagDownstreamProtocolError
		if f.TLSInspector {
			flags = telemetry.FlagTLSFailure
		}
		return a.refuse(flags, reason, err)
	}
	return nil
}

// needsHeader tells whether one of some filters asks for a PROXY header. Who goes on without it would serve the
// client as the proxy that it comes by, and pass on what comes late as what the client says.
func (a *arrival) needsHeader(filters []Filter) bool {
	for i := range filters {
		f := &filters[i]
		if f.ProxyProtocol != nil && !f.ProxyProtocol.Optional && (f.Disabled == nil || !f.Disabled.holds(a.match.destination.Port())) {
			return true
		}
	}
	return false
}

// filter runs one; reason is a word for counters.
func (a *arrival) filter(f *Filter, c stream.Conn, deadline time.Time) (reason string, err error) {
	switch {
	case f.OriginalDst:
		if dst, ok := originalDestination(c, a.match.destination); ok {
			a.match.between(a.match.source, dst)
			a.restored = true
		}
		return "", nil
	case f.ProxyProtocol != nil:
		return "proxy_protocol", a.proxyHeader(f.ProxyProtocol, c, deadline)
	case f.HTTPInspector:
		return "http_inspector", a.sniffHTTP(c, deadline)
	}
	return "client_hello", a.clientHello(f, c, deadline)
}

func (a *arrival) clientHello(f *Filter, c stream.Conn, deadline time.Time) error {
	most := maxClientHello
	if f.MaxClientHello > 0 {
		most = min(most, f.MaxClientHello)
	}
	var hello clientHello
	err := peekUntil(c, deadline, func(b []byte) error {
		var err error
		hello, err = parseClientHello(b[:min(len(b), most)])
		if err == nil {
			a.fingerprint(f, b)
		}
		if errors.Is(err, errMoreHello) {
			if len(b) >= most {
				return errLongHello
			}
			return errMoreBytes
		}
		return err
	})
	switch {
	case err == nil:
		a.inspected, a.match.plaintext, a.match.serverName, a.match.alpn = true, false, hello.serverName, hello.alpn
	case errors.Is(err, errNotTLS) && !f.TLSOnly:
		a.inspected, a.match.plaintext = true, true
	default:
		return err
	}
	return nil
}

// sniffHTTP recognises HTTP in plaintext, for the application protocol of a chain.
func (a *arrival) sniffHTTP(c stream.Conn, deadline time.Time) error {
	if !a.match.plaintext {
		return nil
	}
	return peekUntil(c, deadline, func(b []byte) error {
		p, err := httpProtocol(b)
		if p != "" {
			a.match.alpn = protocolName(p)
		}
		return err
	})
}

func (a *arrival) proxyHeader(f *ProxyProtocol, c stream.Conn, deadline time.Time) error {
	var h proxyHeader
	begun := false
	err := peekUntil(c, deadline, func(b []byte) error {
		if f.passes(b) {
			return errNoProxyHeader
		}
		var err error
		h, err = parseProxyHeader(b)
		begun = true
		return err
	})
	switch {
	case errors.Is(err, errNoProxyHeader) && f.Optional:
		return nil
	case begun && stream.IsTimeout(err):
		return errHalfHeader
	case err != nil:
		return err
	case h.version == 1 && f.NoV1 || h.version == 2 && f.NoV2:
		return fmt.Errorf("version %d of the PROXY protocol is not allowed here", h.version)
	}
	if err := discard(c, h.length, deadline); err != nil {
		return err
	}
	if h.source.IsValid() {
		// That of the listener is nowhere else, as in Envoy.
		a.restored = a.restored || h.destination != a.match.destination
		a.match.between(h.source, h.destination)
	}
	a.announced = f.announced(a.announced, h.extensions)
	return nil
}

// passes tells whether the beginning is that of a version that is not read here: where no
// header is needed the bytes are the application's, whatever they are.
func (f *ProxyProtocol) passes(b []byte) bool {
	return f.Optional && (f.NoV1 && bytes.HasPrefix(b, []byte(proxyV1)) || f.NoV2 && bytes.HasPrefix(b, []byte(proxyV2)))
}

// discard reads what was looked at, so that whoever serves the connection begins
// after it.
func discard(c stream.Conn, n int, deadline time.Time) error {
	if err := c.SetReadDeadline(deadline); err != nil {
		return err
	}
	var b [256]byte
	for n > 0 {
		k, err := c.Read(b[:min(n, len(b))])
		if err != nil {
			return err
		}
		n -= k
	}
	return c.SetReadDeadline(time.Time{})
}

// unmapped gives an IPv4 address its own form.
func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

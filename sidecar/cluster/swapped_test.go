package cluster

import (
	"crypto/tls"
	"errors"
	"testing"
)

// swapping is a connection that is made while the cluster becomes another.
type swapping struct {
	*testing.T
	m    *Manager
	hs   *handshakes
	cfg  Config
	got  chan *Conn
	fail chan error
}

func newSwapping(t *testing.T, http Protocol, open func(*Cluster) (*Conn, error)) *swapping {
	hs := newHandshakes(t, "h2", "http/1.1")
	s := &swapping{t, newManager(t, Options{TLS: pooled{&tls.Config{InsecureSkipVerify: true}}}), hs,
		Config{Name: "c", Type: EDS, ServiceName: "x", TLS: &TLS{SNI: "one"}, HTTP: HTTP{Protocol: http}}, make(chan *Conn, 1), make(chan error, 1)}
	s.update("x", "one", hs.addr)
	c := s.m.Get("c")
	go func() {
		conn, err := open(c)
		s.got <- conn
		s.fail <- err
	}()
	if name := <-hs.asked; name != "one" {
		t.Errorf("asked for %q", name)
	}
	return s
}

func (s *swapping) update(service, sni string, addr ...string) {
	s.Helper()
	cfg := s.cfg
	cfg.ServiceName, cfg.TLS = service, &TLS{SNI: sni}
	if err := s.m.UpdateWith(&cfg, hosts(service, addr...)); err != nil {
		s.Fatal(err)
	}
}

// again lets the handshake go on, and has it made again for a name.
func (s *swapping) again(name string) {
	s.Helper()
	s.hs.goOn <- struct{}{}
	if got := <-s.hs.asked; got != name {
		s.Errorf("made again for %q", got)
	}
}

// TestSwappedWhileConnecting: a request that chose a host gets the connection to it which is
// verified by the terms that it chose it under, where the host has none later: the terms of
// who took its place are not for it.
func TestSwappedWhileConnecting(t *testing.T) {
	for name, tc := range overtaken {
		for how, service := range map[string]string{"another service": "y", "other endpoints": "x"} {
			t.Run(name+" "+how, func(t *testing.T) {
				s := newSwapping(t, tc.http, tc.open)
				c, h := s.m.Get("c"), s.m.Get("c").hosts()[0]
				s.update(service, "two", "127.0.0.9:9")
				s.hs.goOn <- struct{}{}
				select {
				case sni := <-s.hs.asked:
					t.Errorf("made again for %q", sni)
					s.hs.goOn <- struct{}{}
					if conn := <-s.got; conn != nil {
						_ = conn.Close()
					}
				case conn := <-s.got:
					if err := <-s.fail; err != nil {
						t.Fatal(err)
					}
					conn.Release()
				}
				waitFor(t, func() bool { return c.conns.Load() == 0 && h.conns.Load() == 0 }) // it is not pooled
			})
		}
	}
}

// TestTermsChangedBeforeTheHostLeft: terms that a host had when it left are those that count,
// and what is withdrawn is withdrawn from hosts that left too.
func TestTermsChangedBeforeTheHostLeft(t *testing.T) {
	for name, tc := range overtaken {
		t.Run(name, func(t *testing.T) {
			s := newSwapping(t, tc.http, tc.open)
			s.update("x", "two", s.hs.addr)
			s.update("x", "two", "127.0.0.9:9")
			s.again("two")
			s.update("y", "three", "127.0.0.9:9")
			_ = s.m.CloseConns(ofWeb)
			s.hs.goOn <- struct{}{}
			var e *Error
			if err := <-s.fail; !errors.As(err, &e) || e.Kind != TLSFailure || e.Err != errWithdrawn {
				t.Errorf("%v", err)
			}
		})
	}
}

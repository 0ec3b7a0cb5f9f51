package cluster

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// namesHost is a host over TLS whose certificate is of example.com and 127.0.0.1.
type namesHost struct {
	addr         string
	certificates []tls.Certificate
	mu           sync.Mutex
	asked        []string // the server name of each connection
}

func newNamesHost(t *testing.T) *namesHost {
	source := httptest.NewTLSServer(nil)
	t.Cleanup(source.Close)
	h := &namesHost{certificates: source.TLS.Certificates}
	var wg sync.WaitGroup
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: h.certificates, NextProtos: []string{"h2", "http/1.1"},
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.asked = append(h.asked, hello.ServerName)
			return nil, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	h.addr = l.Addr().String()
	wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer nc.Close()
				_, _ = io.Copy(io.Discard, bufio.NewReader(nc))
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return h
}

func (h *namesHost) names() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.asked)
}

// acquireFor is a connection for a request to authority.
func acquireFor(c *Cluster, authority string, fields ...string) (*Conn, error) {
	r := &message.Request{Authority: authority}
	for i := 0; i < len(fields); i += 2 {
		r.Fields.Add(fields[i], fields[i+1])
	}
	h := c.hosts()[0]
	t, err := h.TermsFor(&Asker{Request: r, Authority: authority})
	if err != nil {
		return nil, err
	}
	return h.Acquire(withTimeout(5*time.Second), "web", &t, true, DefaultPriority, monotonic(), 0)
}

var eitherVersion = map[string]Protocol{"HTTP/1": SpeakHTTP1, "HTTP/2": SpeakHTTP2}

// TestConnectionsOfAName: a connection is for requests to the host that it was opened for, in
// whichever case that is written and at whichever port, and for no others.
func TestConnectionsOfAName(t *testing.T) {
	for name, protocol := range eitherVersion {
		t.Run(name, func(t *testing.T) {
			host := newNamesHost(t)
			m := newManager(t, Options{TLS: pooled{&tls.Config{InsecureSkipVerify: true}}})
			c := mustUpdate(t, m, &Config{Name: "c", TLS: &TLS{SNI: "own"}, Endpoints: hosts("c", host.addr),
				HTTP: HTTP{Protocol: protocol, Names: &ServerNames{SNI: true, Header: "x-name"}}})
			conns := map[string]*Conn{}
			for _, tc := range []struct{ authority, header, want string }{
				{"A.example", "", "A.example"}, {"b.example", "", "b.example"}, {"a.example:80", "", "A.example"},
				{"b.example", "c.example:1", "c.example"}, {"c.example", "", "c.example"}, {"10.0.0.1:80", "", "own"}, {"[::1]", "", "own"}, {"", "", "own"},
			} {
				fields := []string{"x-name", tc.header}
				conn, err := acquireFor(c, tc.authority, fields...)
				if err != nil {
					t.Fatal(err)
				}
				if was := conns[tc.want]; was != nil && was != conn {
					t.Errorf("%q: has a connection of its own", tc.authority)
				}
				conns[tc.want] = conn
				conn.Release()
				asked := host.names()
				if len(asked) != len(conns) {
					t.Errorf("%q: %d connections, want %d", tc.authority, len(asked), len(conns))
				}
			}
			if want := []string{"A.example", "b.example", "c.example", "own"}; !slices.Equal(host.names(), want) {
				t.Errorf("asked for %q, want %q", host.names(), want)
			}
		})
	}
}

// TestNameIsVerified: the host of the request must be in the certificate, whatever was asked for,
// beside what the TLS context verifies.
func TestNameIsVerified(t *testing.T) {
	own := errors.New("not the context's")
	for _, tc := range []struct {
		authority, want string
		verify          error
	}{
		{"example.com", "", nil}, {"EXAMPLE.com:443", "", nil}, {"127.0.0.1:1", "", nil}, {"[::1]:1", "", nil},
		{"other.example", `it is not valid for "other.example"`, nil}, {"127.0.0.2", `it is not valid for "127.0.0.2"`, nil},
		{"example.com", "not the context's", own}, {"", errNoServerName.Error(), nil}, {":443", errNoServerName.Error(), nil},
		{strings.Repeat("a", 256), "has 256 bytes", nil}, {"example.com.", "it is not valid", nil},
	} {
		for name, protocol := range eitherVersion {
			for _, sni := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s/%.20s/%v", name, tc.authority, sni), func(t *testing.T) {
					host := newNamesHost(t)
					m := newManager(t, Options{TLS: pooled{&tls.Config{InsecureSkipVerify: true, VerifyConnection: func(tls.ConnectionState) error { return tc.verify }}}})
					c := mustUpdate(t, m, &Config{Name: "c", TLS: &TLS{}, Endpoints: hosts("c", host.addr),
						HTTP: HTTP{Protocol: protocol, Names: &ServerNames{SNI: sni, Verify: true}}})
					conn, err := acquireFor(c, tc.authority)
					switch {
					case err == nil && tc.want == "":
						conn.Release()
					case err == nil:
						_ = conn.Close()
						t.Errorf("it was connected to, want %q", tc.want)
					case tc.want == "" || !strings.Contains(err.Error(), tc.want):
						t.Errorf("got %v, want %q", err, tc.want)
					}
				})
			}
		}
	}
}

// TestNoTermsWithoutAName: nothing is opened for a request without a name that is to be verified,
// nor a byte stream that a request is.
func TestNoTermsWithoutAName(t *testing.T) {
	m := newManager(t, Options{TLS: pooled{&tls.Config{}}})
	c := mustUpdate(t, m, &Config{Name: "c", TLS: &TLS{}, Endpoints: hosts("c", "10.0.0.1:80"), HTTP: HTTP{Names: &ServerNames{Verify: true}}})
	if terms, err := c.hosts()[0].TermsFor(&Asker{Request: &message.Request{}}); !errors.Is(err, errNoServerName) {
		t.Errorf("got %+v, %v", terms, err)
	}
}

// TestVerifiedForOneNameOnly: what was verified for one name serves none that was not, though the
// same was asked for.
func TestVerifiedForOneNameOnly(t *testing.T) {
	host := newNamesHost(t)
	m := newManager(t, Options{TLS: pooled{&tls.Config{InsecureSkipVerify: true}}})
	c := mustUpdate(t, m, &Config{Name: "c", TLS: &TLS{SNI: "own"}, Endpoints: hosts("c", host.addr), HTTP: HTTP{Names: &ServerNames{Verify: true}}})
	conn, err := acquireFor(c, "example.com")
	if err != nil {
		t.Fatal(err)
	}
	conn.Release()
	if conn, err := acquireFor(c, "other.example"); err == nil {
		_ = conn.Close()
		t.Errorf("served on %p", conn)
	}
}

// TestNamesThatCameMeanwhile: a request, or a tunnel, that chose its host before names were to be verified
// is not sent on a connection of which none was; a byte stream is, which has none.
func TestNamesThatCameMeanwhile(t *testing.T) {
	for name, protocol := range eitherVersion {
		t.Run(name, func(t *testing.T) {
			host := newNamesHost(t)
			m := newManager(t, Options{TLS: pooled{&tls.Config{InsecureSkipVerify: true}}})
			c := mustUpdate(t, m, &Config{Name: "c", TLS: &TLS{}, Endpoints: hosts("c", host.addr), HTTP: HTTP{Protocol: protocol, Names: &ServerNames{Verify: true}}})
			conn, err := acquireWeb(c)
			if !IsOutdated(err) {
				t.Errorf("got %v", err)
			}
			if err == nil {
				_ = conn.Close()
			}
			if conn, err = c.hosts()[0].OpenBytes(t.Context(), "web", nil, 0); !IsOutdated(err) {
				t.Errorf("a tunnel: got %v", err)
			}
			if err == nil {
				_ = conn.Close()
			}
			conn, err = c.Open(t.Context(), "web", nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.Close()
		})
	}
}

// TestNamesWithoutTLS: without TLS there is nobody to ask, and connections are everybody's.
func TestNamesWithoutTLS(t *testing.T) {
	s := newServer(t)
	m := newManager(t, Options{})
	c := mustUpdate(t, m, &Config{Name: "c", Endpoints: hosts("c", s.addr), HTTP: HTTP{Names: &ServerNames{SNI: true, Verify: true}}})
	var last *Conn
	for _, authority := range []string{"a", "b", ""} {
		conn, err := acquireFor(c, authority)
		if err != nil {
			t.Fatal(err)
		}
		if last != nil && conn != last {
			t.Error("a connection of its own")
		}
		last = conn
		conn.Release()
	}
}

// TestEndlessNames: names that nobody asks for any more have no connections and no pools, beyond
// how many may stay; nor have those whose connections failed.
func TestEndlessNames(t *testing.T) {
	for name, tc := range map[string]struct {
		limits Limits
		verify bool
		most   int
	}{
		"limit":  {Limits{MaxConnections: 4}, false, 4},
		"host":   {Limits{MaxHostConnections: 4}, false, 4},
		"failed": {Limits{}, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			host := newNamesHost(t)
			m := newManager(t, Options{TLS: pooled{&tls.Config{InsecureSkipVerify: true}}})
			c := mustUpdate(t, m, &Config{Name: "c", TLS: &TLS{}, Endpoints: hosts("c", host.addr), Limits: tc.limits,
				HTTP: HTTP{Names: &ServerNames{SNI: true, Verify: tc.verify}}})
			h := c.hosts()[0]
			for i := range 20 {
				conn, err := acquireFor(c, fmt.Sprintf("n%d.example", i))
				if err == nil {
					conn.Release()
				}
				if (err != nil) != tc.verify {
					t.Fatal(err)
				}
			}
			if n := c.Stats()[0].Connections; int(n) > tc.most {
				t.Errorf("%d connections, want %d at most", n, tc.most)
			}
			if n := len(h.everyPool()); int(n) > tc.most {
				t.Errorf("%d pools, want %d at most", n, tc.most)
			}
		})
	}
}

// TestIdleNamesAreForgotten: pools beyond how many a host may have go when another comes, the one
// that was used longest ago first, and all when their connections have been idle for too long.
func TestIdleNamesAreForgotten(t *testing.T) {
	host := newNamesHost(t)
	m := newManager(t, Options{TLS: pooled{&tls.Config{InsecureSkipVerify: true}}})
	c := mustUpdate(t, m, &Config{Name: "c", TLS: &TLS{}, Endpoints: hosts("c", host.addr), IdleTimeout: time.Minute, HTTP: HTTP{Names: &ServerNames{SNI: true}}})
	h := c.hosts()[0]
	enter := func(name string, at int64) *pool {
		p := h.enter("web", DefaultPriority, &Terms{generation: c.cfg.Load().tlsGeneration, name: name}, at)
		conn, err := p.connect(func() (context.Context, context.CancelFunc) { return context.WithCancel(t.Context()) }, 0)
		if err != nil {
			t.Fatal(err)
		}
		conn.Release()
		p.leave()
		return p
	}
	first, second := enter("first", 1), enter("second", 2)
	later := 3 + recently
	for i := range mostParticular - 2 { // without connections: these would be closed one by one
		p := h.enter("web", DefaultPriority, &Terms{name: fmt.Sprint(i)}, later)
		defer p.leave()
	}
	enter("another", 1+recently)
	if !first.empty() || second.empty() {
		t.Errorf("the first has connections: %v, the second: %v", !first.empty(), !second.empty())
	}
	if n := len(h.everyPool()); n != mostParticular {
		t.Errorf("%d pools, want %d", n, mostParticular)
	}
	h.sweepIdle(monotonic()+int64(time.Hour), int64(time.Minute))
	if n := len(h.everyPool()); n != mostParticular-2 {
		t.Errorf("%d pools, want those that are in use", n)
	}
}

// TestNamesChange: connections of before are of no use when what they depend on changes.
func TestNamesChange(t *testing.T) {
	host := newNamesHost(t)
	m := newManager(t, Options{TLS: pooled{&tls.Config{InsecureSkipVerify: true}}})
	cfg := &Config{Name: "c", TLS: &TLS{}, Endpoints: hosts("c", host.addr), HTTP: HTTP{Names: &ServerNames{SNI: true}}}
	for _, names := range []*ServerNames{nil, {SNI: true}, {SNI: true, Verify: true}, {Verify: true}, nil} {
		own := *cfg
		own.HTTP.Names = names
		c := mustUpdate(t, m, &own)
		before := len(host.names())
		conn, err := acquireFor(c, "example.com")
		if err != nil {
			t.Fatal(err)
		}
		conn.Release()
		if len(host.names()) != before+1 {
			t.Errorf("%+v: a connection of before", names)
		}
		if n := c.Stats()[0].Connections; n != 1 {
			t.Errorf("%+v: %d connections", names, n)
		}
	}
}

package cluster

import (
	"crypto/tls"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// namesCluster is a cluster whose connections ask for the requests' hosts.
func namesCluster(t *testing.T, protocol Protocol, limits Limits) *Cluster {
	host := newNamesHost(t) // ends after its connections
	m := newManager(t, Options{TLS: pooled{&tls.Config{InsecureSkipVerify: true}}})
	return mustUpdate(t, m, &Config{Name: "c", TLS: &TLS{}, Endpoints: hosts("c", host.addr), Limits: limits,
		HTTP: HTTP{Protocol: protocol, Names: &ServerNames{SNI: true}}})
}

// mustAcquireFor is a connection for a request to authority, which is not to wait for one that
// another request has.
func mustAcquireFor(t *testing.T, c *Cluster, authority string) *Conn {
	t.Helper()
	conn, err := acquireFor(c, authority)
	if err != nil {
		t.Fatalf("%s: %v", authority, err)
	}
	return conn
}

// TestEndlessNamesBesideLongRequests: however many requests are under way, names that nobody asks
// for any more make room.
func TestEndlessNamesBesideLongRequests(t *testing.T) {
	for name, protocol := range eitherVersion {
		t.Run(name, func(t *testing.T) {
			const held, most = looks, looks + 4
			const beyond = 1 // which a name without any has where those that are looked at are in use
			c := namesCluster(t, protocol, Limits{MaxConnections: most})
			for i := range held {
				defer mustAcquireFor(t, c, fmt.Sprintf("held%d.example", i)).Release()
			}
			for i := range 60 {
				mustAcquireFor(t, c, fmt.Sprintf("n%d.example", i)).Release()
				if n := c.Stats()[0].Connections; n > most+beyond {
					t.Fatalf("%d connections, want %d at most", n, most+beyond)
				}
			}
			if n := len(c.hosts()[0].everyPool()); n > most+beyond {
				t.Errorf("%d pools, want %d at most", n, most+beyond)
			}
		})
	}
}

// TestBusyNameBesideIdleOnes: a request whose name has a connection that is in use takes the place
// of another name's idle one, and waits for none.
func TestBusyNameBesideIdleOnes(t *testing.T) {
	c := namesCluster(t, SpeakHTTP1, Limits{MaxConnections: 4})
	for i := range 3 {
		mustAcquireFor(t, c, fmt.Sprintf("n%d.example", i)).Release()
	}
	began := time.Now()
	for range 4 { // each would wait for the others
		defer mustAcquireFor(t, c, "busy.example").Release()
	}
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("they waited %v", took)
	}
	if n := c.Stats()[0].Connections; n != 4 {
		t.Errorf("%d connections, want 4", n)
	}
}

// TestRoomWhereItIsShort: a limit is of a host or of a priority, and only what counts against it ends.
func TestRoomWhereItIsShort(t *testing.T) {
	for name, tc := range map[string]struct {
		limits Limits
		want   string // whose connection ends
	}{
		"host":     {Limits{MaxHostConnections: 2}, "low"},
		"priority": {Limits{MaxConnections: 2}, "lower"},
	} {
		t.Run(name, func(t *testing.T) {
			host, other := newNamesHost(t), newNamesHost(t)
			m := newManager(t, Options{TLS: pooled{&tls.Config{InsecureSkipVerify: true}}})
			c := mustUpdate(t, m, &Config{Name: "c", TLS: &TLS{}, Endpoints: hosts("c", host.addr, other.addr), Limits: tc.limits,
				HTTP: HTTP{Names: &ServerNames{SNI: true}}})
			acquire := func(h *Host, p Priority, name string) *Conn {
				t.Helper()
				terms, err := h.TermsFor(&Asker{Request: &message.Request{}, Authority: name})
				if err != nil {
					t.Fatal(err)
				}
				conn, err := h.Acquire(withTimeout(5*time.Second), "web", &terms, false, p, monotonic(), 0)
				if err != nil {
					t.Fatal(err)
				}
				conn.Release()
				return conn
			}
			at, beside := c.hosts()[0], c.hosts()[1]
			conns := map[string]*Conn{}
			conns["beside"] = acquire(beside, HighPriority, "beside.example")
			if tc.want == "lower" {
				conns["high"] = acquire(at, HighPriority, "high.example")
				conns["lower"] = acquire(beside, DefaultPriority, "lower.example")
				conns["low"] = acquire(at, DefaultPriority, "low.example")
			} else {
				conns["low"] = acquire(at, DefaultPriority, "low.example")
				conns["high"] = acquire(at, HighPriority, "high.example")
			}
			acquire(at, DefaultPriority, "new.example")
			for name, conn := range conns {
				if conn.closed.Load() != (name == tc.want) {
					t.Errorf("%s ended: %v, and %s was to end", name, conn.closed.Load(), tc.want)
				}
			}
		})
	}
}

// TestNamesAreASCII: what Unicode takes for the same name, or for no name, is no name to ask for.
func TestNamesAreASCII(t *testing.T) {
	m := newManager(t, Options{TLS: pooled{&tls.Config{}}})
	c := mustUpdate(t, m, &Config{Name: "c", TLS: &TLS{}, Endpoints: hosts("c", "10.0.0.1:80"), HTTP: HTTP{Names: &ServerNames{SNI: true, Header: "x-name"}}})
	for _, name := range []string{"\u212aey.example", "\xff.example", "\x80", "[fe80::1%\xff]"} {
		r := &message.Request{}
		r.Fields.Add("x-name", name)
		var e *Error
		if terms, err := c.hosts()[0].TermsFor(&Asker{Request: r}); !errors.As(err, &e) || e.Kind != NoServerName {
			t.Errorf("%q: %+v, %v", name, terms, err)
		}
	}
}

// TestWrongNameIsTheClients: a client that names a host which the certificate does not have says
// nothing of the host that has it.
func TestWrongNameIsTheClients(t *testing.T) {
	host := newNamesHost(t)
	m := newManager(t, Options{TLS: pooled{&tls.Config{InsecureSkipVerify: true}}})
	c := mustUpdate(t, m, &Config{Name: "c", TLS: &TLS{}, Endpoints: hosts("c", host.addr), HTTP: HTTP{Names: &ServerNames{Verify: true}}})
	conn, err := acquireFor(c, "other.example")
	if err == nil {
		_ = conn.Close()
	}
	var e *Error
	if !errors.As(err, &e) || e.Kind != WrongName || e.Kind.OfHost() || e.TransportFailure() == "" {
		t.Errorf("got %v", err)
	}
}

// TestTermsChangeMeanwhile: a connection is opened on the terms that are in force when it is opened.
func TestTermsChangeMeanwhile(t *testing.T) {
	host := newNamesHost(t)
	m := newManager(t, Options{TLS: pooled{&tls.Config{InsecureSkipVerify: true}}})
	cfg := &Config{Name: "c", TLS: &TLS{}, Endpoints: hosts("c", host.addr)}
	own := *cfg
	for _, names := range []*ServerNames{nil, {SNI: true}, {SNI: true, Verify: true}, {Verify: true}, nil} {
		h := mustUpdate(t, m, &own).hosts()[0]
		own.HTTP.Names = names
		opened := 0
		conn, err := h.onTerms(&Asker{Request: &message.Request{}, Authority: "other.example"}, func(terms *Terms) (*Conn, error) {
			if opened++; opened == 1 {
				next := own
				mustUpdate(t, m, &next)
			}
			return h.OpenBytes(t.Context(), "web", terms, 0)
		})
		if err == nil {
			_ = conn.Close()
		}
		if verify := names != nil && names.Verify; (err == nil) == verify {
			t.Errorf("%+v: got %v", names, err)
		}
	}
}

// TestManyClientsKeepTheirs: beyond the names that stay in any case, those that were just used stay
// while the limit on connections allows as many.
func TestManyClientsKeepTheirs(t *testing.T) {
	for limit, want := range map[int]int{0: utmostParticular, 5: mostParticular, 2000: 2000, 1 << 20: utmostParticular} {
		m := newManager(t, Options{})
		c := mustUpdate(t, m, &Config{Name: "c", Endpoints: hosts("c", "10.0.0.1:80"), Limits: Limits{MaxConnections: limit}})
		if got := c.utmost(); got != want {
			t.Errorf("%d connections: %d, want %d", limit, got, want)
		}
	}
}

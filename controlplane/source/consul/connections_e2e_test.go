//go:build e2e

package consul

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/source/sourcetest"
	"github.com/hauberk-mesh/hauberk/e2e/consultest"
)

// many is more services than the agent's limit of 200 connections allows
// watches, each of which holds two names: its own and its sidecar's.
const many = 130

// counted counts the connections that a configuration's transport holds.
func counted(conf *api.Config) *atomic.Int64 {
	var open atomic.Int64
	dialer := &net.Dialer{}
	conf.Transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dialer.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		open.Add(1)
		return &countedConn{Conn: c, open: &open}, nil
	}
	return &open
}

type countedConn struct {
	net.Conn
	open *atomic.Int64
	once atomic.Bool
}

func (c *countedConn) Close() error {
	if c.once.CompareAndSwap(false, true) {
		c.open.Add(-1)
	}
	return c.Conn.Close()
}

// TestManyServices: more services than one client may hold connections. Over
// HTTPS they share a few, and each change arrives at once; over plain HTTP what
// is over the limit is polled, and the agent never refuses.
func TestManyServices(t *testing.T) {
	server := startConsulWith(t, consultest.Options{HTTPS: true, ClientLimit: 200})
	w := newWorld(t, server)
	for i := range many {
		w.PutService(fmt.Sprintf("s%03d", i), 21000+i)
	}
	all := func(s sourcetest.State) bool {
		for i := range many {
			if l, _ := s.Service(fmt.Sprintf("s%03d", i)); len(l) != 1 {
				return false
			}
		}
		return true
	}
	for name, c := range map[string]struct {
		conf  *api.Config
		most  int64
		delay time.Duration
	}{
		"https":      {server.HTTPSConfig(), maxConnsPerHost, sourcetest.Patience},
		"plain http": {&api.Config{Address: server.HTTPAddr(), Transport: api.DefaultConfig().Transport}, 190, pollEvery + sourcetest.Patience},
	} {
		t.Run(name, func(t *testing.T) {
			open := counted(c.conf)
			s, err := New(Config{API: c.conf, Wait: 20 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(c.conf.Transport.CloseIdleConnections)
			r := sourcetest.Start(t, s)
			r.Until("everything", all)
			// Each name changes, so each watch, or poll, must be alive.
			began := time.Now()
			for i := range many {
				w.PutService(fmt.Sprintf("s%03d", i), 22000+i+len(name))
			}
			changed := func(s sourcetest.State) bool {
				for i := range many {
					if l, _ := s.Service(fmt.Sprintf("s%03d", i)); len(l) != 1 || l[0].Port != 22000+i+len(name) {
						return false
					}
				}
				return true
			}
			for end := began.Add(c.delay); !changed(r.State()); time.Sleep(20 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("after %v not every change has arrived; errors %v", c.delay, s.Status().Errors)
				}
			}
			t.Logf("%d services, %d connections, all %d changes after %v", many, open.Load(), many, time.Since(began))
			if n := open.Load(); n > c.most {
				t.Errorf("%d connections, at most %d", n, c.most)
			}
			if errs := s.Status().Errors; len(errs) > 0 {
				t.Errorf("errors: %v", errs)
			}
		})
	}
}

// TestHTTPSWithoutCertificate: the refusal is reported, and nothing is believed.
func TestHTTPSWithoutCertificate(t *testing.T) {
	server := startConsulWith(t, consultest.Options{HTTPS: true})
	conf := server.HTTPSConfig()
	conf.TLSConfig.CertFile, conf.TLSConfig.KeyFile = "", ""
	s, err := New(Config{API: conf})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conf.Transport.CloseIdleConnections)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	rec := sourcetest.NewRecorder(t)
	if err := s.Run(ctx, rec); err == nil {
		t.Error("no error")
	}
	if st := s.Status(); st.Synced || len(st.Errors) == 0 {
		t.Errorf("%+v", st)
	} else if !strings.Contains(st.Errors["consul"], "CONSUL_CLIENT_CERT") {
		t.Errorf("the error does not say what to set: %v", st.Errors)
	}
}

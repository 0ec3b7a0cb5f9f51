package tcp

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// oneHost is a cluster named "up" whose host is reached by dial.
func oneHost(t *testing.T, dial func(context.Context, string, string) (net.Conn, error)) *cluster.Manager {
	t.Helper()
	m := cluster.NewManager(cluster.Options{Dial: dial})
	t.Cleanup(func() { _ = m.Close() })
	if err := m.Update(&cluster.Config{Name: "up", ConnectTimeout: time.Hour, Endpoints: &cluster.Assignment{Cluster: "up", Localities: []cluster.Locality{{
		Endpoints: []cluster.Endpoint{{Host: "192.0.2.1", Port: 1}}}}}}); err != nil {
		t.Fatal(err)
	}
	return m
}

// accepted is a connection of a client that has said something.
func accepted(t *testing.T, said string) *downstream.Conn {
	t.Helper()
	client, server := socketPair(t)
	if _, err := client.Write([]byte(said)); err != nil {
		t.Fatal(err)
	}
	s, err := stream.NewSocket(server, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close(); _ = s.Close() })
	conn := downstream.New(downstream.Facts{Stream: s, Peer: authz.NewPeer(s.Info(), s.Info().Local.(*net.TCPAddr).AddrPort()), Accepted: time.Now()}, nil)
	conn.Attach(&downstream.Server{Context: t.Context()}, owner(make(chan struct{})))
	return conn
}

// TestEndedWhileItConnects: what a client said before it was denied is not passed on.
func TestEndedWhileItConnects(t *testing.T) {
	denied := downstream.Ending{Flags: telemetry.FlagPolicyClosed, Reason: "policy"}
	var conn *downstream.Conn
	theirs, ours := socketPair(t)
	m := oneHost(t, func(context.Context, string, string) (net.Conn, error) {
		conn.End(denied)
		return ours, nil
	})
	p, err := New(&Config{Cluster: "up", AwaitData: true, MaxEarlyData: 100}, Options{Clusters: m})
	if err != nil {
		t.Fatal(err)
	}
	conn = accepted(t, "secret")
	if r := p.begin(t.Context(), conn); r != nil {
		t.Fatal("it is served")
	}
	_ = theirs.SetDeadline(time.Now().Add(5 * time.Second))
	if b, err := io.ReadAll(theirs); err != nil || len(b) > 0 {
		t.Errorf("the host got %q, %v", b, err)
	}
}

// TestEndedBeforeTheFirstWords: nor where it is denied between that and the first write.
func TestEndedBeforeTheFirstWords(t *testing.T) {
	theirs, ours := socketPair(t)
	m := oneHost(t, func(context.Context, string, string) (net.Conn, error) { return ours, nil })
	p, err := New(&Config{Cluster: "up", AwaitData: true, MaxEarlyData: 100}, Options{Clusters: m})
	if err != nil {
		t.Fatal(err)
	}
	conn := accepted(t, "secret")
	r := p.begin(t.Context(), conn)
	if r == nil {
		t.Fatal("it is not served")
	}
	p.watch.add(r)
	conn.End(downstream.Ending{Flags: telemetry.FlagPolicyClosed, Reason: "policy"})
	_ = r.copy(&r.toUp)
	p.end(r)
	_ = theirs.SetDeadline(time.Now().Add(5 * time.Second))
	if b, err := io.ReadAll(theirs); err != nil || len(b) > 0 {
		t.Errorf("the host got %q, %v", b, err)
	}
}

// TestTimesWhileItConnects: a connection lasts no longer than it may while no host can be
// reached, and is given up when it was ended; however often it was tried.
func TestTimesWhileItConnects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		var after func(int)
		m := oneHost(t, func(context.Context, string, string) (net.Conn, error) {
			if tries++; after != nil {
				after(tries)
			}
			return nil, errors.New("down")
		})
		cfg := Config{Cluster: "up", MaxConnectAttempts: 100, Backoff: &Backoff{Base: time.Hour, Max: time.Hour}, MaxDuration: 10 * time.Minute}
		connect := func(cfg Config, until int64) (*outcome, time.Duration) {
			p, err := New(&cfg, Options{Clusters: m})
			if err != nil {
				t.Fatal(err)
			}
			tries = 0
			c := downstream.New(downstream.Facts{Stream: nothing{}, Peer: authz.Peer{Info: &stream.Info{}}}, nil)
			c.Attach(&downstream.Server{Context: t.Context()}, owner(make(chan struct{})))
			after = func(n int) {
				if cfg.MaxDuration == 0 && n == 50 {
					c.End(downstream.Ending{Reason: "over"})
				}
			}
			if until > 0 {
				until += p.watch.now()
			}
			o, began := &outcome{cluster: "up"}, time.Now()
			if p.connect(t.Context(), c, &cluster.PickContext{}, o, until) != nil {
				t.Fatal("it is connected")
			}
			return o, time.Since(began)
		}
		if o, took := connect(cfg, int64(cfg.MaxDuration)); took != cfg.MaxDuration || o.flags != telemetry.FlagDurationTimeout {
			t.Errorf("after %v: %+v", took, o)
		}
		cfg.MaxDuration = 0
		if _, _ = connect(cfg, 0); tries != 50 {
			t.Errorf("%d attempts", tries)
		}
	})
}

// nothing is a stream that can be closed.
type nothing struct{ stream.Stream }

func (nothing) Close() error { return nil }

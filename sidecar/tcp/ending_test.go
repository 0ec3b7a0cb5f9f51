package tcp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

func reset(c net.Conn) {
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
}

// A host that resets is no end: the client is reset too, copied or spliced, after it got
// what the host had said, and the log tells.
func TestUpstreamResets(t *testing.T) {
	for name, size := range map[string]int{"copied": 100, "spliced": 8 << 20} {
		t.Run(name, func(t *testing.T) {
			half, got := bytes.Repeat([]byte("a"), size), make(chan bool)
			m := upstream(t, func(c *net.TCPConn) {
				_, _ = io.ReadFull(c, make([]byte, 4))
				_, _ = c.Write(half)
				<-got
				reset(c)
			})
			client, line := serve(t, Config{Cluster: "up"}, m)
			_, _ = client.Write([]byte("ping"))
			b := make([]byte, size)
			if _, err := io.ReadFull(client, b); err != nil {
				t.Error(err)
			}
			close(got)
			if n, err := client.Read(b); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%d bytes more, %v", n, err)
			}
			if got := line(); !strings.HasPrefix(got, "UR 4 ") || !strings.HasSuffix(got, " upstream_reset") {
				t.Errorf("log %q", got)
			}
		})
	}
}

// So is a client that resets, to the host: it has no flag, as in Envoy.
func TestClientResets(t *testing.T) {
	ended := make(chan error, 1)
	m := upstream(t, func(c *net.TCPConn) {
		_, err := io.Copy(io.Discard, c)
		ended <- err
	})
	client, line := serve(t, Config{Cluster: "up"}, m)
	_, _ = client.Write([]byte("half"))
	waitParked(t)
	reset(client)
	if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the host sees %v", err)
	}
	if got, want := line(), "- 4 0 up downstream_reset"; got != want {
		t.Errorf("log %q, want %q", got, want)
	}
}

// What a host said before it left arrives, however late the client reads and although it
// goes on sending: those bytes are taken and dropped meanwhile.
func TestAnswerOfAHostThatLeft(t *testing.T) {
	answer, left := bytes.Repeat([]byte("a"), 512<<10), make(chan bool)
	m := upstream(t, func(c *net.TCPConn) {
		defer close(left)
		_, _ = io.ReadFull(c, make([]byte, 4))
		_, _ = c.Write(answer)
		_ = c.CloseWrite()
		// What is closed over bytes that were not read forgets what it was to send.
		s, err := stream.NewSocket(c, nil)
		for err == nil && stream.Unacknowledged(s) > 0 {
			time.Sleep(time.Millisecond)
		}
	})
	client, _ := serve(t, Config{Cluster: "up"}, m)
	_, _ = client.Write([]byte("ping"))
	<-left
	var sending sync.WaitGroup
	sending.Go(func() {
		for {
			if _, err := client.Write(make([]byte, 1000)); err != nil {
				return // the connection is over
			}
			time.Sleep(time.Millisecond)
		}
	})
	time.Sleep(300 * time.Millisecond) // a reader that comes late
	b := make([]byte, len(answer)+1)
	n, err := io.ReadFull(client, b)
	if n != len(answer) {
		t.Errorf("%d bytes of %d: %v", n, len(answer), err)
	}
	sending.Wait()
}

// A client that takes nothing is not waited for for ever, neither where its host has left nor where the
// connection is to finish.
func TestLingerEnds(t *testing.T) {
	for name, tc := range map[string]struct {
		at   func(*relay) *atomic.Int64
		look func(*relay, int64)
	}{
		"left":    {func(r *relay) *atomic.Int64 { return &r.leftAt }, (*relay).linger},
		"drained": {func(r *relay) *atomic.Int64 { return &r.drainAt }, (*relay).look},
	} {
		t.Run(name, func(t *testing.T) { lingers(t, tc.at, tc.look) })
	}
}

func lingers(t *testing.T, at func(*relay) *atomic.Int64, look func(*relay, int64)) {
	t.Helper()
	m := upstream(t, func(c *net.TCPConn) { _, _ = io.ReadAll(c) })
	p, err := New(&Config{Cluster: "up"}, Options{Clusters: m})
	if err != nil {
		t.Fatal(err)
	}
	up, err := m.Get("up").OpenFor(t.Context(), "", &cluster.PickContext{}, &cluster.Asker{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	defer far.Close()
	r := newRelay(p, downstream.New(downstream.Facts{Stream: pipeStream{Conn: near}}, nil), up, outcome{})
	defer r.close()
	at(r).Store(1)
	r.last.Store(2)
	if look(r, 1+lingerFor); r.closing {
		t.Error("closed too early")
	}
	if look(r, 2+lingerFor); !r.closing {
		t.Error("not closed")
	}
}

// connected has p serve a connection.
func connected(t *testing.T, p *Proxy, metrics *telemetry.PeerMetrics) (net.Conn, owner) {
	t.Helper()
	client, server := socketPair(t)
	s, err := stream.NewSocket(server, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := downstream.New(downstream.Facts{Stream: s, Peer: authz.Peer{Info: s.Info()}, Accepted: time.Now(), PeerMetrics: metrics}, nil)
	finished := make(owner)
	c.Attach(&downstream.Server{Handler: p, Context: t.Context()}, finished)
	go c.Serve()
	t.Cleanup(func() { _, _ = client.Close(), s.Close() })
	return client, finished
}

// The watch may look at a connection while its end is logged, and after.
func TestLookAtTheEnd(t *testing.T) {
	p, err := New(&Config{Cluster: "up", MaxDuration: time.Hour}, Options{Clusters: upstream(t, echoAll)})
	if err != nil {
		t.Fatal(err)
	}
	client, finished := connected(t, p, nil)
	_, _ = client.Write([]byte("x"))
	_, _ = io.ReadFull(client, make([]byte, 1))
	p.watch.mu.Lock()
	r := p.watch.relays[0]
	p.watch.mu.Unlock()
	_ = client.Close()
	for over := false; !over; {
		select {
		case <-finished:
			over = true
		default:
			r.lookGuarded(r.end + 1)
		}
	}
	r.lookGuarded(r.end + 1)
}

// Bytes are counted while the connection lasts, of its peer and of its cluster, and each once.
func TestBytesAreCounted(t *testing.T) {
	metrics := telemetry.NewMetrics()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	m := cluster.NewManager(cluster.Options{Metrics: metrics})
	defer m.Close()
	if err := m.Update(&cluster.Config{Name: "up", Endpoints: &cluster.Assignment{Cluster: "up", Localities: []cluster.Locality{{
		Endpoints: []cluster.Endpoint{{Host: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port}}}}}}); err != nil {
		t.Fatal(err)
	}
	p, err := New(&Config{Cluster: "up"}, Options{Clusters: m, Metrics: metrics})
	if err != nil {
		t.Fatal(err)
	}
	client, finished := connected(t, p, metrics.Service(telemetry.Outbound, "db").Peer("none"))
	host, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	has := func(received, sent int) bool {
		var text strings.Builder
		_ = metrics.Registry.WritePrometheus(&text)
		for _, want := range []string{
			fmt.Sprintf("hauberk_bytes_total{direction=\"outbound\",service=\"db\",peer=\"none\",flow=\"received\"} %d\n", received),
			fmt.Sprintf("hauberk_bytes_total{direction=\"outbound\",service=\"db\",peer=\"none\",flow=\"sent\"} %d\n", sent),
			fmt.Sprintf("hauberk_upstream_bytes_total{cluster=\"up\",flow=\"received\"} %d\n", sent),
			fmt.Sprintf("hauberk_upstream_bytes_total{cluster=\"up\",flow=\"sent\"} %d\n", received),
		} {
			if !strings.Contains(text.String(), want) {
				return false
			}
		}
		return true
	}
	for round := 1; round <= 2; round++ {
		_, _ = client.Write(make([]byte, 1000))
		_, _ = io.ReadFull(host, make([]byte, 1000))
		_, _ = host.Write(make([]byte, 10))
		_, _ = io.ReadFull(client, make([]byte, 10))
		for began := time.Now(); !has(1000*round, 10*round); time.Sleep(10 * time.Millisecond) {
			if time.Since(began) > 10*time.Second {
				t.Fatalf("not counted in round %d", round)
			}
		}
	}
	_, _ = host.Write([]byte("x"))
	_, _ = io.ReadFull(client, make([]byte, 1))
	_ = client.Close()
	_ = host.Close()
	<-finished
	if !has(2000, 21) {
		t.Error("the last byte is not counted, or others twice")
	}
}

type pipeStream struct{ net.Conn }

func (pipeStream) CloseWrite() error  { return nil }
func (pipeStream) Info() *stream.Info { return nil }

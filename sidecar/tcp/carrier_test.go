package tcp

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/http2"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// tunnels has a proxy serve what comes as streams of a connection.
type tunnels struct {
	p *Proxy
	t *testing.T
}

func (h tunnels) ServeStream(s *http2.Stream) {
	if err := s.WriteHead(&message.Response{Status: 200, ContentLength: message.UnknownLength}, false); err != nil {
		return
	}
	_ = s.Flush()
	s.Keep()
	tun := http2.NewTunnel(s, nil)
	c := downstream.New(downstream.Facts{Stream: tun, Peer: authz.NewPeer(tun.Info(), tun.Info().Local.(*net.TCPAddr).AddrPort()), Accepted: time.Now()}, nil)
	c.Attach(&downstream.Server{Handler: h.p, Context: h.t.Context()}, releaser{})
	c.Serve()
}

type releaser struct{}

func (releaser) Finished(c *downstream.Conn) { c.Stream.(*http2.Tunnel).Release() }

// socketPair is both ends of a TCP connection.
func socketPair(t testing.TB) (near, far *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

// TestCarrierIsLost: a connection in a tunnel whose carrier ends before it does was cut. The
// host does not take what it got for the whole.
func TestCarrierIsLost(t *testing.T) {
	got, ended := make(chan bool), make(chan error, 1)
	m := upstream(t, func(c *net.TCPConn) {
		_, _ = io.ReadFull(c, make([]byte, 4))
		close(got)
		_, err := c.Read(make([]byte, 1))
		ended <- err
	})
	p, err := New(&Config{Cluster: "up"}, Options{Clusters: m})
	if err != nil {
		t.Fatal(err)
	}
	near, far := socketPair(t)
	ours, err := stream.NewSocket(near, nil)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := stream.NewSocket(far, nil)
	if err != nil {
		t.Fatal(err)
	}
	served, ran := make(chan bool), make(chan bool)
	go func() {
		defer close(served)
		_ = http2.NewServer(theirs, http2.ForTunnels(), tunnels{p, t}).Serve(t.Context())
	}()
	cc := http2.NewClient(ours, http2.ForTunnels())
	go func() { defer close(ran); _ = cc.Run() }()
	defer func() { cc.Close(); <-ran; <-served; _ = p.Close() }()

	s, err := cc.Open(&message.Request{Method: "CONNECT", Authority: "a:1", ContentLength: message.UnknownLength}, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := http2.NewTunnel(s, nil).Write([]byte("half")); err != nil {
		t.Fatal(err)
	}
	<-got
	_ = near.CloseWrite()
	select {
	case err := <-ended:
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the host sees %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the host's connection goes on")
	}
}

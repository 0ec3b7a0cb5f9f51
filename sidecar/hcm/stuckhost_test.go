package hcm

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
)

// TestHostThatReadsNothing: the time of a request whose host does not take it ends when it
// ends, over TLS too: nobody waits for the host to take the last words.
func TestHostThatReadsNothing(t *testing.T) {
	ids := &identities{t: t, certs: map[string]tls.Certificate{}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	over := make(chan struct{})
	defer close(over)
	cert := certificate(t, apiID)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_ = c.(*net.TCPConn).SetReadBuffer(4096)
				_ = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}}).Handshake()
				<-over
			}()
		}
	}()
	b := quiet(newBed(t))
	_ = b.clusters.Close()
	b.clusters = cluster.NewManager(cluster.Options{Metrics: b.metrics, TLS: ids, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err == nil {
			err = c.(*net.TCPConn).SetWriteBuffer(32 << 10)
		}
		return c, err
	}})
	if err := b.clusters.Update(&cluster.Config{Name: "origin", Endpoints: endpoints("origin", l.Addr().String()), TLS: &cluster.TLS{SNI: "api", PeerIDs: []string{apiID}}}); err != nil {
		t.Fatal(err)
	}
	b.cfg.MaxStreamDuration = 500 * time.Millisecond
	b.start()
	c := b.dial()
	const size = 32 << 20
	go func() {
		_, _ = io.WriteString(c.Conn, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 33554432\r\n\r\n")
		_, _ = io.WriteString(c.Conn, strings.Repeat("x", size))
	}()
	began := time.Now()
	resp, _ := c.answer("POST")
	if took := time.Since(began); resp.StatusCode != 408 || took > 4*time.Second {
		t.Errorf("%d after %v", resp.StatusCode, took)
	}
}

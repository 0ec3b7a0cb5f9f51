package cluster

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/hauberk-mesh/hauberk/sidecar/http2"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// agrees takes every tunnel, and keeps it.
func agrees(nc net.Conn) {
	if _, err := io.ReadFull(nc, make([]byte, len(xhttp2.ClientPreface))); err != nil {
		return
	}
	fr := xhttp2.NewFramer(nc, nc)
	err := fr.WriteSettings()
	for err == nil {
		var f xhttp2.Frame
		if f, err = fr.ReadFrame(); err != nil {
			return
		}
		switch f := f.(type) {
		case *xhttp2.SettingsFrame:
			if !f.IsAck() {
				err = fr.WriteSettingsAck()
			}
		case *xhttp2.HeadersFrame:
			const status200 = 0x88 // of the static table (RFC 7541 A)
			err = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: f.StreamID, BlockFragment: []byte{status200}, EndHeaders: true})
		}
	}
}

// fill has as much wait to be written on a shared connection as it takes.
func fill(t *testing.T, c *Conn) {
	t.Helper()
	for range 100 {
		s, err := c.HTTP2.Open(&message.Request{Method: "GET", Scheme: "https", Authority: "a", Path: "/" + strings.Repeat("x", 16<<10)}, true)
		if err == http2.ErrFull {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
	}
	t.Fatal("the connection is not full")
}

// TestTunnelOnAFullConnection: a connection that takes no more is asked once, and then
// another; where there is none, the overflow is counted as that of a connection is.
func TestTunnelOnAFullConnection(t *testing.T) {
	c := tunnelHost(t, 5*time.Second, agrees)
	first, err := c.Open(t.Context(), "web", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	full := first.carrier
	fill(t, full)
	asked := full.uses.Load()
	var e *Error
	if _, err := c.Open(t.Context(), "web", nil, 0); !errors.As(err, &e) || e.Kind != OverflowConnections {
		t.Fatal(err)
	}
	if n := full.uses.Load() - asked; n != 1 {
		t.Errorf("asked %d times", n)
	}
	if n := c.metrics.Use().OverflowConnections.Value(); n != 1 {
		t.Errorf("%d overflows are counted", n)
	}
	if n := c.conns.Load(); n != 1 {
		t.Errorf("%d connections are counted", n)
	}
	p := c.hosts()[0].pool("web", DefaultPriority)
	p.dialing++
	c.conns.Add(1)
	other, err := p.dialReserved(t.Context(), 0, protocolTunnel)
	if err != nil {
		t.Fatal(err)
	}
	other.Release() // nothing is opened on it
	waitFor(t, func() bool { return !other.Early() })
	capacity, _ := other.HTTP2.Capacity()
	other.carries.Add(int64(capacity) - 1) // the full one comes first
	defer other.carries.Add(1 - int64(capacity))
	fill(t, full) // its host reads
	conn, err := c.Open(t.Context(), "web", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	if conn.carrier != other {
		t.Error("not opened on the other connection")
	}
	_ = conn.Close()
}

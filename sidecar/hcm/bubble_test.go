package hcm

import (
	"net"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/streamtest"
)

// networks are those of the tests that run in bubbles, by *testing.T.
var networks sync.Map

// bubble has a test, with its beds and origins, run in a bubble of synctest: times cost
// nothing there. Connections have no descriptor that could be polled, so that one which is
// parked is served again at once, and no TCP beneath.
func bubble(test func(t *testing.T)) func(*testing.T) {
	return func(t *testing.T) {
		// A pooled exchange has the channel of its pump: one of a bubble is of no use outside
		// of it, nor the other way round.
		forget := func() { exchanges = sync.Pool{New: exchanges.New} }
		forget()
		defer forget()
		synctest.Test(t, func(t *testing.T) {
			networks.Store(t, streamtest.NewNetwork())
			t.Cleanup(func() { networks.Delete(t) })
			test(t)
		})
	}
}

// bubbles is bridges with a bubble for each.
func bubbles(t *testing.T, test func(t *testing.T, down, up int)) {
	bridges(t, func(t *testing.T, down, up int) { bubble(func(t *testing.T) { test(t, down, up) })(t) })
}

// bothInBubbles is bothVersions with a bubble for each.
func bothInBubbles(t *testing.T, test func(t *testing.T, version int)) {
	bothVersions(t, func(t *testing.T, version int) { bubble(func(t *testing.T) { test(t, version) })(t) })
}

// networkOf is that of the test's bubble, nil without one.
func networkOf(t testing.TB) *streamtest.Network {
	n, _ := networks.Load(t)
	network, _ := n.(*streamtest.Network)
	return network
}

// listen is at loopback, or within the test's bubble.
func listen(t testing.TB) net.Listener {
	t.Helper()
	if n := networkOf(t); n != nil {
		return n.Listen()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// connect is a connection to the bed.
func (b *bed) connect() stream.Conn {
	b.t.Helper()
	dial := net.Dial
	if b.network != nil {
		dial = b.network.Dial
	}
	nc, err := dial("tcp", b.addr)
	if err != nil {
		b.t.Fatal(err)
	}
	return nc.(stream.Conn)
}

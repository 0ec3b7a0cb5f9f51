package tcp

import (
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
)

// TestWhoEnds: the end that comes first counts, and the other's only follows from it.
func TestWhoEnds(t *testing.T) {
	for _, hostFirst := range []bool{false, true} {
		r := &relay{c: downstream.New(downstream.Facts{}, nil), up: &cluster.Conn{}}
		if hostFirst {
			r.c.EndedBy(false)
		}
		r.clientLeft()
		if peer, known := r.c.Side(); !known || peer == hostFirst {
			t.Errorf("the host first: %v; the client ended it: %v %v", hostFirst, peer, known)
		}
	}
}

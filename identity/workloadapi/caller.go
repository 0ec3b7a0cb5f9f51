package workloadapi

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/peer"

	"github.com/hauberk-mesh/hauberk/identity/selector"
)

// Caller is the process that opened a connection to the socket, as the kernel
// saw it at that moment. The connection ends when the process does, even if
// another one has inherited its file descriptor.
type Caller struct {
	// UID and GID are its effective user and primary group.
	UID, GID uint32
	// PID is in the agent's PID namespace.
	PID int32

	server *Server
	pidfd  *os.File
}

// CallerFromContext returns the attested caller of the call that the context
// belongs to. It is false only in a context that is not of a call to this
// socket.
func CallerFromContext(ctx context.Context) (*Caller, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, false
	}
	info, ok := p.AuthInfo.(callerInfo)
	return info.caller, ok
}

// Entitled are the SPIFFE IDs that the caller may have now, the default one
// first, whether or not the agent holds an SVID of each yet. It looks again at
// each call: entries, the node's record and the caller's systemd unit may
// change. None when the process has ended.
func (c *Caller) Entitled() []spiffeid.ID {
	var out []spiffeid.ID
	for _, g := range c.granted(c.server.world.Load()) {
		out = append(out, g.id)
	}
	return out
}

// Changed is closed when Entitled may have changed. Take the channel before
// calling Entitled: then no change falls between them.
func (c *Caller) Changed() <-chan struct{} { return c.server.world.Load().changed }

func (c *Caller) String() string { return fmt.Sprintf("uid=%d gid=%d pid=%d", c.UID, c.GID, c.PID) }

// granted are the caller's identities in a world.
func (c *Caller) granted(w *world) []granted {
	facts, err := c.facts(w.needsUnit)
	if err != nil {
		return nil
	}
	return w.granted(facts)
}

// errExited: what is read of a process that has ended may be of another one with
// the same number.
var errExited = errors.New("the process has ended")

// facts are what selectors look at. The unit is read only where an entry asks
// for one; a unit that cannot be read is none.
func (c *Caller) facts(unit bool) (selector.Facts, error) {
	f := selector.Facts{UID: c.UID, GID: c.GID}
	if unit {
		if b, err := c.server.reads.cgroup(c.PID); err == nil {
			f.Unit = unitOf(b)
		}
	}
	// After reading: the process lived until now, so its number was its own.
	if exited(c.pidfd) {
		return selector.Facts{}, errExited
	}
	return f, nil
}

// Package fair keeps who always finds something to do from starving who waits for the
// network.
//
// The runtime looks at the network when a processor has nothing else to run, and else every
// 10 ms. A goroutine whose peers are fast never waits: its next bytes are there before it
// asks for them. Some of these keep all processors busy, and a connection that has
// something to do once in a while then waits for the monitor's look, behind all of them,
// with each message. So they take turns: after a share of work each waits until the network
// was looked at, and who was found there runs beside it.
package fair

import (
	"encoding/binary"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Request is what a request costs that is answered at once, in bytes: as much as moving
// these takes.
const Request = 64 << 10

// A share is what may be done in one turn, in bytes. That of one who is alone takes 200 to
// 1,000 µs, and the wait about 3. The more take turns the smaller it is, down to a least.
const (
	wholeShare = 1 << 20
	leastShare = 64 << 10
)

// Share is what one goroutine has done since it last waited. The zero value is a new
// share. It is its goroutine's alone.
type Share struct{ spent int }

// Renew begins a new share: the goroutine has waited.
func (s *Share) Renew() { s.spent = 0 }

// Spend notes work that was done, in bytes moved.
func (s *Share) Spend(bytes int) { s.spent += bytes }

// Turn is called before more is done. Where nothing is left of the share it waits until the
// network was looked at: as long as the others that are ready take for their shares, never
// for a peer. No lock may be held that these need.
func (s *Share) Turn() {
	if s.spent >= int(share.Load()) {
		s.spent = 0
		theNetwork().await()
	}
}

// share is the size of one at present.
var share atomic.Int64

func init() { share.Store(wholeShare) }

var theNetwork = sync.OnceValue(newNetwork)

// network has goroutines wait until the runtime looks at the network. One waits for an
// eventfd that it makes readable itself once the runtime's poller watches it, the others
// for that one.
type network struct {
	file  *os.File        // the eventfd, nil where the system gives none
	raw   syscall.RawConn // its
	once  func(fd uintptr) bool
	asked bool // the leader's

	mu      sync.Mutex
	looked  sync.Cond
	leading bool  // somebody waits for the eventfd
	waiting int64 // how many wait for that one
	looks   uint64
}

func newNetwork() *network {
	n := &network{}
	n.looked.L = &n.mu
	n.once = n.ask
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return n
	}
	n.file = os.NewFile(uintptr(fd), "eventfd")
	if n.raw, err = n.file.SyscallConn(); err != nil {
		n.raw = nil
	}
	return n
}

// await returns when the network was looked at since, or at worst was being looked at.
func (n *network) await() {
	if n.raw == nil {
		runtime.Gosched()
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.leading {
		n.waiting++
		for at := n.looks; n.looks == at; {
			n.looked.Wait()
		}
		return
	}
	n.leading = true
	n.look()
	share.Store(max(wholeShare/(1+n.waiting), leastShare))
	n.leading, n.waiting = false, 0
	n.looks++
	n.looked.Broadcast()
}

// look waits for the eventfd. The lock is held, and given up meanwhile.
func (n *network) look() {
	n.mu.Unlock()
	defer n.mu.Lock()
	n.asked = false
	if err := n.raw.Read(n.once); err != nil {
		runtime.Gosched()
	}
}

// ask makes the eventfd readable when the poller is armed, and takes that back when the
// poller has found it.
func (n *network) ask(fd uintptr) (found bool) {
	var one [8]byte
	if !n.asked {
		n.asked = true
		binary.NativeEndian.PutUint64(one[:], 1)
		_, err := unix.Write(int(fd), one[:])
		return err != nil
	}
	_, err := unix.Read(int(fd), one[:])
	return err != unix.EAGAIN
}

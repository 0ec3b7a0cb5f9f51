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
	"time"

	"golang.org/x/sys/unix"
)

// Request is what a request costs that is answered at once, in bytes: as much as moving
// these takes.
const Request = 64 << 10

// Handshake is what a peer's TLS handshake costs, in bytes. Many begin at once where many
// clients come back.
const Handshake = share

// share is what may be done in one turn, in bytes: 100 to 500 µs. The wait of one who is alone
// takes about 3.
const share = 512 << 10

// What pieces of an update of the configuration cost, in bytes.
const (
	Message = 4 << 10   // to look at one of its messages
	Route   = 32 << 10  // to make one of it
	Cluster = 256 << 10 // to put one in force
)

// Share is what one goroutine has done since it last waited, as far as it knows. The zero
// value is a new share. It is its goroutine's alone.
type Share struct{ spent int }

// Renew begins a new share: the goroutine has waited.
func (s *Share) Renew() { s.spent = 0 }

// Spend notes work that was done, in bytes moved.
func (s *Share) Spend(bytes int) { s.spent += bytes }

// Turn is called before more is done. Where nothing is left of the share it waits until the
// network was looked at: as long as all that are ready take, and those that wait for their
// turn before it; never for a peer. No lock may be held that these need.
func (s *Share) Turn() {
	if s.spent >= share {
		s.spent = 0
		await()
	}
}

// Common is a share of several goroutines, such as those of one connection's requests. The
// zero value is a new share.
type Common struct {
	spent atomic.Int64
	// turn is held by who waits for all, so that they go on as one would.
	turn sync.Mutex
}

// Spend notes work that one of them has done.
func (c *Common) Spend(bytes int) { c.spent.Add(int64(bytes)) }

// Turn is Share.Turn: each calls it before it does more.
func (c *Common) Turn() {
	if c.spent.Load() < share {
		return
	}
	c.turn.Lock()
	defer c.turn.Unlock()
	if c.spent.Load() >= share {
		await()
		c.spent.Add(-share)
	}
}

// background is the share of all that no request waits for.
var background Common

// Background notes work that no request waits for, and lets who waits for the network run
// first where it has become a share. It is called between the pieces of such work, by any
// goroutine. A lock that is held meanwhile is held for longer.
func Background(bytes int) {
	background.Spend(bytes)
	background.Turn()
}

// looking is held by whose look is under way. So each look lets one go on who is never found
// without work, beside all who are found: however many there are of these, who waits for the
// network waits for one share. A mutex that is waited for long is had in order.
var looking sync.Mutex

// A look takes long where others run who do not wait, nor take turns: who computes, or very
// many who were found. The runtime comes to it every 10 to 20 ms then, and more may go on for
// each: one for so much of it that what they do with it cannot make the next look longer.
const (
	patience = 2 * time.Millisecond
	most     = 20
)

// further is how many more may go on after the last look; looking guards it.
var further int

// await returns when the runtime has looked at the network.
func await() {
	looking.Lock()
	defer looking.Unlock()
	if further > 0 {
		further--
		return
	}
	if poller == nil {
		poller = newPause()
	}
	began := time.Now()
	if !poller.wait() {
		poller = nil // there are no descriptors left; another time there may be
		runtime.Gosched()
	}
	further = min(int(time.Since(began)/patience), most)
}

// poller is what is waited for; looking guards it.
var poller *pause

// pause is a wait for an eventfd, which is made readable once the runtime's poller watches it.
type pause struct {
	raw   syscall.RawConn // of a file, which the collector closes; nil for none
	once  func(fd uintptr) bool
	asked bool
}

func newPause() *pause {
	p := &pause{}
	p.once = p.ask
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return p
	}
	f := os.NewFile(uintptr(fd), "eventfd")
	if p.raw, err = f.SyscallConn(); err != nil {
		_ = f.Close()
		p.raw = nil
	}
	return p
}

// wait is false where there is nothing to wait for.
func (p *pause) wait() bool {
	p.asked = false
	return p.raw != nil && p.raw.Read(p.once) == nil
}

// ask makes the eventfd readable when the poller is armed, and takes that back when the
// poller has found it.
func (p *pause) ask(fd uintptr) (found bool) {
	var one [8]byte
	if !p.asked {
		p.asked = true
		binary.NativeEndian.PutUint64(one[:], 1)
		_, err := unix.Write(int(fd), one[:])
		return err != nil
	}
	_, err := unix.Read(int(fd), one[:])
	return err != unix.EAGAIN
}

package stream

import (
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/hauberk-mesh/hauberk/sidecar/clock"
	"github.com/hauberk-mesh/hauberk/sidecar/processors"
)

// circle has the sockets that are read by ReadEach. Whose reader has found something leads
// the others for a term: before it waits by the runtime's poller it waits for all of them, by
// an epoll instance of their own, and reads for who is found. A message that comes meanwhile
// costs no goroutine's switch, and one poll instead of the runtime's two, one before it lets
// the thread wait and one that waits. And what goes to one connection can be held a moment,
// for what others have for it.
//
// The readers wait by the runtime's poller all the while: nothing is lost where nobody leads.
// It is for one processor, which a leader keeps. With more, each message that it reads would
// wake the runtime as well. And it is where nothing but messages is passed on: a batch that
// wakes a goroutine ends the term, and other sockets that are read keep any from beginning.
type circle struct {
	ep      int
	leading atomic.Bool
	leader  Leader // of who leads, as are skip, miss and bell
	bell    bell

	// skip is how many chances to lead are let go by, and miss how many were after the last
	// that was in vain.
	skip, miss int
	// apartUntil is when somebody may lead again after another socket was read; 0 is at once.
	apartUntil atomic.Int64

	mu      sync.Mutex
	members []*eachReader // by the numbers that their events carry
	free    []int32
}

// Leader is the term of a reader that reads for others too. It is its goroutine's.
type Leader struct {
	reader *eachReader
	held   []held
	over   bool // the term is
	more   bool // the reader has more than it reads while it leads
	belled bool // the bell was set for it
	step   bool // somebody is to run before the leader waits
	events [64]unix.EpollEvent
}

// Held is what a leader puts off.
type Held interface {
	// Release lets go of it, or keeps it for another round. With last it must go: nothing more
	// has come in time. It does not wait. awaits says that a goroutine is to go on with it.
	Release(last bool) (kept, awaits bool)
}

type held struct {
	Held
	rounds int
}

// Hold has h released at the end of the round, before which more may come. What is held
// must not be held again.
func (l *Leader) Hold(h Held) { l.held = append(l.held, held{Held: h}) }

// Stir says that a goroutine was woken. It ends the term.
func (l *Leader) Stir() { l.over = true }

const (
	// moment is what a leader waits where something is held, in nanoseconds. The kernel adds
	// its timers' slack, 50 µs.
	moment = 50_000
	// term is how long one leads, in nanoseconds, and up to twice as long where the last ended
	// early: others may wait for the processor as long.
	term = 2_000_000
	// apartFor is how long nobody leads after another socket was read, in nanoseconds.
	apartFor = 1_000_000_000
	// stepRounds is how often a leader waits until it lets timers run, and goroutines that
	// nobody told it of; heldRounds is how long something may be kept.
	stepRounds, heldRounds = 16, 4
	// ledReads is how often one socket is read at a time: the others wait.
	ledReads = 4
	// mostSkipped bounds how many chances are let go by where the last ones were in vain.
	mostSkipped = 15
)

// apart tells that a socket was read which is in no circle.
var apart atomic.Bool

// Apart notes that such a socket is read, where this package does not read it.
func Apart() {
	if !apart.Load() {
		apart.Store(true)
	}
}

// theCircle is the process's, nil where there is none.
var theCircle = sync.OnceValue(newCircle)

func newCircle() *circle {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil
	}
	c := &circle{ep: ep}
	if _, errno := c.poll(c.leader.events[:], &unix.Timespec{}); errno != 0 || !c.bell.hang(ep) {
		_ = unix.Close(ep) // a kernel before 5.11, or one that may not be asked
		return nil
	}
	return c
}

// join makes r's socket one of the circle's. That costs something with each message, and is
// not done where nobody leads.
func (c *circle) join(r *eachReader) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.free); n > 0 {
		r.number, c.free = c.free[n-1], c.free[:n-1]
	} else {
		r.number = int32(len(c.members))
		c.members = append(c.members, nil)
	}
	e := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | edgeTriggered, Fd: r.number}
	if unix.EpollCtl(c.ep, unix.EPOLL_CTL_ADD, int(r.fd), &e) != nil {
		c.free = append(c.free, r.number)
		return
	}
	c.members[r.number] = r
	r.joined = true
}

const edgeTriggered = unix.EPOLLET & (1<<32 - 1)

// leave undoes join. An event of its socket that was fetched already is nobody's, or has the
// next with its number look in vain.
func (c *circle) leave(r *eachReader) {
	_ = unix.EpollCtl(c.ep, unix.EPOLL_CTL_DEL, int(r.fd), nil)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.members[r.number] = nil
	c.free = append(c.free, r.number)
}

// member returns whose event it is; nil is nobody.
func (c *circle) member(number int32) *eachReader {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.members[number]
}

// begin begins a term; nil is that none is to be.
func (c *circle) begin(r *eachReader) *Leader {
	if c == nil || !processors.One() {
		return nil
	}
	if !r.joined && c.apartUntil.Load() == 0 {
		c.join(r)
	}
	if !r.joined || !c.leading.CompareAndSwap(false, true) {
		return nil
	}
	if !c.chance() {
		c.leading.Store(false)
		return nil
	}
	l := &c.leader
	l.reader, l.over, l.more, l.belled, l.step = r, false, false, false, true
	return l
}

// chance tells whether leading promises anything, and hurts nobody.
func (c *circle) chance() bool {
	if apart.Load() {
		apart.Store(false)
		c.apartUntil.Store(clock.Now() + apartFor)
	}
	if until := c.apartUntil.Load(); until != 0 {
		if clock.Now() < until {
			return false
		}
		c.apartUntil.Store(0)
	}
	if c.skip > 0 {
		c.skip--
		return false
	}
	return true
}

// end ends it.
func (c *circle) end(l *Leader) {
	l.settle(true)
	l.reader = nil
	c.leading.Store(false)
}

// lead reads for all until nothing comes in time, or the term is over.
func (c *circle) lead(l *Leader) {
	found := 0
	for round := 0; !l.over; round++ {
		l.settle(false)
		if l.step || round%stepRounds == 0 {
			l.step = false
			letRun()
			if apart.Load() {
				break
			}
		}
		events := c.wait(l)
		if len(events) == 0 {
			break
		}
		for _, e := range events {
			found += c.found(l, e.Fd)
		}
	}
	if found > 0 {
		c.miss = 0
		return
	}
	c.miss = min(2*c.miss+1, mostSkipped)
	c.skip = c.miss
}

// letRun has those run who can, some of whom step back themselves, for others to join in what
// they write: so the leader steps back further.
func letRun() {
	for range 3 {
		runtime.Gosched()
	}
}

// found reads for who was found, and tells how many that were.
func (c *circle) found(l *Leader, number int32) int {
	if number == bellNumber {
		c.bell.set = false
		l.over = l.over || l.belled // or it is an earlier term's
		return 0
	}
	if r := c.member(number); r != nil {
		r.serve(l, ledReads)
	}
	return 1
}

// wait returns who is found. It is not announced to the scheduler: that would have the monitor
// woken, to give the processor to another thread. A goroutine that is to be stopped, as for
// the collector, is sent a signal, which ends it. Only where something is held it has an end
// of its own: a timer that is to go off before the kernel's next tick costs as much as the
// message, so the bell, which rings once in a term, ends it otherwise.
func (c *circle) wait(l *Leader) []unix.EpollEvent {
	if !c.bell.set {
		if l.belled = c.bell.ring(term); !l.belled {
			return nil
		}
	}
	var end *unix.Timespec
	if len(l.held) > 0 {
		end = &unix.Timespec{Nsec: moment}
	}
	n, errno := c.poll(l.events[:], end)
	if errno != 0 {
		return nil
	}
	return l.events[:n]
}

// poll is epoll_pwait2(2).
func (c *circle) poll(events []unix.EpollEvent, end *unix.Timespec) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT2, uintptr(c.ep), uintptr(unsafe.Pointer(&events[0])),
		uintptr(len(events)), uintptr(unsafe.Pointer(end)), 0, 0)
	return int(n), errno
}

// settle releases what is held.
func (l *Leader) settle(last bool) {
	kept := l.held[:0]
	for _, h := range l.held {
		h.rounds++
		keep, awaits := h.Release(last || h.rounds > heldRounds)
		if keep {
			kept = append(kept, h)
		}
		l.step = l.step || awaits
	}
	clear(l.held[len(kept):])
	l.held = kept
}

// bell is a timer of the kernel that epoll finds.
type bell struct {
	fd  int
	set bool // it is to ring, or has rung and was not found yet
}

// bellNumber is its event's, and no member's.
const bellNumber = -1

// hang has an epoll instance find it.
func (b *bell) hang(ep int) bool {
	var err error
	if b.fd, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK); err != nil {
		return false
	}
	e := unix.EpollEvent{Events: unix.EPOLLIN | edgeTriggered, Fd: bellNumber}
	if unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, b.fd, &e) != nil {
		_ = unix.Close(b.fd)
		return false
	}
	return true
}

// ring has it ring once, after so many nanoseconds. That it has rung before is forgotten.
func (b *bell) ring(after int64) bool {
	t := unix.ItimerSpec{Value: unix.Timespec{Nsec: after}}
	_, _, errno := syscall.RawSyscall6(unix.SYS_TIMERFD_SETTIME, uintptr(b.fd), 0, uintptr(unsafe.Pointer(&t)), 0, 0, 0)
	b.set = errno == 0
	return b.set
}

package stream

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/processors"
	"github.com/hauberk-mesh/hauberk/sidecar/processors/processorstest"
)

// inCircle is a stream that is read by ReadEach, whose peer the test has.
type inCircle struct {
	s    Stream
	peer io.WriteCloser
	buf  []byte
	took atomic.Pointer[func(piece string, l *Leader) (more bool)]
	done chan error
}

func (c *inCircle) TakeBuffer() []byte { return c.buf }
func (c *inCircle) DropBuffer()        {}

func (c *inCircle) handle(took func(piece string, l *Leader) (more bool)) { c.took.Store(&took) }

func (c *inCircle) read() {
	c.done <- c.s.(EachReader).ReadEach(c, func(n int, l *Leader) bool { return (*c.took.Load())(string(c.buf[:n]), l) })
}

// circled runs a test on one processor with two streams of the circle, in whose terms no
// other socket is read.
func circled(t *testing.T, test func(t *testing.T, leader, led *inCircle)) {
	pairs := func(t *testing.T, f func(t *testing.T, pair func() (Stream, io.WriteCloser))) {
		t.Run("socket", func(t *testing.T) {
			f(t, func() (Stream, io.WriteCloser) {
				a, b := tcpPair(t)
				s, err := NewSocket(a, nil)
				if err != nil {
					t.Fatal(err)
				}
				return s, b
			})
		})
		t.Run("TLS", func(t *testing.T) {
			f(t, func() (Stream, io.WriteCloser) { return tlsPair(t) })
		})
	}
	pairs(t, func(t *testing.T, pair func() (Stream, io.WriteCloser)) {
		processorstest.One(t)
		for range 5 {
			if two := joined(t, pair); !misses(func() { test(t, two[0], two[1]) }) {
				return
			}
		}
		t.Error("the reader does not lead")
	})
}

// joined makes two streams of the circle.
func joined(t *testing.T, pair func() (Stream, io.WriteCloser)) (two [2]*inCircle) {
	for i := range two {
		c := &inCircle{buf: make([]byte, 1<<10), done: make(chan error, 1)}
		c.s, c.peer = pair()
		two[i] = c
		forgetApart()
		joined := make(chan bool, 1)
		c.handle(func(string, *Leader) bool { joined <- true; return true })
		go c.read()
		_, _ = io.WriteString(c.peer, "join")
		<-joined
		eventually(t, "the first term goes on", func() bool { return !theCircle().leading.Load() })
	}
	forgetApart()
	return two
}

// missed is that the runtime had another reader run, as it does after 10 ms without a look at
// the network: who should be led reads for itself. The test is to be run again.
var missed atomic.Bool

func misses(test func()) bool {
	missed.Store(false)
	test()
	return missed.Load()
}

// ended is what the reading has come to.
func (c *inCircle) ended(t *testing.T) error {
	t.Helper()
	select {
	case err := <-c.done:
		return err
	case <-time.After(5 * time.Second):
		t.Fatal("it goes on reading")
		return nil
	}
}

// leads tells whether it is c's term.
func (c *inCircle) leads(l *Leader) bool {
	return l != nil && l.reader.conn.RemoteAddr() == c.s.Info().Remote
}

// forgetApart has the next reader lead.
func forgetApart() {
	apart.Store(false)
	c := theCircle()
	for !c.leading.CompareAndSwap(false, true) {
		runtime.Gosched()
	}
	c.skip, c.miss = 0, 0
	c.apartUntil.Store(0)
	c.leading.Store(false)
}

// TestLedReader: what comes while a reader leads is read by it, until it has an end.
func TestLedReader(t *testing.T) {
	circled(t, func(t *testing.T, leader, led *inCircle) {
		got := make(chan string, 8)
		led.handle(func(piece string, l *Leader) bool {
			if !leader.leads(l) {
				missed.Store(true)
			}
			got <- piece
			return piece != "stop"
		})
		leader.handle(func(piece string, l *Leader) bool {
			if piece == "go" {
				if !leader.leads(l) {
					missed.Store(true)
				}
				_, _ = io.WriteString(led.peer, "stop")
			}
			return piece != "end"
		})
		_, _ = io.WriteString(leader.peer, "go")
		if err := led.ended(t); err != nil {
			t.Fatal(err)
		}
		if piece := <-got; piece != "stop" {
			t.Fatal(piece)
		}
		// Its reader is woken by a deadline, which is not left behind.
		forgetApart()
		led.handle(func(piece string, _ *Leader) bool { got <- piece; return true })
		go led.read()
		_, _ = io.WriteString(led.peer, "more")
		if piece := <-got; piece != "more" {
			t.Fatal(piece)
		}
		_, _ = io.WriteString(leader.peer, "end")
		if err := leader.ended(t); err != nil {
			t.Fatal(err)
		}
		_ = led.peer.Close()
		if err := led.ended(t); err != io.EOF {
			t.Fatal(err)
		}
	})
}

// TestLedReaderEnds: an end that a leader finds is the reader's.
func TestLedReaderEnds(t *testing.T) {
	circled(t, func(t *testing.T, leader, led *inCircle) {
		leader.handle(func(string, *Leader) bool { _ = led.peer.Close(); return true })
		_, _ = io.WriteString(leader.peer, "go")
		if err := led.ended(t); err != io.EOF {
			t.Fatal(err)
		}
	})
}

// TestLeaderLeavesTheRest: a leader reads a few times, and the reader itself goes on.
func TestLeaderLeavesTheRest(t *testing.T) {
	circled(t, func(t *testing.T, leader, led *inCircle) {
		want := bytes.Repeat([]byte("0123456789abcdef"), 1<<10)
		byLeader, got := 0, make([]byte, 0, len(want))
		all := make(chan bool)
		led.handle(func(piece string, l *Leader) bool {
			if got = append(got, piece...); leader.leads(l) {
				byLeader++
			}
			if len(got) == len(want) {
				close(all)
			}
			return true
		})
		leader.handle(func(string, *Leader) bool { _, _ = led.peer.Write(want); return true })
		_, _ = io.WriteString(leader.peer, "go")
		select {
		case err := <-led.done:
			if err != ErrReadOn {
				t.Fatal(err)
			}
		case <-all:
			missed.Store(true)
			return
		}
		_ = led.s.SetReadDeadline(time.Time{})
		go led.read()
		<-all
		if byLeader > ledReads || byLeader == 0 || !bytes.Equal(got, want) {
			t.Errorf("%d reads of the leader, %d bytes", byLeader, len(got))
		}
	})
}

// holder is what is held for as long as may be.
type holder struct{ asked, last atomic.Int32 }

func (h *holder) Release(last bool) (kept, awaits bool) {
	h.asked.Add(1)
	if last {
		h.last.Add(1)
	}
	return !last, false
}

// TestHeldGoesOut: what is held is released at last, whether others go on or nothing comes.
func TestHeldGoesOut(t *testing.T) {
	circled(t, func(t *testing.T, leader, led *inCircle) {
		for _, further := range []int{0, 2 * heldRounds} {
			h, n := &holder{}, 0
			released := make(chan bool, 1)
			led.handle(func(string, *Leader) bool {
				if n++; n < further {
					_, _ = io.WriteString(led.peer, "again")
				}
				return true
			})
			leader.handle(func(_ string, l *Leader) bool {
				if l == nil {
					missed.Store(true)
					released <- true
					return true
				}
				l.Hold(h)
				if further > 0 {
					_, _ = io.WriteString(led.peer, "again")
				}
				released <- true
				return true
			})
			forgetApart()
			_, _ = io.WriteString(leader.peer, "go")
			<-released
			eventually(t, "the term goes on", func() bool { return !theCircle().leading.Load() })
			if asked, last := h.asked.Load(), h.last.Load(); !missed.Load() && last != 1 || asked > heldRounds+1 {
				t.Errorf("with %d messages after it: asked %d times, %d times to go", further, asked, last)
			}
		}
	})
}

// TestTermEnds: readers that always find something let others run, whether something is held
// or not.
func TestTermEnds(t *testing.T) {
	for _, holding := range []bool{false, true} {
		circled(t, func(t *testing.T, leader, led *inCircle) {
			far, near, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer far.Close()
			defer near.Close()
			var ran atomic.Bool
			go func() {
				_, _ = far.Read(make([]byte, 1))
				ran.Store(true)
			}()
			var n atomic.Int32
			pass := func(to *inCircle) func(string, *Leader) bool {
				return func(_ string, l *Leader) bool {
					if n.Add(1) == 1 {
						_, _ = near.Write([]byte{0})
					}
					if holding && l != nil {
						l.Hold(&holder{})
					}
					if ran.Load() || n.Load() > 100_000 {
						return false
					}
					_, _ = io.WriteString(to.peer, "ball")
					return true
				}
			}
			leader.handle(pass(led))
			led.handle(pass(leader))
			_, _ = io.WriteString(leader.peer, "ball")
			select {
			case <-leader.done:
			case <-led.done:
			}
			if !ran.Load() {
				t.Errorf("nobody else has run for %d messages", n.Load())
			}
		})
	}
}

// TestBellEndsItsTerm: the bell ends the term it was set for, also where something is always
// held, and undoes no other end.
func TestBellEndsItsTerm(t *testing.T) {
	c := newCircle()
	defer func() { _, _ = unix.Close(c.ep), unix.Close(c.bell.fd) }()
	l := &c.leader
	l.Hold(&holder{})
	if c.wait(l); !l.belled || !c.bell.set {
		t.Fatal("no bell is set where something is held")
	}
	for _, tc := range []struct{ belled, before, over bool }{{true, false, true}, {false, false, false}, {false, true, true}} {
		l.held, l.belled, l.over = nil, tc.belled, tc.before
		if !c.bell.ring(1) {
			t.Fatal("no bell")
		}
		for _, e := range c.wait(l) {
			c.found(l, e.Fd)
		}
		if l.over != tc.over || c.bell.set {
			t.Errorf("%+v: over %v, still to ring %v", tc, l.over, c.bell.set)
		}
	}
}

// TestBulkOfALeader: what is held does not wait for a leader's own socket to be empty.
func TestBulkOfALeader(t *testing.T) {
	circled(t, func(t *testing.T, leader, _ *inCircle) {
		h, n := &holder{}, 0
		leader.handle(func(_ string, l *Leader) bool {
			if n++; n == 1 && l != nil {
				l.Hold(h)
			}
			if n == ledReads+1 && (l != nil || h.last.Load() != 1) {
				t.Error("something is held beside much that is read")
			}
			return n < 60
		})
		_, _ = leader.peer.Write(make([]byte, 64<<10))
		if err := leader.ended(t); err != nil {
			t.Fatal(err)
		}
	})
}

// TestFaultOfALed: a fault in what one leader reads for another is the other's.
func TestFaultOfALed(t *testing.T) {
	panics.LogTo(slog.New(slog.DiscardHandler))
	circled(t, func(t *testing.T, leader, led *inCircle) {
		led.handle(func(string, *Leader) bool { panic("a fault") })
		got := make(chan string, 1)
		leader.handle(func(piece string, _ *Leader) bool {
			if piece == "go" {
				_, _ = io.WriteString(led.peer, "x")
			} else {
				got <- piece
			}
			return true
		})
		_, _ = io.WriteString(leader.peer, "go")
		if err := led.ended(t); err != ErrFault {
			t.Fatal(err)
		}
		_, _ = io.WriteString(leader.peer, "on")
		if piece := <-got; piece != "on" {
			t.Fatal(piece)
		}
	})
}

// TestLedReaderMayHaveToWrite: a TLS stream whose writer waits for a peer that reads nothing
// is left to its own reader, whom what it reads may have write as well: by crypto/tls.
func TestLedReaderMayHaveToWrite(t *testing.T) {
	byLibrary(t)
	circled(t, func(t *testing.T, leader, led *inCircle) {
		s, ok := led.s.(*TLS)
		if !ok {
			return
		}
		written := make(chan error, 1)
		go func() {
			_, err := s.Write(make([]byte, 16<<20))
			written <- err
		}()
		eventually(t, "nobody waits to write", func() bool {
			if s.raw.w.mu.TryLock() {
				s.raw.w.mu.Unlock()
				return false
			}
			return true
		})
		forgetApart()
		led.handle(func(_ string, l *Leader) bool { missed.Store(l == nil); return false })
		leader.handle(func(string, *Leader) bool { _, _ = io.WriteString(led.peer, "x"); return true })
		_, _ = io.WriteString(leader.peer, "go")
		if err := led.ended(t); err != ErrReadOn && !missed.Load() {
			t.Error(err)
		}
		_ = s.Close()
		<-written
	})
}

// TestApart: while other sockets are read, or there are more processors, nobody leads.
func TestApart(t *testing.T) {
	processorstest.One(t)
	a, b := tcpPair(t)
	s, err := NewSocket(a, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := theCircle()
	forgetApart()
	if !c.chance() {
		t.Fatal("no chance where nothing else is read")
	}
	_, _ = io.WriteString(b, "x")
	if _, err := s.ReadReady(&lender{buf: make([]byte, 8)}); err != nil {
		t.Fatal(err)
	}
	if c.chance() {
		t.Error("a chance right after a socket was read")
	}
	if c.apartUntil.Store(1); !c.chance() {
		t.Error("no chance long after it")
	}
	c.skip = 1
	if c.chance() || !c.chance() {
		t.Error("a chance is to be let go by, and then none")
	}
	if !processors.One() {
		t.Error("one processor is not noted")
	}
}

// TestCloseOfALed: streams that are closed while others lead them end.
func TestCloseOfALed(t *testing.T) {
	circled(t, func(t *testing.T, leader, led *inCircle) {
		leader.handle(func(string, *Leader) bool {
			_, _ = io.WriteString(led.peer, "late")
			return true
		})
		led.handle(func(string, *Leader) bool { return true })
		_, _ = io.WriteString(leader.peer, "go")
		_ = led.s.Close()
		if err := led.ended(t); err == nil || errors.Is(err, ErrReadOn) {
			t.Fatal(err)
		}
		_ = leader.s.Close()
		_ = leader.ended(t)
	})
}

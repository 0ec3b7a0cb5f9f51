package fair

import (
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// socketPair is a connection whose ends the runtime's poller watches.
func socketPair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return a, b
}

// TestWhoWaitsForTheNetworkIsFound: beside goroutines that never wait for anything else,
// who waits for a socket runs when each of them has had a few turns.
func TestWhoWaitsForTheNetworkIsFound(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const busy, messages = 8, 20
	var turns atomic.Int64
	var stop atomic.Bool
	var all sync.WaitGroup
	for range busy {
		all.Go(func() {
			for s := (Share{}); !stop.Load(); turns.Add(1) {
				s.Spend(wholeShare)
				s.Turn()
			}
		})
	}
	near, far := socketPair(t)
	for i := range messages {
		before := turns.Load()
		if _, err := near.Write([]byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
		var p [1]byte
		if _, err := far.Read(p[:]); err != nil || p[0] != byte(i) {
			t.Fatalf("%d, %v", p[0], err)
		}
		near, far = far, near
		// The read finds the byte at once where the kernel delivers it within the write:
		// what counts is who waits.
		go func() { _, _ = near.Write([]byte{0}) }()
		if _, err := far.Read(p[:]); err != nil {
			t.Fatal(err)
		}
		if n := turns.Load() - before; n > 5*busy {
			t.Errorf("message %d: found after %d turns of %d goroutines", i, n, busy)
		}
	}
	stop.Store(true)
	all.Wait()
}

// TestShareIsSmallerForMany: the more take turns, the shorter is each; who is alone again has
// the whole.
func TestShareIsSmallerForMany(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	n := newNetwork()
	for _, c := range []struct{ goroutines, want int }{{1, wholeShare}, {2, wholeShare / 2}, {100, leastShare}, {1, wholeShare}} {
		var all sync.WaitGroup
		for range c.goroutines {
			all.Go(n.await)
		}
		all.Wait()
		if got := int(share.Load()); got != c.want {
			t.Errorf("with %d goroutines a share of %d, want %d", c.goroutines, got, c.want)
		}
	}
	_ = n.file.Close()
}

func TestTurnsCountWhatWasDone(t *testing.T) {
	n := theNetwork()
	looks := func() uint64 {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.looks
	}
	before := looks()
	var s Share
	for range wholeShare/Request - 1 {
		s.Spend(Request)
		s.Turn()
	}
	if got := looks() - before; got != 0 {
		t.Errorf("%d waits within a share", got)
	}
	s.Renew()
	s.Spend(Request)
	s.Turn()
	if got := looks() - before; got != 0 {
		t.Errorf("%d waits in a new share", got)
	}
	s.Spend(wholeShare)
	s.Turn()
	s.Turn()
	if got := looks() - before; got != 1 {
		t.Errorf("%d waits for a whole share", got)
	}
}

// TestWithoutAnEventfd: where the system has none, turns are taken among those that are ready.
func TestWithoutAnEventfd(t *testing.T) {
	none := &network{}
	none.await()
	closed := newNetwork()
	_ = closed.file.Close()
	closed.await()
	if closed.leading || closed.looks != 1 {
		t.Errorf("leading %v after %d looks", closed.leading, closed.looks)
	}
}

func TestTurnsTakeNoMemory(t *testing.T) {
	var s Share
	if n := testing.AllocsPerRun(100, func() {
		s.Spend(wholeShare)
		s.Turn()
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

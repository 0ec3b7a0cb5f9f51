package fair

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/hauberk-mesh/hauberk/sidecar/fair/fairtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestWhoWaitsForTheNetworkIsFound: beside goroutines that never wait for anything else,
// who waits for a message runs when each of them has had a few turns.
func TestWhoWaitsForTheNetworkIsFound(t *testing.T) {
	const busy = 8
	n := fairtest.Waited(t, func(others *fairtest.Bystander) {
		var all sync.WaitGroup
		for range busy {
			all.Go(func() {
				for s := (Share{}); others.Worked(); s.Turn() {
					s.Spend(share)
				}
			})
		}
		all.Wait()
	})
	if n > 3*busy {
		t.Errorf("found after %d turns of %d goroutines", n, busy)
	}
}

// waits tells whether f waits for a look at the network, when a share has just begun.
func waits(t *testing.T, f func()) bool {
	t.Helper()
	return fairtest.Runs(t, func() {
		background.spent.Store(0)
		further = 0
		f()
	})
}

// TestTurnsCountWhatWasDone: only who has used the share up waits.
func TestTurnsCountWhatWasDone(t *testing.T) {
	work := func(s *Share, bytes int) {
		s.Spend(bytes)
		s.Turn()
	}
	if waits(t, func() {
		var s Share
		for range share/Request - 1 {
			work(&s, Request)
		}
		s.Renew()
		work(&s, share-1)
		s.Renew()
		work(&s, 1)
	}) {
		t.Error("it waits within a share")
	}
	if !waits(t, func() {
		var s Share
		for range share / Request {
			work(&s, Request)
		}
	}) {
		t.Error("it does not wait for the next share")
	}
}

// TestBackgroundTakesTurns: so does work that no request waits for, whoever does it.
func TestBackgroundTakesTurns(t *testing.T) {
	work := func(bytes int) func() {
		return func() {
			for done := 0; done < bytes; done += Cluster {
				Background(Cluster)
			}
		}
	}
	if waits(t, work(share-Cluster)) {
		t.Error("it waits within a share")
	}
	if !waits(t, work(share)) || background.spent.Load() != 0 {
		t.Error("it does not wait for the next share")
	}
}

// TestWithoutDescriptors: where the system gives none, turns are taken among those that are
// ready, and again with the network when it does.
func TestWithoutDescriptors(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	poller = newPause()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	if poller.wait() {
		t.Fatal("there was a descriptor")
	}
	var ran atomic.Bool
	go ran.Store(true)
	if await(); poller != nil {
		t.Error("what is of no use is kept")
	}
	for range 3 { // now and then the scheduler prefers who has just stepped back
		await()
	}
	if !ran.Load() {
		t.Error("nobody else ran")
	}
	if poller == nil || !poller.wait() {
		t.Error("there are none now")
	}
}

// TestTurnsInBubbles: tests whose time is their own share the turns with others.
func TestTurnsInBubbles(t *testing.T) {
	var all sync.WaitGroup
	for i := range 8 {
		turns := func() {
			for range 200 {
				await()
			}
		}
		if i%2 == 0 {
			all.Go(turns)
			continue
		}
		all.Go(func() { synctest.Test(t, func(*testing.T) { turns() }) })
	}
	all.Wait()
}

// TestMoreGoOnAfterALongLook: beside who computes, the runtime looks so seldom that one for each
// look would be next to none.
func TestMoreGoOnAfterALongLook(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	further = 0
	var stop atomic.Bool
	over := make(chan struct{})
	go func() {
		defer close(over)
		for !stop.Load() {
		}
	}()
	for range 50 { // the monitor's look may have been about to come
		if await(); further > 0 {
			break
		}
	}
	n := further
	stop.Store(true)
	<-over
	if n == 0 || n > most {
		t.Fatalf("%d more may go on", n)
	}
	for range n {
		await()
	}
	if further != 0 {
		t.Errorf("%d more may go on after %d did", further, n)
	}
}

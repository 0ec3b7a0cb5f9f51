package fairtest

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/hauberk-mesh/hauberk/sidecar/fair"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestWaited tells who takes turns from who does not.
func TestWaited(t *testing.T) {
	const piece = 64 << 10
	n := Waited(t, func(others *Bystander) {
		for s := (fair.Share{}); others.Worked(); s.Turn() {
			s.Spend(piece)
		}
	})
	if n > 35 {
		t.Errorf("waited for %d pieces of who takes turns", n)
	}
	longest := int64(0) // of some: the runtime may look at any time
	for range 3 {
		longest = max(longest, Waited(t, func(others *Bystander) {
			for others.Worked() {
			}
		}))
	}
	if longest < 1000 {
		t.Errorf("waited for only %d pieces of who does not", longest)
	}
}

func TestRuns(t *testing.T) {
	if Runs(t, func() {}) {
		t.Error("it runs beside nothing")
	}
	if !Runs(t, func() {
		s := fair.Share{}
		s.Spend(1 << 30)
		s.Turn()
	}) {
		t.Error("it does not run beside who takes turns")
	}
}

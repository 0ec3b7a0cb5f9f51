package fairtest

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/hauberk-mesh/hauberk/sidecar/fair"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestBystander tells who takes turns from who does not.
func TestBystander(t *testing.T) {
	const piece = 64 << 10
	b := New(t)
	for s := (fair.Share{}); b.Worked(); s.Spend(piece) {
		s.Turn()
	}
	if n := b.Waited(); n > 35 {
		t.Errorf("waited for %d pieces of who takes turns", n)
	}
	b = New(t)
	for b.Worked() {
	}
	if n := b.Waited(); n < 1000 {
		t.Errorf("waited for only %d pieces of who does not", n)
	}
}

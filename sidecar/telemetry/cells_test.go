package telemetry

import (
	"math"
	"testing"
	"time"
)

// TestLongDurations: a million connections that lasted for a month each do not go beyond what a
// sum can hold.
func TestLongDurations(t *testing.T) {
	r := NewRegistry()
	h := r.Histogram("hauberk_test_seconds", "Test.", connectionBounds).With()
	const month = 30 * 24 * time.Hour
	cells := h.b.of(0)
	h.Observe(0, month)
	if got := h.Seconds(); math.Abs(got/month.Seconds()-1) > 1e-9 {
		t.Errorf("%v s", got)
	}
	sum := &cells[h.first+len(h.bounds)+1]
	*sum *= 1_000_000
	if got := h.Seconds(); math.Abs(got/(1e6*month.Seconds())-1) > 1e-9 {
		t.Errorf("%v s", got)
	}
}

package stale

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// board is what is watched and the log of it; both ends may use it at once.
type board struct {
	mu   sync.Mutex
	kept []Kept
	log  bytes.Buffer
}

func (b *board) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.log.Write(p)
}

func (b *board) list() []Kept {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.kept)
}

func (b *board) change(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
}

// pass lets time pass and returns what was logged meanwhile.
func (b *board) pass(d time.Duration) string {
	<-time.After(d)
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.log.Reset()
	return b.log.String()
}

// TestWatch: a warning once, with the age and what it means, and one more line
// when it is over; each thing for itself.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &board{kept: []Kept{{What: "the trust bundles", Means: "ask the control plane"}}}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go Watch(ctx, slog.New(slog.NewTextHandler(b, nil)), 5*time.Minute, b.list)
		silent := func(what string, d time.Duration) {
			t.Helper()
			if got := b.pass(d); got != "" {
				t.Fatalf("%s: %q", what, got)
			}
		}
		silent("there is none of it", time.Hour)
		b.change(func() { b.kept[0].AsOf = time.Now() })
		silent("too early", 5*time.Minute-time.Second)
		got := b.pass(Interval)
		for _, want := range []string{"level=WARN", "the trust bundles: last confirmed 5m", "kept in use", "ask the control plane"} {
			if !strings.Contains(got, want) {
				t.Errorf("%q lacks %q", got, want)
			}
		}
		b.change(func() { b.kept = append(b.kept, Kept{What: "the configuration", AsOf: time.Now()}) })
		if got := b.pass(time.Hour); strings.Count(got, "\n") != 1 || !strings.Contains(got, "the configuration") {
			t.Errorf("the second, and the first not again: %q", got)
		}
		b.change(func() { b.kept[0].AsOf = time.Now() })
		if got := b.pass(Interval); !strings.Contains(got, "level=INFO") || !strings.Contains(got, "the trust bundles: current again") || strings.Count(got, "\n") != 1 {
			t.Errorf("the end: %q", got)
		}
	})
}

func TestWarning(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		asOf time.Time
		want bool
	}{
		{time.Time{}, false},
		{now.Add(time.Hour), false}, // a clock that was set back
		{now.Add(-59 * time.Second), false},
		{now.Add(-time.Minute), true},
	} {
		if got := (Kept{What: "it", AsOf: c.asOf}).Warning(time.Minute, now); (got != "") != c.want {
			t.Errorf("as of %v: %q", c.asOf, got)
		}
	}
	if age, ok := (Kept{AsOf: now.Add(time.Hour)}).Age(now); age != 0 || !ok {
		t.Errorf("%v %v", age, ok)
	}
}

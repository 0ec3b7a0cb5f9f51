package drain

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestDrainReachesChildrenAndWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		trigger, w := New()
		_, child := w.Child()
		release := child.Hold()
		deadline := time.Now().Add(time.Minute)
		trigger.Drain(deadline)
		<-child.Done()
		if !child.Draining() || !child.Deadline().Equal(deadline) {
			t.Errorf("child: draining %v, deadline %v", child.Draining(), child.Deadline())
		}
		done := make(chan error, 1)
		go func() { done <- trigger.Wait(t.Context()) }()
		synctest.Wait()
		select {
		case <-done:
			t.Fatal("Wait returned while work was held")
		default:
		}
		release()
		release()
		if err := <-done; err != nil || trigger.Held() != 0 {
			t.Errorf("Wait: %v, held %d", err, trigger.Held())
		}
	})
}

func TestDeadlineOnlyComesForward(t *testing.T) {
	trigger, w := New()
	soon, late := time.Unix(100, 0), time.Unix(200, 0)
	trigger.Drain(late)
	trigger.Drain(soon)
	trigger.Drain(late)
	if !w.Deadline().Equal(soon) {
		t.Errorf("deadline %v", w.Deadline())
	}
}

func TestChildOfADrainingParentDrains(t *testing.T) {
	trigger, w := New()
	trigger.Drain(time.Time{})
	if _, c := w.Child(); !c.Draining() {
		t.Error("not draining")
	}
}

func TestReleasedChildDoesNotHoldTheParent(t *testing.T) {
	trigger, w := New()
	ct, c := w.Child()
	defer c.Hold()()
	ct.Release()
	if err := trigger.Wait(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestWaitEndsWithContext(t *testing.T) {
	trigger, w := New()
	defer w.Hold()()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := trigger.Wait(ctx); err == nil {
		t.Error("no error")
	}
}

func TestNilWatcherNeverDrains(t *testing.T) {
	var w *Watcher
	w.Hold()()
	if w.Draining() || w.Done() != nil || !w.Deadline().IsZero() {
		t.Error("a nil watcher drains")
	}
}

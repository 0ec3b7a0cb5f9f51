package http2

import "testing"

// gathering drives a gatherer: in each round so many sources have a batch, one after the other.
type gathering struct {
	gatherer
	waited int // in vain
}

// round returns how many batches went out together at last.
func (g *gathering) round(sources int) (together int) {
	waiting := 0
	for i := range sources {
		g.batch(uint32(1 + i))
		waiting++
		if g.enough(waiting, false) {
			together, waiting = waiting, 0
		}
	}
	if waiting > 0 {
		g.waited++
		g.enough(waiting, true)
		together = waiting
	}
	return together
}

// TestGathererLearns: where two connections have something at the same times, what they have
// goes out together, and three are hardly waited for.
func TestGathererLearns(t *testing.T) {
	g := &gathering{}
	learned := 0
	for g.round(2) < 2 {
		if learned++; learned > 100 {
			t.Fatal("never waits for the second")
		}
	}
	for range 10_000 {
		if g.round(2) < 2 {
			t.Fatal("does not wait for the second")
		}
	}
	if g.waited > 40 {
		t.Errorf("waited %d times in vain for a third", g.waited)
	}
	// One time without is excused; then nobody is waited for.
	if g.round(1); g.round(2) < 2 {
		t.Error("one time without the second was not excused")
	}
	before := g.waited
	for range 1000 {
		g.round(1)
	}
	if g.waited > before+3 {
		t.Errorf("waited %d times for who does not come any more", g.waited-before)
	}
}

// TestGathererOfHalf: who comes every other time is not waited for.
func TestGathererOfHalf(t *testing.T) {
	g := &gathering{}
	for range 100 {
		g.round(2)
	}
	for range 5_000 {
		g.round(1)
		g.round(2)
	}
	if g.waited > 60 {
		t.Errorf("waited %d times", g.waited)
	}
}

// TestGathererOfOne: what comes of one connection alone does not wait at all.
func TestGathererOfOne(t *testing.T) {
	g := &gathering{}
	for range 10_000 {
		g.round(1)
	}
	if g.waited > 0 {
		t.Errorf("waited %d times", g.waited)
	}
}

// TestGathererOfTurns: connections that take turns are hardly waited for.
func TestGathererOfTurns(t *testing.T) {
	g := &gathering{}
	for i := range 10_000 {
		g.batch(uint32(1 + i%2))
		if !g.enough(1, false) {
			g.waited++
			g.enough(1, true)
		}
	}
	if g.waited == 0 || g.waited > 40 {
		t.Errorf("waited %d times", g.waited)
	}
}

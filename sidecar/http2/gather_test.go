package http2

import "testing"

// gathering drives a gatherer: in each round so many sources have a batch, one after the other.
type gathering struct {
	gatherer
	vain  int   // waits in vain
	delay int64 // of all but the first, in nanoseconds
}

// round returns how many batches went out together at last.
func (g *gathering) round(sources int) (together int) {
	waiting := 0
	for i := range sources {
		g.batch(uint32(1 + i))
		waiting++
		if g.enough(waiting, g.delay*int64(i), false) {
			together, waiting = waiting, 0
		}
	}
	if waiting > 0 {
		g.vain++
		g.enough(waiting, g.delay, true)
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
	if g.vain > 40 {
		t.Errorf("waited %d times in vain for a third", g.vain)
	}
	// One time without is excused; then nobody is waited for.
	if g.round(1); g.round(2) < 2 {
		t.Error("one time without the second was not excused")
	}
	before := g.vain
	for range 1000 {
		g.round(1)
	}
	if g.vain > before+3 {
		t.Errorf("waited %d times for who does not come any more", g.vain-before)
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
	if g.vain > 60 {
		t.Errorf("waited %d times", g.vain)
	}
}

// TestGathererOfOne: what comes of one connection alone does not wait at all.
func TestGathererOfOne(t *testing.T) {
	g := &gathering{}
	for range 10_000 {
		g.round(1)
	}
	if g.vain > 0 {
		t.Errorf("waited %d times", g.vain)
	}
}

// TestGathererOfTurns: connections that take turns are hardly waited for.
func TestGathererOfTurns(t *testing.T) {
	g := &gathering{}
	for i := range 10_000 {
		g.batch(uint32(1 + i%2))
		if !g.enough(1, 0, false) {
			g.vain++
			g.enough(1, 0, true)
		}
	}
	if g.vain == 0 || g.vain > 40 {
		t.Errorf("waited %d times", g.vain)
	}
}

// TestGathererOfTheLate: who comes when all have waited for long is hardly waited for, however
// surely he comes.
func TestGathererOfTheLate(t *testing.T) {
	g := &gathering{}
	for range 100 {
		g.round(2)
	}
	g.delay = late + 1
	together := 0
	for range 5_000 {
		if g.round(2) == 2 {
			together++
		}
	}
	if together > 60 {
		t.Errorf("waited for %d times", together)
	}
	g.delay = late
	g.round(1) // so that more are tried at a round's begin, not in its middle
	for range 20_000 {
		together = g.round(2)
	}
	if together != 2 {
		t.Error("not waited for any more when he is in time")
	}
}

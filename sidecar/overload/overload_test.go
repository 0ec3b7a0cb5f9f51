package overload

import (
	"context"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestActions(t *testing.T) { synctest.Test(t, testActions) } // a collection takes no time

func testActions(t *testing.T) {
	heap := uint64(0)
	accepts := []bool{}
	m := New(&Config{
		MaxConnections: 2, MaxHeap: 100,
		Actions: []Action{
			{DisableKeepAlive, []Trigger{{Resource: Heap, Threshold: 0.8}, {Resource: Connections, Threshold: 1}}},
			{StopAccepting, []Trigger{{Resource: Heap, Threshold: 0.9}}},
			{RefuseRequests, []Trigger{{Resource: Heap, Threshold: 0.95}}},
			{RejectConnections, []Trigger{{Resource: Heap, Threshold: 1}}},
			{ShrinkHeap, []Trigger{{Resource: Heap, Threshold: 0.5}}},
		},
	}, Options{Heap: func() uint64 { return heap }, Accept: func(yes bool) { accepts = append(accepts, yes) }})
	s, exempt := m.Signals(false), m.Signals(true)
	state := func() [3]bool { return [3]bool{s.DisableKeepAlive(), !m.Accepting(), s.RefusesRequests()} }
	for _, tc := range []struct {
		heap uint64
		want [3]bool
	}{{0, [3]bool{}}, {79, [3]bool{}}, {80, [3]bool{true, false, false}}, {94, [3]bool{true, true, false}}, {100, [3]bool{true, true, true}}} {
		heap = tc.heap
		m.look()
		if state() != tc.want || exempt.DisableKeepAlive() || exempt.RefuseRequest() {
			t.Errorf("at %d: %v", tc.heap, state())
		}
	}
	if got := m.Admit("l", 0, Exempt{}); got != "overload" {
		t.Errorf("refused because of %q", got)
	}
	if got := m.Admit("l", 0, Exempt{Actions: true}); got != "" {
		t.Errorf("an exempt listener is refused because of %q", got)
	}
	heap = 0
	if got := m.Admit("l", 0, Exempt{Actions: true}); got != "" {
		t.Error(got)
	}
	m.look()
	if state() != [3]bool{true, false, false} {
		t.Errorf("with all connections taken: %v", state())
	}
	if got := m.Admit("l", 0, Exempt{}); got != "global_connection_limit" {
		t.Errorf("refused because of %q", got)
	}
	if got := m.Admit("l", 0, Exempt{Limit: true}); got != "" {
		t.Errorf("a listener without the limit is refused because of %q", got)
	}
	m.Leave(Exempt{Limit: true})
	m.Leave(Exempt{})
	if got := m.Admit("l", 0, Exempt{}); got != "" {
		t.Error(got)
	}
	if len(accepts) != 2 || accepts[0] || !accepts[1] {
		t.Errorf("accepting went %v", accepts)
	}
	var none *Manager
	if none.Admit("l", 9, Exempt{}) != "" || !none.Accepting() || none.Signals(false).RefuseRequest() {
		t.Error("nothing limits")
	}
	none.Leave(Exempt{})
}

// TestGarbageIsNoPressure: an action is neither begun nor held because of what a
// collection frees, and collections take no more than a share of the time.
func TestGarbageIsNoPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		live, garbage, collections := uint64(10), uint64(0), 0
		m := New(&Config{MaxHeap: 100, Actions: []Action{{StopAccepting, []Trigger{{Resource: Heap, Threshold: 0.9}}}}}, Options{
			Heap: func() uint64 { return live + garbage },
			Collect: func() {
				collections++
				garbage = 0
				time.Sleep(100 * time.Millisecond)
			},
		})
		for i, step := range []struct {
			live, garbage uint64
			pause         time.Duration
			accepting     bool
			collections   int
		}{
			{10, 0, 0, true, 0},
			{10, 85, time.Hour, true, 1},
			{90, 5, time.Hour, false, 2},
			{20, 75, 999 * time.Millisecond, false, 2}, // too soon to ask
			{20, 75, time.Millisecond, true, 3},
		} {
			time.Sleep(step.pause)
			live, garbage = step.live, step.garbage
			m.look()
			if m.Accepting() != step.accepting || collections != step.collections {
				t.Errorf("step %d: accepting is %v after %d collections", i, m.Accepting(), collections)
			}
		}
	})
}

// TestScaled: a scaled trigger has a share of the requests, connections and ends of them
// that grows with the pressure; what cannot be done in part waits until it is saturated.
func TestScaled(t *testing.T) { synctest.Test(t, testScaled) } // a collection takes no time

func testScaled(t *testing.T) {
	scaled := []Trigger{{Resource: Heap, Scaled: true, Scaling: 0.2, Threshold: 0.8}}
	heap, asked := uint64(0), []int(nil)
	m := New(&Config{MaxHeap: 100, LeastHoard: 1, Actions: []Action{
		{DisableKeepAlive, scaled}, {StopAccepting, scaled}, {RefuseRequests, scaled}, {RejectConnections, scaled}, {ResetStreams, scaled},
	}}, Options{Heap: func() uint64 { return heap }, Collect: func() {}, Hoards: func(least int) []Hoard {
		asked = append(asked, least)
		return nil
	}})
	const draws = 20_000
	s := m.Signals(false)
	for _, tc := range []struct {
		heap      uint64
		share     float64
		accepting bool
	}{{20, 0, true}, {40, 1. / 3, true}, {60, 2. / 3, true}, {80, 1, false}, {20, 0, true}} {
		heap = tc.heap
		m.look()
		if m.Accepting() != tc.accepting || s.RefusesRequests() != (tc.share > 0) {
			t.Errorf("at %d: accepting is %v, requests are refused: %v", tc.heap, m.Accepting(), s.RefusesRequests())
		}
		for what, draw := range map[string]func() bool{
			"requests":    s.RefuseRequest,
			"keep-alive":  s.DisableKeepAlive,
			"connections": func() bool { return m.Admit("l", 0, Exempt{}) != "" },
		} {
			n := 0
			for range draws {
				if draw() {
					n++
				}
			}
			// Seven standard deviations are below 0.025.
			if got := float64(n) / draws; math.Abs(got-tc.share) > 0.025 || tc.share == math.Trunc(tc.share) && got != tc.share {
				t.Errorf("at %d: %s: %v of them, want %v", tc.heap, what, got, tc.share)
			}
		}
	}
	// At a third three of the eight buckets, at two thirds six, and then all.
	if !slices.Equal(asked, []int{32, 4, 1}) {
		t.Errorf("streams were asked for that hold %v", asked)
	}
}

// TestHoards: the greatest streams are reset, and at most 50 at a look, for as long as memory
// is short; what they held is collected before more are.
func TestHoards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held, collections := []int{}, 0
		for i := range 60 {
			held = append(held, 100+i)
		}
		held = append(held, 7, 5000)
		sum := func() (n int) {
			for _, h := range held {
				n += h
			}
			return n
		}
		m := New(&Config{MaxHeap: 100, LeastHoard: 8, Actions: []Action{{ResetStreams, []Trigger{{Resource: Heap, Threshold: 1}}}}}, Options{
			Heap:    func() uint64 { return uint64(sum()) },
			Collect: func() { collections++ },
			Hoards: func(least int) (all []Hoard) {
				for i, h := range held {
					if h >= least {
						all = append(all, Hoard{h, func() bool { held[i] = 0; return true }})
					}
				}
				return all
			},
		})
		for i, want := range []struct{ sum, collections, resets int }{
			{7 + 11*100 + 10*11/2, 1, 50}, // 49 of the 60, and the one of 5000
			{7, 3, 61},
			{7, 3, 61},
		} {
			m.look()
			if n := int(m.signals.counts[ResetStreams].Load()); sum() != want.sum || collections != want.collections || n != want.resets {
				t.Errorf("look %d: %d bytes after %d collections and %d resets, want %v", i, sum(), collections, n, want)
			}
			time.Sleep(time.Second)
		}
	})
}

// TestMonitorsAlone: what is looked at is told of where nothing is done because of it, and where nothing is
// looked at nobody is kept waiting.
func TestMonitorsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(&Config{MaxHeap: 100}, Options{Heap: func() uint64 { return 40 }})
		ctx, cancel := context.WithCancel(t.Context())
		over := make(chan struct{})
		go func() { m.Run(ctx); close(over) }()
		time.Sleep(1500 * time.Millisecond)
		told := 0.0
		m.Pressures(func(value float64, _ ...string) { told = value })
		if told != 0.4 {
			t.Errorf("the pressure is told to be %v", told)
		}
		cancel()
		<-over
		New(&Config{}, Options{}).Run(t.Context())
	})
}

package overload

import "testing"

func TestActions(t *testing.T) {
	heap := uint64(0)
	accepts := []bool{}
	m := New(&Config{
		MaxConnections: 2, MaxHeap: 100,
		Actions: []Action{
			{DisableKeepAlive, []Trigger{{Heap, 0.8}, {Connections, 1}}},
			{StopAccepting, []Trigger{{Heap, 0.9}}},
			{RefuseRequests, []Trigger{{Heap, 0.95}}},
			{RejectConnections, []Trigger{{Heap, 1}}},
			{ShrinkHeap, []Trigger{{Heap, 0.5}}},
		},
	}, Options{Heap: func() uint64 { return heap }, Accept: func(yes bool) { accepts = append(accepts, yes) }})
	s, exempt := m.Signals(false), m.Signals(true)
	state := func() [3]bool { return [3]bool{s.DisableKeepAlive(), !m.Accepting(), s.RefuseRequests()} }
	for _, tc := range []struct {
		heap uint64
		want [3]bool
	}{{0, [3]bool{}}, {79, [3]bool{}}, {80, [3]bool{true, false, false}}, {94, [3]bool{true, true, false}}, {100, [3]bool{true, true, true}}} {
		heap = tc.heap
		m.look()
		if state() != tc.want || exempt.DisableKeepAlive() || exempt.RefuseRequests() {
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
	if none.Admit("l", 9, Exempt{}) != "" || !none.Accepting() || none.Signals(false).RefuseRequests() {
		t.Error("nothing limits")
	}
	none.Leave(Exempt{})
}

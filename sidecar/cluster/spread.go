package cluster

import "slices"

// census counts the hosts of a priority level. Excluded ones have no say in how
// far the level is available: they drain, were not checked yet, or asked out by their
// answers.
type census struct {
	hosts, excluded, healthy, degraded int
	// weight is the same in weights, where the level is measured by them.
	weight         struct{ hosts, excluded, healthy, degraded uint64 }
	weighted       bool
	overprovisions int // percent
}

func (n *census) add(h *Host, state hostState, excluded bool) {
	w := uint64(h.Weight())
	n.hosts++
	n.weight.hosts += w
	if excluded {
		n.excluded++
		n.weight.excluded += w
	}
	switch state {
	case hostUp:
		n.healthy++
		n.weight.healthy += w
	case hostDegraded:
		n.degraded++
		n.weight.degraded += w
	}
}

// available is what the level can bear, in percent, with its healthy and with its
// degraded hosts.
func (n *census) available() (healthy, degraded int) {
	total := uint64(n.hosts - n.excluded)
	up, half := uint64(n.healthy), uint64(n.degraded)
	if total == 0 {
		return 0, 0
	}
	if n.weighted {
		total, up, half = n.weight.hosts-n.weight.excluded, n.weight.healthy, n.weight.degraded
	}
	factor := uint64(n.overprovisions)
	return int(min(100, factor*up/total)), int(min(100, factor*half/total))
}

// panics tells whether fewer than threshold percent of the hosts are of use.
func (n *census) panics(threshold float64) bool {
	share := 0.0
	if total := n.hosts - n.excluded; total > 0 {
		share = 100 * float64(n.healthy+n.degraded) / float64(total)
	}
	return share < threshold
}

// loads are the shares of the requests that go to each level's healthy hosts and
// then to each level's degraded ones: how far each share reaches, of 100. No
// slices mean that the healthy hosts of the first level get all.
type loads struct{ healthy, degraded []int }

// at finds the level whose share the number r, below 100, falls in.
func (l *loads) at(r int) (level int, degraded bool) {
	for i, reach := range l.healthy {
		if r < reach {
			return i, false
		}
	}
	for i, reach := range l.degraded {
		if r < reach {
			return i, true
		}
	}
	return 0, false
}

// spread distributes the requests between levels as Envoy does: in order, each
// takes what its healthy hosts can bear, then in order what its degraded ones can,
// normalised where the sum is less than all. Levels panic only then. Where all
// panic, health has no say, and each level gets its share of the hosts.
func spread(levels []census, threshold float64) (l loads, panics []bool) {
	n := len(levels)
	healthy, degraded := make([]int, n), make([]int, n)
	sum := 0
	for i := range levels {
		healthy[i], degraded[i] = levels[i].available()
		sum += healthy[i] + degraded[i]
	}
	sum = min(sum, 100)
	panics = make([]bool, n)
	total := threshold > 0 && sum < 100
	for i := range levels {
		panics[i] = sum < 100 && levels[i].panics(threshold)
		total = total && panics[i]
	}
	switch {
	case total:
		return inProportion(levels), panics
	case sum == 0:
		return loads{}, panics // nobody is there to take it
	}
	deal(healthy, degraded, sum)
	return reaching(healthy, degraded), panics
}

// deal makes shares of 100 of what levels can bear, of which sum is the sum, 100 at most, and not 0.
func deal(healthy, degraded []int, sum int) {
	left := 100
	give := func(parts []int) {
		for i := range parts {
			parts[i] = min(left, parts[i]*100/sum)
			left -= parts[i]
		}
	}
	first := func(parts []int) int {
		return slices.IndexFunc(parts, func(p int) bool { return p > 0 })
	}
	firstHealthy, firstDegraded := first(healthy), first(degraded)
	give(healthy)
	give(degraded)
	// What is left comes from rounding.
	if firstHealthy >= 0 {
		healthy[firstHealthy] += left
	} else {
		degraded[firstDegraded] += left
	}
}

func inProportion(levels []census) loads {
	hosts := 0
	for i := range levels {
		hosts += levels[i].hosts
	}
	if hosts == 0 {
		return loads{}
	}
	parts, left, first := make([]int, len(levels)), 100, -1
	for i := range levels {
		if first < 0 && levels[i].hosts > 0 {
			first = i
		}
		parts[i] = 100 * levels[i].hosts / hosts
		left -= parts[i]
	}
	parts[first] += left
	return reaching(parts, make([]int, len(parts)))
}

// reaching sums shares up.
func reaching(healthy, degraded []int) loads {
	if len(healthy) > 0 && healthy[0] == 100 {
		return loads{}
	}
	sum := 0
	for _, parts := range [][]int{healthy, degraded} {
		for i := range parts {
			sum += parts[i]
			parts[i] = sum
		}
	}
	return loads{healthy, degraded}
}

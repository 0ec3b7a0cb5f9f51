package cluster

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// StatName is what statistics, logs and spans call the cluster from its beginning on, "" for its name.
func (c *Cluster) StatName() string { return c.stat }

// statName is what statistics call the cluster.
func (c *Cluster) statName() string { return cmp.Or(c.stat, c.name) }

// StatName is what statistics call a cluster where that is not its name, "" otherwise.
func (m *Manager) StatName(name string) string {
	if c := m.Get(name); c != nil {
		return c.stat
	}
	return ""
}

type emit = func(value float64, labels ...string)

// gather emits what each of the clusters does. Those that share a name for statistics share a
// series, which is the sum.
func (m *Manager) gather(each func(*Cluster, emit)) func(func(value float64, labels ...string)) {
	return func(out func(value float64, labels ...string)) {
		all := m.All()
		if !slices.ContainsFunc(all, func(c *Cluster) bool { return c.stat != "" }) {
			for _, c := range all {
				each(c, out)
			}
			return
		}
		sums := map[string]float64{}
		for _, c := range all {
			each(c, func(value float64, labels ...string) { sums[strings.Join(labels, "\x00")] += value })
		}
		for _, key := range slices.Sorted(maps.Keys(sums)) {
			out(sums[key], strings.Split(key, "\x00")...)
		}
	}
}

package route

import "testing"

// counting is a filter's override that counts.
type counting struct{ n *int }

func (c *counting) Inherit(before any) { c.n = before.(*counting).n }

// TestShareOfATable: what was made of an override is one for all that use its table, of each kind, and in the
// table that takes its place what is made of the one at its place goes on with it.
func TestShareOfATable(t *testing.T) {
	table := func(names ...string) *Table {
		c := &Config{Name: "r"}
		for _, n := range names {
			c.Filters = append(c.Filters, FilterOverride{Name: n})
		}
		compiled, err := Compile(c)
		if err != nil {
			t.Fatal(err)
		}
		return compiled
	}
	before, now := table("a"), table("b", "a")
	first := &counting{new(int)}
	a := &before.Config().Filters[0]
	if before.Share(a, first) != first || before.Share(a, &counting{new(int)}) != first || before.Share(a, "another kind") != "another kind" {
		t.Error("it is not the first that was made")
	}
	other, heir := &counting{new(int)}, &counting{new(int)}
	now.Share(&now.Config().Filters[0], other)
	now.Share(&now.Config().Filters[1], heir)
	now.Inherit(before)
	if heir.n != first.n || other.n == first.n {
		t.Error("what was counted is another's")
	}
	table("a").Inherit(before) // nothing was made of it
}

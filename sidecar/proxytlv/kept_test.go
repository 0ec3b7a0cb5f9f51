package proxytlv

import "testing"

// counted counts what it makes.
type counted struct {
	times int
	more  List
}

func (c *counted) Of(own, said List) List {
	c.times++
	return own + said + c.more
}

// TestMade: a maker is asked once for a client, while not too many others are.
func TestMade(t *testing.T) {
	var none List
	c := &Client{Said: none.With(1, "a")}
	makers := [mostMade]counted{}
	for range 2 {
		for i := range makers {
			makers[i].more = none.With(byte(i), "m")
			if got := c.Made(&makers[i], Kept{}); got != Keep(c.Said+makers[i].more) || got.List() != c.Said+makers[i].more {
				t.Errorf("%d: %q", i, got.List())
			}
		}
	}
	for i := range makers {
		if makers[i].times != 1 {
			t.Errorf("%d was asked %d times", i, makers[i].times)
		}
	}
	var other counted
	c.Made(&other, Kept{})
	c.Made(&makers[0], Kept{})
	c.Made(&makers[mostMade-1], Kept{})
	if n := len(*c.made.Load()); n != mostMade || makers[0].times != 2 || makers[mostMade-1].times != 1 {
		t.Errorf("%d are remembered, the first was asked %d times, the last %d", n, makers[0].times, makers[mostMade-1].times)
	}
	own := none.With(9, "host")
	if got := c.Made(&makers[0], Keep(own)); got.List() != own+c.Said+makers[0].more || c.Made(&makers[0], Kept{}) == got {
		t.Errorf("of a host with its own: %q", got.List())
	}
	if (Kept{}) != Keep("") || Keep("").List() != "" || (*Client)(nil).List() != "" {
		t.Error("nothing is something")
	}
}

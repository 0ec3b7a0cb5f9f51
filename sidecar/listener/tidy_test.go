package listener

import (
	"slices"
	"testing"
)

// Memory is given back once when no more connections become idle, and once when those who
// served them have gone.
func TestIdleConnectionsGiveMemoryBack(t *testing.T) {
	var c idleCount
	for i, tc := range []struct {
		idle []int // at each look; the last stays
		want []int // at which looks it is given back
	}{
		{[]int{0, 100, 400, 500}, []int{4, 4 + tidyAgain - 1}},
		{[]int{500, 700, 700}, nil}, // not enough more
		{[]int{2000, 2000, 3000, 3000}, []int{1, 3, 3 + tidyAgain - 1}},
		{[]int{2, 2, 300, 300}, []int{3, 3 + tidyAgain - 1}}, // they have gone, and others came
	} {
		var got []int
		for at := range 20 {
			if c.look(tc.idle[min(at, len(tc.idle)-1)]) {
				got = append(got, at)
			}
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%d: given back at %v, want %v", i, got, tc.want)
		}
	}
}

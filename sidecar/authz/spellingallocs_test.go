//go:build !race

package authz

import (
	"strings"
	"testing"
)

// TestSpellingAllocations: a path is written anew once, however many expressions there are, and
// only if it has what could be written otherwise. (Under the race detector expressions lose the
// memory that they keep for the next match.)
func TestSpellingAllocations(t *testing.T) {
	for _, c := range []struct {
		path        string
		expressions bool
		want        float64
	}{
		{"/plain/path?x=%2F", true, 0},
		{"/a%20b/%25?x=%2F", true, 0},
		{"/" + strings.Repeat("%2F", 100), false, 0},
		{"/" + strings.Repeat("%2F", 100), true, 2}, // bytes, and the text of them
	} {
		e, p := manySpelled(t, c.expressions), peerOf(web)
		var r Request = request{":path": c.path}
		if n := testing.AllocsPerRun(50, func() { e.CheckRequest(p, r) }); n > c.want {
			t.Errorf("%.20s: %v allocations, want %v", c.path, n, c.want)
		}
	}
}

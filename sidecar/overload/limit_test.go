package overload

import (
	"math"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"
)

func TestControlGroupLimit(t *testing.T) {
	for name, tc := range map[string]struct {
		files map[string]string
		want  uint64
	}{
		"no control groups":            {nil, 0},
		"version 2, a container":       {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1048576\n"}, 1 << 20},
		"version 2, none":              {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, 0},
		"version 2, of a slice":        {map[string]string{"proc/self/cgroup": "0::/a.slice/b.service\n", "sys/fs/cgroup/a.slice/memory.max": "4096\n", "sys/fs/cgroup/a.slice/b.service/memory.max": "8192\n"}, 4096},
		"version 1":                    {map[string]string{"proc/self/cgroup": "5:cpu:/x\n4:memory:/docker/1\n", "sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes": "8192", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"}, 8192},
		"version 1, seen from within":  {map[string]string{"proc/self/cgroup": "4:memory:/docker/1\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "8192"}, 8192},
		"version 1, none":              {map[string]string{"proc/self/cgroup": "4:memory:/\n0::/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"}, 0},
		"a name that leads elsewhere":  {map[string]string{"proc/self/cgroup": "0::/../../etc\n", "sys/fs/cgroup/etc/memory.max": "8192", "etc/memory.max": "1"}, 8192},
		"what is no list of any group": {map[string]string{"proc/self/cgroup": "nothing\n\n::\n"}, 0},
	} {
		host := fstest.MapFS{}
		for file, text := range tc.files {
			host[file] = &fstest.MapFile{Data: []byte(text)}
		}
		if got := ControlGroupLimit(host); got != tc.want {
			t.Errorf("%s: %d, want %d", name, got, tc.want)
		}
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]uint64{"1": 1, "64KiB": 64 << 10, "256MiB": 256 << 20, "2GiB": 2 << 30} {
		if got, err := ParseSize(text); got != want || err != nil {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "0", "-1", "MiB", "0MiB", "1.5GiB", "256MB", "1 GiB", "9223372036854775808", "9007199254740992GiB", "1KiBMiB"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("%q is %d", text, got)
		}
	}
}

// TestWithin: the nearer a process comes to its limit, the more is done, and all of it before
// its heap is what the process may have.
func TestWithin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		heap, asked := uint64(0), 0
		m := New(Within(1000), Options{Heap: func() uint64 { return heap }, Collect: func() {}, Hoards: func(int) []Hoard { asked++; return nil }})
		s := m.Signals(false)
		for _, tc := range []struct {
			heap       uint64
			asks       int
			refused    float64
			accepting  bool
			refusesAny bool
		}{{500, 0, 0, true, false}, {600, 1, 0, true, false}, {760, 1, 0.5, true, true}, {800, 1, 1, false, true}, {100, 0, 0, true, false}} {
			heap, asked = tc.heap, 0
			time.Sleep(time.Hour)
			m.look()
			refused := float64(s.shares[RefuseRequests].Load()) / saturated
			if asked != tc.asks || math.Abs(refused-tc.refused) > 1e-6 || m.Accepting() != tc.accepting || s.RefusesRequests() != tc.refusesAny {
				t.Errorf("at %d: asked for streams %d times, %v of the requests are refused, accepting is %v", tc.heap, asked, refused, m.Accepting())
			}
		}
	})
}

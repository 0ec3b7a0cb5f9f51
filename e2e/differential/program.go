//go:build e2e

package differential

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hauberk-mesh/hauberk/internal/ports"
)

// program is one of the two, running a group's bootstrap.
type program struct {
	place
	name   string
	cmd    *exec.Cmd
	log    lockedBuffer
	done   chan struct{}
	waited bool           // the last case had an answer that did not come
	read   map[string]int // bytes of the access logs that were read
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// starts is how often a program is started whose ports somebody else gets first.
const starts = 3

// start runs the program until it listens everywhere. port finds the listeners' ports.
func (g *Group) start(name, dir string, certs *certs, command func(bootstrap string) []string, port func() (int, error)) (*program, error) {
	for n := 1; ; n++ {
		p, err := g.startOnce(name, dir, certs, command, port)
		if err == nil {
			return p, nil
		}
		// "Address already in use", "is in use by process 7".
		if n == starts || !strings.Contains(err.Error(), " in use") {
			return nil, err
		}
	}
}

// freePort is nobody's at this moment; another process may still bind it first.
func freePort() (int, error) { return ports.Free("127.0.0.1") }

func (g *Group) startOnce(name, dir string, certs *certs, command func(bootstrap string) []string, port func() (int, error)) (*program, error) {
	p := &program{name: name, place: place{dir: filepath.Join(dir, name), ports: map[string]int{}}, done: make(chan struct{}), read: map[string]int{}}
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return nil, err
	}
	var err error
	for _, c := range g.Configs {
		if p.ports[c.Name], err = port(); err != nil {
			return nil, err
		}
	}
	if p.origins, err = startOrigins(certs, p.logFile); err != nil {
		return nil, err
	}
	if err := p.origins.startHosts(g.Hosts); err != nil {
		p.origins.close()
		return nil, err
	}
	text, err := g.bootstrap(&p.place, certs)
	if err != nil {
		p.origins.close()
		return nil, err
	}
	file := filepath.Join(p.dir, "bootstrap.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		p.origins.close()
		return nil, err
	}
	args := command(file)
	p.cmd = exec.Command(args[0], args[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		p.origins.close()
		return nil, err
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	for _, c := range g.Configs {
		if err := p.await(c.Name); err != nil {
			p.stop()
			return nil, err
		}
	}
	return p, nil
}

// await returns when the program itself listens: a connection would not tell, since
// whoever else has the port takes it too.
func (p *program) await(config string) error {
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if listens(p.cmd.Process.Pid, p.ports[config]) {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended: %s", p.name, strings.TrimSpace(p.log.String()))
		default:
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s does not listen for %s: %s", p.name, config, p.log.String())
		}
	}
}

// listens tells whether the process has a listening socket on a port of 127.0.0.1.
func listens(pid, port int) bool {
	table, _ := os.ReadFile("/proc/net/tcp")
	for line := range strings.Lines(string(table)) {
		// Local address in hexadecimal, state in the fourth column, inode in the tenth.
		f := strings.Fields(line)
		if len(f) < 10 || f[1] != fmt.Sprintf("0100007F:%04X", port) || f[3] != "0A" {
			continue
		}
		links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, link := range links {
			if to, err := os.Readlink(link); err == nil && to == "socket:["+f[9]+"]" {
				return true
			}
		}
	}
	return false
}

func (p *program) stop() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
	p.origins.close()
}

// records are the access log's new records of a config, at least n of them unless
// they do not come.
func (p *program) records(config string, n int) ([]map[string]any, error) {
	var out []map[string]any
	for end := time.Now().Add(3 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		b, err := os.ReadFile(p.logFile(config))
		if err != nil && !os.IsNotExist(err) {
			return nil, err
		}
		fresh := b[min(len(b), p.read[config]):]
		fresh = fresh[:bytes.LastIndexByte(fresh, '\n')+1]
		out = nil
		var passed []string
		for line := range bytes.Lines(fresh) {
			var m map[string]any
			if err := json.Unmarshal(line, &m); err != nil {
				return nil, fmt.Errorf("%s: %q: %w", p.name, line, err)
			}
			if filter, ok := m["passed"].(string); ok {
				passed = append(passed, filter)
				continue
			}
			if passed != nil {
				m["passed"], passed = strings.Join(passed, " "), nil
			}
			out = append(out, m)
		}
		if len(out) >= n || time.Now().After(end) {
			p.read[config] += len(fresh)
			return out, nil
		}
	}
}

// run sends one case and observes.
func (p *program) run(c *Config, x *Case, certs *certs) (observation, error) {
	p.skip(c.Name)
	if x.Repeat > 0 {
		return p.shares(c, x, certs)
	}
	if p.waited {
		// A try of the last case may still be on its way.
		time.Sleep(50 * time.Millisecond)
	}
	p.waited = slices.ContainsFunc(x.Respond, func(a Answer) bool { return a.End == "hang" || a.Delay > 0 })
	p.origins.reset(x.Respond, c.Fresh)
	p.origins.secures(x.Secure)
	p.origins.discusses(x.Dialogue)
	var wg sync.WaitGroup
	if x.Meanwhile != "" {
		other := &Case{Send: x.Meanwhile, TLS: x.TLS}
		wg.Go(func() { _, _ = other.converse(p.addr(c.Name), certs, false) })
		time.Sleep(150 * time.Millisecond)
	}
	var out *outcome
	var err error
	if x.Acts != nil {
		out, err = x.converseActs(p, p.addr(c.Name), certs)
	} else if x.Frames != nil {
		out, err = x.converseFrames(p.addr(c.Name))
	} else if c.HTTP2 {
		out, err = x.converseHTTP2(p.addr(c.Name))
	} else {
		out, err = x.converse(p.addr(c.Name), certs, c.plainTCP())
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.name, err)
	}
	wg.Wait()
	want := max(1+len(x.More), final(out.responses))
	if c.plainTCP() {
		want = 1
	}
	if x.Frames != nil {
		want = len(out.streams)
	}
	if x.Logs != nil {
		want = *x.Logs
	}
	if x.Meanwhile != "" {
		want++
	}
	if out.end == "no handshake" && !c.ListenerLog {
		want = 0
	}
	if c.UpstreamLog != nil && x.Logs == nil {
		time.Sleep(30 * time.Millisecond) // how many attempts there are is not known
	}
	log, err := p.records(c.Name, want)
	if err != nil {
		return nil, err
	}
	return observe(out, p.origins.requests(), log, &p.place), nil
}

// final counts responses that are not interim.
func final(responses []*Message) (n int) {
	for _, m := range responses {
		if _, status, _ := strings.Cut(m.Start, " "); !strings.HasPrefix(status, "1") {
			n++
		}
	}
	return n
}

// skip forgets what the access log says so far.
func (p *program) skip(config string) {
	if f, err := os.Stat(p.logFile(config)); err == nil {
		p.read[config] = int(f.Size())
	}
}

// shares sends the case many times and counts who answered.
func (p *program) shares(c *Config, x *Case, certs *certs) (observation, error) {
	p.origins.reset(nil, false)
	o := observation{}
	for range x.Repeat {
		out, err := x.converse(p.addr(c.Name), certs, false)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		for _, m := range out.responses {
			o["response.start"] = m.Start
		}
	}
	counts := map[string]int{}
	for _, s := range p.origins.requests() {
		counts[s.Origin]++
	}
	for name, n := range counts {
		o["share."+name] = fmt.Sprint(float64(n) / float64(x.Repeat))
	}
	_, err := p.records(c.Name, x.Repeat)
	return o, err
}

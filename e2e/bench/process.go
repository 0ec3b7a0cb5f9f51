package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hauberk-mesh/hauberk/internal/ports"
)

// process is one proxy under test.
type process struct {
	cmd   *exec.Cmd
	log   bytes.Buffer
	done  chan struct{}
	guard *guard
	admin string // socket that tells of allocations, empty without one
	pids  []int  // of the family; known after the first look
}

// launch starts a program on its CPU and waits until it accepts connections: Envoy reads
// 10,000 clusters for 15 s, on a busy machine for more than a minute.
func launch(on *pins, g *guard, addr, program string, env []string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(program, args...), done: make(chan struct{}), guard: g}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := on.start(p.cmd.Start); err != nil {
		return nil, err
	}
	g.started(p.cmd.Process.Pid)
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	for end := time.Now().Add(3 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("tcp", addr); err == nil {
			return p, c.Close()
		}
		select {
		case <-p.done:
			p.stop()
			return nil, fmt.Errorf("%s ended: %s", program, p.log.String())
		default:
		}
		if time.Now().After(end) {
			p.stop()
			return nil, fmt.Errorf("%s does not listen on %s: %s", program, addr, p.log.String())
		}
	}
}

// stop ends the program, and what it has started.
func (p *process) stop() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
	p.guard.ended(p.cmd.Process.Pid)
}

// family is a process and its children: nginx's workers do its work.
func (p *process) family() []int {
	if p.pids != nil {
		return p.pids
	}
	out := []int{p.cmd.Process.Pid}
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		// The name in parentheses may hold anything.
		fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		if err == nil && len(fields) > 1 && fields[1] == strconv.Itoa(p.cmd.Process.Pid) {
			out = append(out, pid)
		}
	}
	p.pids = out
	return out
}

// cpu is the time that all threads of the process have run, in nanoseconds.
func (p *process) cpu() (ns int64) {
	for _, pid := range p.family() {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		for _, f := range files {
			if b, err := os.ReadFile(f); err == nil {
				if s, _, ok := strings.Cut(string(b), " "); ok {
					n, _ := strconv.ParseInt(s, 10, 64)
					ns += n
				}
			}
		}
	}
	return ns
}

// memory is what processes hold, in bytes: their share of all that is resident,
// all of it, and the part that is their own and not files.
type memory struct{ pss, resident, anonymous int64 }

func (p *process) memory() (m memory) {
	for _, pid := range p.family() {
		f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			continue
		}
		for s := bufio.NewScanner(f); s.Scan(); {
			fields := strings.Fields(s.Text())
			if len(fields) < 2 {
				continue
			}
			kb, _ := strconv.ParseInt(fields[1], 10, 64)
			switch fields[0] {
			case "Pss:":
				m.pss += kb << 10
			case "Rss:":
				m.resident += kb << 10
			case "Anonymous:":
				m.anonymous += kb << 10
			}
		}
		f.Close()
	}
	return m
}

func freeAddr() (string, error) {
	p, err := ports.Free("127.0.0.1")
	if err != nil {
		return "", err
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(p)), nil
}

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

// guard is a process of our own that ends what this one started, and removes its
// files, however this one ends: a signal that a parent sends to its children on its
// death, which each program is started with, does not reach nginx's workers.
//
// A nil guard guards nothing. It may be used concurrently: a line is one write.
type guard struct {
	cmd *exec.Cmd
	in  io.WriteCloser
}

// startGuard starts one for the directory. It is in a process group of its own, so
// that what is typed at a terminal to interrupt this program does not end it first.
func startGuard(dir string) (*guard, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	g := &guard{cmd: exec.Command(self, "-guard", dir)}
	g.cmd.Stderr = os.Stderr
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if g.in, err = g.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	return g, g.cmd.Start()
}

// started and ended tell of the process group of a program. A guard that is gone is
// found out in the end.
func (g *guard) started(pgid int) { g.tell(pgid) }
func (g *guard) ended(pgid int)   { g.tell(-pgid) }

func (g *guard) tell(pgid int) {
	if g != nil {
		_, _ = fmt.Fprintf(g.in, "%d\n", pgid)
	}
}

// close has the guard do its work, and waits for it.
func (g *guard) close() error {
	return errors.Join(g.in.Close(), g.cmd.Wait())
}

// keepGuard is the guard itself: it reads until the pipe is closed, which the kernel
// does for a program that is killed.
func keepGuard(dir string, in io.Reader) error {
	running := map[int]bool{}
	for s := bufio.NewScanner(in); s.Scan(); {
		pgid, err := strconv.Atoi(s.Text())
		if err != nil || pgid == 0 {
			return fmt.Errorf("guard: %q is no process group", s.Text())
		}
		if pgid > 0 {
			running[pgid] = true
		} else {
			delete(running, -pgid)
		}
	}
	for pgid := range running {
		_ = syscall.Kill(-pgid, syscall.SIGKILL) // ESRCH: it ended by itself
	}
	return os.RemoveAll(dir)
}

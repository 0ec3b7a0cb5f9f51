// Package process runs child processes that end when we do.
package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// Process is a child that is watched from start to end.
type Process struct {
	name string
	cmd  *exec.Cmd
	Done chan struct{} // closed when it has ended
	err  error         // set before done is closed
}

// Start runs a command in a process group of its own, so that a Ctrl-C in the
// terminal reaches only us and the order of shutdown is ours, and has the
// kernel end it should we die without a chance to.
func Start(name string, cmd *exec.Cmd) (*Process, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	p := &Process{name: name, cmd: cmd, Done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// The kernel ties Pdeathsig to the thread that forks, so that thread
		// has to live as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		started <- nil
		p.err = cmd.Wait()
		close(p.Done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

// Signal sends sig to the process, if it still runs.
func (p *Process) Signal(sig os.Signal) {
	select {
	case <-p.Done:
	default:
		// It may end between the check and the call; then there is nothing
		// to signal.
		_ = p.cmd.Process.Signal(sig)
	}
}

// Stop asks the process to end, waits, and after grace insists.
func (p *Process) Stop(sig os.Signal, grace time.Duration) {
	p.Signal(sig)
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.Done:
		return
	case <-timer.C:
	}
	// The whole group: what the child left behind must not stay.
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.Done
}

// ExitStatus is what a shell would report: the status, or 128 plus the signal.
func (p *Process) ExitStatus() int {
	var exit *exec.ExitError
	switch {
	case p.err == nil:
		return 0
	case errors.As(p.err, &exit):
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			return 128 + int(ws.Signal())
		}
		return exit.ExitCode()
	}
	return 127
}

// Poll calls ready until it returns nil, ctx ends or p has ended.
func Poll(ctx context.Context, p *Process, every time.Duration, ready func(context.Context) error) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.Done:
			return fmt.Errorf("%s ended with status %d before it was ready", p.name, p.ExitStatus())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w", p.name, err)
		}
	}
}

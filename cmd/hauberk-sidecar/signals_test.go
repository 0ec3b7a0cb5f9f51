package main

import (
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestSignals: SIGUSR1 opens the logs anew, before and while the sidecar stops, SIGHUP ends
// nothing, SIGTERM stops and a second one at once.
func TestSignals(t *testing.T) {
	survive()
	quit, reopened := make(chan struct{}), make(chan struct{})
	said := &lines{said: make(chan string, 4)}
	ctx, stop := signals(func() { close(quit) }, func() { reopened <- struct{}{} }, slog.New(slog.NewTextHandler(said, nil)))
	defer stop()
	send := func(s syscall.Signal) {
		t.Helper()
		if err := syscall.Kill(os.Getpid(), s); err != nil {
			t.Fatal(err)
		}
	}
	limit := time.After(30 * time.Second)
	await := func(what string, c <-chan struct{}) {
		t.Helper()
		select {
		case <-c:
		case <-limit:
			t.Fatal(what)
		}
	}
	send(syscall.SIGUSR1)
	await("SIGUSR1 opens no log", reopened)
	send(syscall.SIGHUP)
	select {
	case line := <-said.said:
		if !strings.Contains(line, "SIGHUP does nothing") {
			t.Errorf("SIGHUP: %s", line)
		}
	case <-limit:
		t.Fatal("nothing is said of SIGHUP")
	}
	if ctx.Err() != nil {
		t.Fatal("the sidecar stops")
	}
	send(syscall.SIGTERM)
	await("SIGTERM does not stop", ctx.Done())
	send(syscall.SIGUSR1)
	await("SIGUSR1 opens no log while the sidecar stops", reopened)
	send(syscall.SIGTERM)
	await("the second SIGTERM does not end", quit)
	stop()
	send(syscall.SIGHUP) // the end of this process, were it not ignored
	send(syscall.SIGUSR1)
}

type lines struct {
	once sync.Once
	said chan string
}

func (l *lines) Write(p []byte) (int, error) {
	l.once.Do(func() { l.said <- string(p) })
	return len(p), nil
}

// helper is set in a process that is to write to a pipe that nobody reads.
const helper = "HAUBERK_TEST_WRITES"

// TestOutputThatNobodyReads: whoever reads standard output and standard error going away
// takes no sidecar with it.
func TestOutputThatNobodyReads(t *testing.T) {
	if os.Getenv(helper) != "" {
		survive()
		_, out := os.Stdout.WriteString("lost\n")
		_, log := os.Stderr.WriteString("lost\n")
		if errors.Is(out, syscall.EPIPE) && errors.Is(log, syscall.EPIPE) {
			os.Exit(7)
		}
		os.Exit(8)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	defer w.Close()
	cmd := exec.Command(os.Args[0], "-test.run=^TestOutputThatNobodyReads$")
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), helper+"=1"), w, w
	var exit *exec.ExitError
	if err := cmd.Run(); !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("the process ended with %v", err)
	}
}

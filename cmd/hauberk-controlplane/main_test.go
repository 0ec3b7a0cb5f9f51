package main

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// helper is set in a process that is to write to a pipe that nobody reads.
const helper = "HAUBERK_TEST_WRITES"

// TestOutputThatNobodyReads: whoever reads standard output and standard error going away
// takes no control plane with it.
func TestOutputThatNobodyReads(t *testing.T) {
	if os.Getenv(helper) != "" {
		refused := run([]string{"surplus"}) // as far as it comes
		_, out := os.Stdout.WriteString("lost\n")
		_, log := os.Stderr.WriteString("lost\n")
		if refused != nil && errors.Is(out, syscall.EPIPE) && errors.Is(log, syscall.EPIPE) {
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

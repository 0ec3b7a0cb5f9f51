package main

import (
	"errors"
	"os"
	"os/exec"
	"strings"
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

func TestRefusals(t *testing.T) {
	for want, args := range map[string][]string{
		`unknown command "serve"; see hauberk-controlplane help`:                       {"serve"},
		`unexpected argument "mesh"; hauberk-controlplane run -h lists the flags`:      {"run", "mesh"},
		`unexpected argument "mesh"; hauberk-controlplane validate -h lists the flags`: {"validate", "mesh"},
		"--files-dir DIR is needed": {"validate"},
		"flag provided but not defined: -trust-domian; hauberk-controlplane run -h lists the flags": {"run", "--trust-domian", "td"},
	} {
		if err := dispatch(args); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want %q", args, err, want)
		}
	}
	if err := dispatch([]string{"run", "-h"}); err != nil {
		t.Errorf("help is an error: %v", err)
	}
}

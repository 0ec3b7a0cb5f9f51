// Package demo is `hauberk demo`: a whole mesh on loopback in one terminal, and
// proof of what it claims. Every claim is read from an access log or a TLS
// error, and each can be broken on purpose, to show that it can fail.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/hauberk-mesh/hauberk/cmd/hauberk/client"
	"github.com/hauberk-mesh/hauberk/cmd/hauberk/internal/cli"
	"github.com/hauberk-mesh/hauberk/cmd/hauberk/internal/output"
	"github.com/hauberk-mesh/hauberk/cmd/hauberk/internal/process"
)

const trustDomain = "demo.mesh"

var breaks = []string{"", "plaintext", "identity", "split", "retry"}

// Command returns `hauberk demo`.
func Command(env *cli.Env) *cobra.Command {
	var once, keep bool
	var breaking string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "start a mesh on loopback and prove what it claims",
		Long: "Starts a control plane and five small services with their sidecars on loopback, sends light traffic,\n" +
			"and prints what it proves. Ctrl-C leaves nothing behind.\n\n" +
			"CONSUL=1 uses a real Consul (CONSUL_HTTP_ADDR when set, else it builds one; needs the source tree).\n" +
			"DEMO_ONCE=1 ends after the proof, with exit code 1 when a claim does not hold.\n" +
			"DEMO_BREAK=plaintext|identity|split|retry breaks one thing, to show that the proof notices.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !slices.Contains(breaks, breaking) {
				return fmt.Errorf("--break %q: want one of %s", breaking, strings.Join(breaks[1:], ", "))
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			d := &demo{out: env.Out, err: env.Err, breaking: breaking, once: once, keep: keep}
			return d.run(ctx)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&once, "once", truthy(os.Getenv("DEMO_ONCE")), "end after the proof (env DEMO_ONCE)")
	f.StringVar(&breaking, "break", os.Getenv("DEMO_BREAK"), "break plaintext, identity, split or retry (env DEMO_BREAK)")
	f.BoolVar(&keep, "keep", false, "keep the working directory with all logs")
	cmd.AddCommand(serviceCommand())
	return cmd
}

func truthy(s string) bool { return s != "" && s != "0" && s != "false" }

// demo is one run.
type demo struct {
	out, err io.Writer
	breaking string
	once     bool
	keep     bool

	bin    string // where our programs are
	dir    string // everything the demo writes
	api    *client.Client
	socket string
	procs  []*process.Process // in the order started
	source catalogSource
	ports  ports
}

// catalogSource is where the demo's services and entries live.
type catalogSource interface {
	// start makes it ready and writes the entries.
	start(ctx context.Context, d *demo) error
	// controlPlaneArgs and runArgs point the programs at it.
	controlPlaneArgs() []string
	runArgs() []string
	env() []string
	describe() string
	// stop removes what was written.
	stop() error
}

func (d *demo) run(ctx context.Context) (err error) {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	d.bin = filepath.Dir(self)
	if d.dir, err = os.MkdirTemp("", "hauberk-demo-"); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, d.cleanUp(err))
	}()
	if d.source, err = chooseSource(); err != nil {
		return err
	}
	began := time.Now()
	if err := d.up(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	fmt.Fprintf(d.out, "up in %.1f s\n\n", time.Since(began).Seconds())
	failed, err := d.prove(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	if failed > 0 {
		return &output.ExitError{Code: output.No, Message: fmt.Sprintf("%d of the demo's claims did not hold", failed)}
	}
	d.printNext()
	if d.once {
		return nil
	}
	fmt.Fprintln(d.out, "\nlight traffic goes on; Ctrl-C ends the demo and leaves nothing behind")
	d.traffic(ctx)
	return nil
}

// cleanUp ends everything in the reverse order of its start.
func (d *demo) cleanUp(failure error) error {
	fmt.Fprintln(d.err, "stopping")
	var errs []error
	// The services go together, then the control plane.
	if len(d.procs) > 1 {
		var wg sync.WaitGroup
		for _, p := range d.procs[1:] {
			wg.Go(func() { p.Stop(syscall.SIGTERM, 15*time.Second) })
		}
		wg.Wait()
	}
	if len(d.procs) > 0 {
		d.procs[0].Stop(syscall.SIGTERM, 10*time.Second)
	}
	if d.source != nil {
		errs = append(errs, d.source.stop())
	}
	var exit *output.ExitError
	if d.keep || (failure != nil && !errors.As(failure, &exit)) {
		fmt.Fprintf(d.err, "logs are in %s\n", d.dir)
	} else {
		errs = append(errs, os.RemoveAll(d.dir))
	}
	return errors.Join(errs...)
}

func (d *demo) path(elem ...string) string { return filepath.Join(append([]string{d.dir}, elem...)...) }

func (d *demo) accessLog(name string) string { return d.path("access-" + name + ".json") }

// spawn starts one of our programs with its output in a log file.
func (d *demo) spawn(name, program string, extraEnv []string, args ...string) (*process.Process, error) {
	log, err := os.Create(d.path(name + ".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(d.bin, program), args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), extraEnv...)
	p, err := process.Start(name, cmd)
	if err != nil {
		return nil, err
	}
	d.procs = append(d.procs, p)
	return p, nil
}

// logTail returns the end of a process's log, for an error message.
func (d *demo) logTail(name string) string {
	b, err := os.ReadFile(d.path(name + ".log"))
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}

func (d *demo) printNext() {
	addr := "--address unix://" + d.socket
	fmt.Fprintf(d.out, `try next, in another terminal:
  hauberk status %[1]s
  hauberk intention check web api --path /answer %[1]s
  hauberk sidecar routes web %[1]s
`, addr)
}

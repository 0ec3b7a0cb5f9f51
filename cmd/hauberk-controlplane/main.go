// Command hauberk-controlplane is the control plane of a Hauberk mesh:
// discovery, xDS, identity and the operator API of one environment.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/hauberk-mesh/hauberk/controlplane/server"
	"github.com/hauberk-mesh/hauberk/internal/logging"
	"github.com/hauberk-mesh/hauberk/internal/version"
)

const usage = `usage: hauberk-controlplane <command> [flags]

  run        run a control plane
  validate   check a directory of config entries and services
  version    print the version

hauberk-controlplane <command> -h lists the flags.
`

func main() {
	if err := dispatch(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "hauberk-controlplane:", err)
		os.Exit(1)
	}
}

func dispatch(args []string) error {
	if len(args) == 0 {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	switch args[0] {
	case "run":
		return unlessHelp(run(args[1:]))
	case "validate":
		return unlessHelp(validate(args[1:]))
	case "version", "--version":
		fmt.Println(version.String())
		return nil
	case "help", "-h", "--help":
		fmt.Print(usage)
		return nil
	}
	return fmt.Errorf("unknown command %q; see hauberk-controlplane help", args[0])
}

func unlessHelp(err error) error {
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	return err
}

func run(args []string) error {
	// Whoever reads its output going away takes no control plane with it: writes fail then.
	signal.Ignore(syscall.SIGPIPE)
	o, err := parseFlags(args)
	if err != nil {
		return err
	}
	log, _, err := logging.New(os.Stderr, o.logFormat, o.logLevel)
	if err != nil {
		return err
	}
	// The first signal ends the process in order, a second one at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)

	cfg, err := o.config(log)
	if err != nil {
		return err
	}
	s, err := server.Build(ctx, cfg)
	if err != nil {
		return err
	}
	addrs := s.Addrs()
	log.Info("control plane", "id", s.ID().String(), "version", cfg.Version, "xds", addrs.XDS, "api", addrs.API, "socket", addrs.Socket)
	err = s.Run(ctx)
	if cerr := s.Close(); err == nil {
		err = cerr
	}
	log.Info("control plane ended", "id", s.ID().String())
	return err
}

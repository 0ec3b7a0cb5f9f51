// Command hauberk-sidecar is the data plane: it serves one or several workloads
// of a host. See the usage text.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/hauberk-mesh/hauberk/internal/version"
	"github.com/hauberk-mesh/hauberk/sidecar"
)

const usage = `usage:
  hauberk-sidecar run [flags]                  join the mesh and serve this node's workloads
  hauberk-sidecar --bootstrap FILE [flags]     serve an Envoy bootstrap, static or dynamic
  hauberk-sidecar agent [flags]                keep this host's identities, without serving traffic
  hauberk-sidecar validate --bootstrap FILE    check a bootstrap file
  hauberk-sidecar version

Each flag can be set by the environment: --drain-time is HAUBERK_DRAIN_TIME. The join token
comes from --token-file, HAUBERK_TOKEN_FILE or HAUBERK_TOKEN, never from an argument.

SIGTERM and SIGINT drain and stop, a second one stops at once; SIGUSR1 opens the access logs
anew, for rotation.

flags:
`

func main() {
	survive()
	args := os.Args[1:]
	command := "run"
	if len(args) > 0 && args[0] != "" && args[0][0] != '-' {
		command, args = args[0], args[1:]
	}
	var err error
	switch command {
	case "run":
		err = run(args)
	case "agent":
		err = runAgent(args)
	case "validate":
		err = validate(args)
	case "version":
		fmt.Println("hauberk-sidecar " + version.String())
	default:
		err = fmt.Errorf("unknown command %q; hauberk-sidecar -h lists them", command)
	}
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "hauberk-sidecar: "+err.Error())
		os.Exit(1)
	}
}

func run(args []string) error {
	o, err := parse(args, os.LookupEnv)
	if err != nil {
		return err
	}
	cfg, err := o.sidecar()
	if err != nil {
		return err
	}
	s, err := sidecar.Build(*cfg)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	ctx, stop := signals(s.Quit, s.ReopenLogs, cfg.Log)
	defer stop()
	a := s.Addrs()
	cfg.Log.Info("started", "version", version.Version, "node", cfg.Node, "admin", text(a.Admin), "admin_socket", a.AdminSocket,
		"metrics", text(a.Metrics), "ready", text(a.Ready))
	told := make(chan struct{})
	go func() { defer close(told); announce(ctx, s, o.readyFile, cfg.Log) }()
	err = s.Run(ctx)
	stop()
	<-told
	return err
}

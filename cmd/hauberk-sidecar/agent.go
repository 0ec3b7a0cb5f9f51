package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/hauberk-mesh/hauberk/identity/agent"
	"github.com/hauberk-mesh/hauberk/internal/version"
)

// runAgent keeps the host's identities without a data plane.
func runAgent(args []string) error {
	o, err := parse(args, os.LookupEnv)
	if err != nil {
		return err
	}
	if o.bootstrap != "" {
		return errors.New("agent takes no --bootstrap: it serves no traffic")
	}
	log, _, err := o.log()
	if err != nil {
		return err
	}
	cfg, err := o.agent(log)
	if err != nil {
		return err
	}
	a, err := agent.Build(*cfg)
	if err != nil {
		return err
	}
	ctx, stop := signals(func() { os.Exit(1) })
	defer stop()
	log.Info("agent started", "version", version.Version, "state_dir", o.stateDir)
	told := make(chan struct{})
	go func() {
		defer close(told)
		select {
		case <-a.Ready():
			log.Info("ready", "src_id", a.NodeID().String())
			notify("READY=1")
			if o.readyFile != "" {
				if err := os.WriteFile(o.readyFile, []byte("ready\n"), 0o600); err != nil {
					log.Error("ready file", "err", err)
				}
			}
		case <-ctx.Done():
		}
	}()
	start := time.Now()
	err = a.Run(ctx)
	stop()
	<-told
	if err != nil {
		err = fmt.Errorf("agent, after %s: %w", time.Since(start).Round(time.Second), err)
	}
	return errors.Join(err, a.Close())
}

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hauberk-mesh/hauberk/identity/agent"
	"github.com/hauberk-mesh/hauberk/identity/workloadapi"
	"github.com/hauberk-mesh/hauberk/internal/version"
	"github.com/hauberk-mesh/hauberk/xds/relay"
)

// runAgent keeps the host's identities without a data plane, and offers them on
// the host socket if there is one.
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
	h, err := buildHost(o, log)
	if err != nil {
		return err
	}
	ctx, stop := signals(func() { os.Exit(1) }, func() {}, log)
	defer stop()
	log.Info("agent started", "version", version.Version, "state_dir", o.stateDir, "socket", o.socket)
	start := time.Now()
	err = h.run(ctx, o.readyFile, log)
	if err != nil {
		err = fmt.Errorf("agent, after %s: %w", time.Since(start).Round(time.Second), err)
	}
	return errors.Join(err, h.close())
}

// host is an agent and its socket; the socket is nil when it is off.
type host struct {
	agent  *agent.Agent
	socket *workloadapi.Server
}

// buildHost opens the state and binds the socket.
func buildHost(o *options, log *slog.Logger) (*host, error) {
	socket, err := o.hostSocket()
	if err != nil {
		return nil, err
	}
	cfg, err := o.agent(log)
	if err != nil {
		return nil, err
	}
	h := &host{}
	if h.agent, err = agent.Build(*cfg); err != nil {
		return nil, err
	}
	if socket != nil {
		socket.Source, socket.Log = h.agent, log
		socket.Register = relay.OnHostSocket(h.agent.Conn(), log).Register
		if h.socket, err = workloadapi.Build(*socket); err != nil {
			return nil, errors.Join(err, h.close())
		}
	}
	return h, nil
}

// run ends when ctx does, or when one of the two cannot go on.
func (h *host) run(ctx context.Context, readyFile string, log *slog.Logger) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return ended(ctx, h.agent.Run(ctx)) })
	if h.socket != nil {
		g.Go(func() error { return ended(ctx, h.socket.Run(ctx)) })
	}
	g.Go(func() error {
		select {
		case <-h.agent.Ready():
			log.Info("ready", "src_id", h.agent.NodeID().String())
			notify("READY=1")
			if readyFile != "" {
				if err := os.WriteFile(readyFile, []byte("ready\n"), 0o600); err != nil {
					log.Error("ready file", "err", err)
				}
			}
			<-ctx.Done()
			notify("STOPPING=1")
		case <-ctx.Done():
		}
		return nil
	})
	return g.Wait()
}

// ended: to be told to stop is no failure.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (h *host) close() error {
	var err error
	if h.socket != nil {
		err = h.socket.Close()
	}
	return errors.Join(err, h.agent.Close())
}

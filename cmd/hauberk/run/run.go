// Package run is `hauberk run -- APP`: an application and its sidecar as one
// unit, from registration to drain, exiting with the application's status.
//
// The order is the point. Coming up: register, obtain identity, start the
// sidecar, start the application when the sidecar is ready, and only then let
// peers in. Going down: deregister, let the sidecar finish what it has accepted,
// stop the application while its upstreams still work, and stop the sidecar
// last.
package run

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/hauberk-mesh/hauberk/cmd/hauberk/internal/cli"
	"github.com/hauberk-mesh/hauberk/cmd/hauberk/internal/output"
	"github.com/hauberk-mesh/hauberk/cmd/hauberk/internal/process"
	"github.com/hauberk-mesh/hauberk/internal/logging"
	"github.com/hauberk-mesh/hauberk/internal/ports"
)

type options struct {
	service, id, node  string
	port, meshPort     int
	appHost, meshHost  string
	upstreams          []string
	tags, meta         []string
	registry, filesDir string
	stateDir           string
	tokenFile          string
	sidecarPath        string
	accessLog          string
	accessLogFormat    string
	logLevel           string
	startTimeout       time.Duration
	settle             time.Duration
	drainTime          time.Duration
	stopTimeout        time.Duration
}

// Command returns `hauberk run`.
func Command(env *cli.Env) *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "run --service NAME --port PORT [--upstream SERVICE:PORT]... -- APP [ARG]...",
		Short: "run an application with a sidecar in the mesh",
		Long: "Registers the application, obtains its identity, starts a sidecar, starts the application when the\n" +
			"sidecar is ready, forwards signals, and on the way out deregisters and drains in the right order.\n" +
			"Exits with the application's status.\n\n" +
			"The application listens on loopback (--port) and calls its upstreams on loopback (--upstream). It finds\n" +
			"them in HAUBERK_UPSTREAM_<SERVICE>=host:port.",
		Example: "  hauberk token create --node api-1 --service api > api-1.token\n" +
			"  hauberk run --service api --port 9001 --upstream web:9191 --token-file api-1.token -- ./api",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			log, _, err := logging.New(env.Err, "text", o.logLevel)
			if err != nil {
				return err
			}
			r, err := o.runner(args, log)
			if err != nil {
				return err
			}
			status, err := r.run(cmd.Context())
			if err != nil {
				return err
			}
			return &output.ExitError{Code: status}
		},
	}
	o.flags(cmd)
	return cmd
}

func (o *options) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.service, "service", "", "name of the service")
	f.IntVar(&o.port, "port", 0, "port the application listens on")
	f.StringVar(&o.appHost, "host", "127.0.0.1", "address the application listens on")
	f.StringArrayVar(&o.upstreams, "upstream", nil, "service the application calls, as SERVICE:PORT (loopback port) or SERVICE:HOST:PORT; repeatable")
	f.StringVar(&o.id, "id", "", "instance id (default: SERVICE-PORT)")
	f.StringVar(&o.node, "node", "", "name the sidecar joins by, as in the token (default: the instance id)")
	f.IntVar(&o.meshPort, "mesh-port", 0, "port peers reach the sidecar at (default: a free one)")
	f.StringVar(&o.meshHost, "mesh-host", "127.0.0.1", "address peers reach the sidecar at")
	f.StringArrayVar(&o.tags, "tag", nil, "tag of the instance; repeatable")
	f.StringArrayVar(&o.meta, "meta", nil, "KEY=VALUE of the instance; repeatable")
	f.StringVar(&o.registry, "registry", "consul", "where to register: consul (CONSUL_HTTP_ADDR and the like) or files")
	f.StringVar(&o.filesDir, "files-dir", "", "directory of the files registry")
	f.StringVar(&o.stateDir, "state-dir", "", "where the sidecar keeps its identity (default: below the user's state directory)")
	f.StringVar(&o.tokenFile, "token-file", "", "file with a join token, needed the first time (or HAUBERK_TOKEN)")
	f.StringVar(&o.sidecarPath, "sidecar", "", "the hauberk-sidecar program (default: beside this one, or in PATH)")
	f.StringVar(&o.accessLog, "access-log", "off", "file for the sidecar's access log, /dev/stdout, or off")
	f.StringVar(&o.accessLogFormat, "access-log-format", "text", "text or json")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	f.DurationVar(&o.startTimeout, "start-timeout", 60*time.Second, "how long sidecar and application may each take to become ready")
	f.DurationVar(&o.settle, "settle", 2*time.Second, "after deregistering, how long peers get to hear of it")
	f.DurationVar(&o.drainTime, "drain-time", 20*time.Second, "how long requests in flight may take to finish")
	f.DurationVar(&o.stopTimeout, "stop-timeout", 20*time.Second, "how long the application may take to end")
	for _, name := range []string{"service", "port"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err)
		}
	}
}

// runner carries one run.
type runner struct {
	options
	log   *slog.Logger
	reg   registration
	where registry
	// announced is set when the registry has taken the registration.
	announced bool
	args      []string
	sidecar   *sidecar
	app       *process.Process
}

var idPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

func (o *options) runner(args []string, log *slog.Logger) (*runner, error) {
	if o.id == "" {
		o.id = o.service + "-" + strconv.Itoa(o.port)
	}
	if o.node == "" {
		o.node = o.id
	}
	for flag, v := range map[string]string{"--service": o.service, "--id": o.id, "--node": o.node} {
		if !idPattern.MatchString(v) {
			return nil, fmt.Errorf("%s %q: use letters, digits, '.', '_' and '-' only", flag, v)
		}
	}
	if o.port < 1 || o.port > 65535 {
		return nil, fmt.Errorf("--port %d: want 1 to 65535", o.port)
	}
	r := &runner{options: *o, log: log, args: args}
	r.reg = registration{
		Service: o.service, ID: o.id, Node: o.node,
		App:  hostPort{o.appHost, o.port},
		Mesh: hostPort{o.meshHost, o.meshPort},
		Tags: o.tags, Meta: map[string]string{},
	}
	for _, kv := range o.meta {
		k, v, ok := strings.Cut(kv, "=")
		if !ok {
			return nil, fmt.Errorf("--meta %q: want KEY=VALUE", kv)
		}
		r.reg.Meta[k] = v
	}
	for _, s := range o.upstreams {
		u, err := parseUpstream(s)
		if err != nil {
			return nil, err
		}
		r.reg.Upstreams = append(r.reg.Upstreams, u)
	}
	switch o.registry {
	case "consul":
		c, err := newConsulRegistry()
		if err != nil {
			return nil, err
		}
		r.where = c
	case "files":
		if o.filesDir == "" {
			return nil, errors.New("--registry files needs --files-dir, the directory that the control plane reads")
		}
		r.where = &filesRegistry{dir: o.filesDir}
	default:
		return nil, fmt.Errorf("--registry %q: want consul or files", o.registry)
	}
	if r.stateDir == "" {
		dir, err := defaultStateDir(o.node)
		if err != nil {
			return nil, err
		}
		r.stateDir = dir
	}
	if r.sidecarPath == "" {
		p, err := findSidecar()
		if err != nil {
			return nil, err
		}
		r.sidecarPath = p
	}
	return r, nil
}

func parseUpstream(s string) (upstream, error) {
	service, rest, ok := strings.Cut(s, ":")
	host, port := "127.0.0.1", rest
	if h, p, err := net.SplitHostPort(rest); err == nil {
		host, port = h, p
	}
	n, err := strconv.Atoi(port)
	if !ok || service == "" || err != nil || n < 1 || n > 65535 {
		return upstream{}, fmt.Errorf("--upstream %q: want SERVICE:PORT or SERVICE:HOST:PORT", s)
	}
	return upstream{Service: service, Bind: hostPort{host, n}}, nil
}

func defaultStateDir(node string) (string, error) {
	if os.Geteuid() == 0 {
		return filepath.Join("/var/lib/hauberk/sidecar", node), nil
	}
	if d := os.Getenv("XDG_STATE_HOME"); d != "" {
		return filepath.Join(d, "hauberk", "sidecar", node), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("where to keep state: %w; give --state-dir", err)
	}
	return filepath.Join(home, ".local", "state", "hauberk", "sidecar", node), nil
}

// run brings everything up, waits, and takes it down. The status is the
// application's.
func (r *runner) run(ctx context.Context) (int, error) {
	if err := r.meshPort(); err != nil {
		return 0, err // before anything that there would be to undo
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGQUIT)
	defer signal.Stop(signals)

	up, cancel := context.WithCancel(ctx)
	defer cancel()
	started := make(chan error, 1)
	go func() { started <- r.start(up) }()
	for waiting := true; waiting; {
		select {
		case err := <-started:
			if err != nil {
				r.takeDown(syscall.SIGTERM)
				return 0, err
			}
			waiting = false
		case s := <-signals:
			if ends(s) {
				cancel()
				<-started
				r.takeDown(s)
				return 128 + int(s.(syscall.Signal)), nil
			}
		}
	}
	for {
		select {
		case s := <-signals:
			if !ends(s) {
				r.app.Signal(s)
				continue
			}
			r.log.Info("stopping", "service", r.service, "signal", s.String())
			r.takeDown(s)
			return r.app.ExitStatus(), nil
		case <-r.app.Done:
			r.log.Info("application ended", "service", r.service, "status", r.app.ExitStatus())
			r.takeDown(syscall.SIGTERM)
			return r.app.ExitStatus(), nil
		}
	}
}

func ends(s os.Signal) bool {
	return s == os.Interrupt || s == syscall.SIGTERM || s == syscall.SIGQUIT
}

// meshPort finds a port for peers, or looks whether the one that was asked for is free: the
// sidecar would come up without it, and nobody could reach the service.
func (r *runner) meshPort() error {
	if r.reg.Mesh.Port == 0 {
		port, err := ports.Free(r.reg.Mesh.Host)
		r.reg.Mesh.Port = port
		return err
	}
	l, err := net.Listen("tcp", r.reg.Mesh.String())
	switch {
	case err == nil:
		return l.Close()
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%s is in use: stop what listens there, or choose another --mesh-port", r.reg.Mesh)
	}
	return nil // not an address of this host, where something else passes on what comes
}

func (r *runner) start(ctx context.Context) error {
	if err := r.where.Announce(ctx, &r.reg); err != nil {
		return err
	}
	r.announced = true
	r.log.Info("registered", "service", r.service, "id", r.id, "mesh", r.reg.Mesh.String())
	s, err := r.startSidecar(ctx)
	r.sidecar = s
	if err != nil {
		return err
	}
	r.awaitUpstreams(ctx)
	r.log.Info("sidecar ready", "service", r.service)
	if r.app, err = r.startApp(); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, r.startTimeout)
	defer cancel()
	err = process.Poll(bounded, r.app, 50*time.Millisecond, func(ctx context.Context) error {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", r.reg.App.String())
		if err != nil {
			return fmt.Errorf("nothing listens on %s yet: %w", r.reg.App, err)
		}
		return c.Close()
	})
	select {
	case <-r.app.Done:
		// A short-lived application need not listen; its status is the answer.
		return nil
	default:
	}
	if err != nil {
		return err
	}
	if err := r.where.Ready(ctx, &r.reg); err != nil {
		return err
	}
	r.log.Info("in the mesh", "service", r.service, "application", r.reg.App.String())
	return nil
}

// upstreamGrace is how long the application's start waits for its upstreams. One
// that the control plane refuses to configure must not keep it down for ever.
const upstreamGrace = 10 * time.Second

// awaitUpstreams waits until what the application may call at once is there.
func (r *runner) awaitUpstreams(ctx context.Context) {
	if len(r.reg.Upstreams) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, min(upstreamGrace, r.startTimeout))
	defer cancel()
	err := process.Poll(ctx, r.sidecar.proc, 20*time.Millisecond, func(ctx context.Context) error {
		return r.sidecar.serves(ctx, r.reg.Upstreams)
	})
	if err != nil {
		r.log.Warn("the application starts without all of its upstreams; `hauberk status` tells why", "service", r.service, "err", err)
	}
}

// takeDown undoes start as far as it got. It has its own bounds, because the
// context that ended the run must not cut the drain short.
func (r *runner) takeDown(sig os.Signal) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	// Also after an Announce that failed: its answer may have been lost.
	if err := r.where.Withdraw(ctx, &r.reg); err != nil && r.announced {
		r.log.Error("deregistration failed; peers stop when its checks fail", "err", err)
	}
	if r.app != nil {
		if r.sidecar.alive() {
			r.pause(r.settle)
			if err := r.sidecar.drain(r.drainTime); err != nil {
				r.log.Warn("sidecar did not drain", "err", err)
			}
		}
		r.app.Stop(sig, r.stopTimeout)
	}
	if r.sidecar != nil {
		r.sidecar.stop(r.drainTime)
	}
}

// pause waits, but not for an application that is gone already.
func (r *runner) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.app.Done:
	}
}

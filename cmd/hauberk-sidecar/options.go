package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/hauberk-mesh/hauberk/identity/agent"
	"github.com/hauberk-mesh/hauberk/identity/workloadapi"
	"github.com/hauberk-mesh/hauberk/internal/logging"
	"github.com/hauberk-mesh/hauberk/internal/stale"
	"github.com/hauberk-mesh/hauberk/internal/version"
	"github.com/hauberk-mesh/hauberk/sidecar"
	"github.com/hauberk-mesh/hauberk/sidecar/config"
	"github.com/hauberk-mesh/hauberk/sidecar/listener"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// options are the flags. A flag wins over the environment.
type options struct {
	bootstrap, stateDir, tokenFile, token, node   string
	admin, adminSocket, metrics, ready, readyFile string
	accessLog, accessLogFormat                    string
	logLevel, logFormat                           string
	socket, socketMode, workloads                 string

	memoryLimit, firstByte, bodyRate string

	drainTime, warmUp, staleAfter time.Duration
}

func parse(args []string, env func(string) (string, bool)) (*options, error) {
	o := &options{}
	f := flag.NewFlagSet("hauberk-sidecar", flag.ContinueOnError)
	// A mistake is told in one line, which pages of flags would push out of sight.
	f.Usage = func() {}
	f.SetOutput(io.Discard)
	f.StringVar(&o.bootstrap, "bootstrap", "", "Envoy bootstrap `file`, YAML or JSON")
	f.StringVar(&o.stateDir, "state-dir", "", "`directory` for identity and the last configuration, mode 0700")
	f.StringVar(&o.tokenFile, "token-file", "", "`file` with the join token; needed once")
	f.StringVar(&o.socket, "socket", "", "`path` of the host socket, where other processes of this host get their identities; none by default")
	f.StringVar(&o.socketMode, "socket-mode", "0666", "`mode` of the host socket; who gets what is decided by who calls")
	f.StringVar(&o.workloads, "workloads", "", "`file` that says which identities are for which processes, besides the node's record")
	f.StringVar(&o.node, "node", "", "`name` of this node; the token's by default")
	f.StringVar(&o.admin, "admin", "127.0.0.1:15000", "loopback `address` of the admin interface, read only; off for none")
	f.StringVar(&o.adminSocket, "admin-socket", "", "`path` of the admin socket that takes changes; STATE-DIR/admin.sock by default")
	f.StringVar(&o.metrics, "metrics", "127.0.0.1:15020", "`address` of the metrics; off for none")
	f.StringVar(&o.ready, "ready", "127.0.0.1:15021", "`address` of the readiness probe; off for none")
	f.StringVar(&o.readyFile, "ready-file", "", "`file` to write when ready")
	f.StringVar(&o.accessLog, "access-log", "off", "access log `path` of listeners that have none of their own")
	f.StringVar(&o.accessLogFormat, "access-log-format", "text", "`format` of that log: text or json")
	f.DurationVar(&o.drainTime, "drain-time", 30*time.Second, "how long connections may finish at the end")
	f.DurationVar(&o.warmUp, "warm-up", 15*time.Second, "how long a new listener waits for its routes and clusters")
	f.DurationVar(&o.staleAfter, "stale-after", stale.After, "age of configuration and trust data from which to warn; old data stays in use")
	f.StringVar(&o.memoryLimit, "memory-limit", "auto", "`size` of the memory near which load is shed, such as 256MiB; auto is the control group's, in a mesh, off for none")
	f.StringVar(&o.firstByte, "first-byte-timeout", "auto", "how long a new `connection` of HTTP may say nothing, such as 10s; auto is that, in a mesh, for clients of other hosts without a certificate, off for none")
	f.StringVar(&o.bodyRate, "least-body-rate", "auto", "`bytes` a second of a request's body that are to come while its client is waited for; auto is 100, in a mesh and for clients of other hosts without a certificate, off for none")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&o.logFormat, "log-format", "text", "text or json")
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		f.SetOutput(os.Stdout)
		fmt.Print(usage)
		f.PrintDefaults()
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w; hauberk-sidecar -h lists the flags", err)
	case f.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q; --bootstrap FILE names a bootstrap, and hauberk-sidecar -h lists the flags", f.Arg(0))
	}
	given := map[string]bool{}
	f.Visit(func(fl *flag.Flag) { given[fl.Name] = true })
	var err error
	f.VisitAll(func(fl *flag.Flag) {
		name := "HAUBERK_" + strings.ToUpper(strings.ReplaceAll(fl.Name, "-", "_"))
		if v, ok := env(name); ok && !given[fl.Name] {
			if e := f.Set(fl.Name, v); e != nil && err == nil {
				err = fmt.Errorf("%s=%q: %w", name, v, e)
			}
		}
	})
	o.token, _ = env("HAUBERK_TOKEN")
	for _, a := range []*string{&o.admin, &o.metrics, &o.ready} {
		if *a == "off" {
			*a = ""
		}
	}
	return o, err
}

func (o *options) log() (*slog.Logger, *slog.LevelVar, error) {
	return logging.New(os.Stderr, o.logFormat, o.logLevel)
}

// sidecar turns the flags into the sidecar's configuration; it binds nothing.
func (o *options) sidecar() (*sidecar.Config, error) {
	log, level, err := o.log()
	if err != nil {
		return nil, err
	}
	cfg := &sidecar.Config{
		Node: o.node, StateDir: o.stateDir, Admin: o.admin, AdminSocket: o.adminSocket, Metrics: o.metrics, Ready: o.ready,
		DrainTime: o.drainTime, WarmUp: o.warmUp, StaleAfter: o.staleAfter, Version: version.Version, Log: log, Level: level,
	}
	if o.bootstrap != "" {
		if cfg.Bootstrap, err = config.LoadBootstrap(o.bootstrap); err != nil {
			return nil, err
		}
		if cfg.Bootstrap.Admin != "" && o.admin == "127.0.0.1:15000" {
			cfg.Admin = cfg.Bootstrap.Admin
		}
	}
	if cfg.Inherited, err = listener.InheritFromEnviron(os.Getenv); err != nil {
		return nil, err
	}
	if cfg.HostSocket, err = o.hostSocket(); err != nil {
		return nil, err
	}
	if cfg.HostSocket != nil && o.stateDir == "" {
		return nil, errors.New("--socket needs --state-dir: it serves the identities that the node's agent keeps there")
	}
	if cfg.AccessLog, err = o.accessLogs(); err != nil {
		return nil, err
	}
	if cfg.MemoryLimit, cfg.MemoryLimitOf, err = o.limit(os.DirFS("/")); err != nil {
		return nil, err
	}
	if cfg.Patience, err = o.patience(); err != nil {
		return nil, err
	}
	if o.stateDir != "" || o.bootstrap == "" {
		if cfg.Agent, err = o.agent(log); err != nil {
			return nil, err
		}
		if cfg.AdminSocket == "" {
			cfg.AdminSocket = o.stateDir + "/admin.sock"
		}
	}
	return cfg, nil
}

func (o *options) accessLogs() (*telemetry.AccessLogConfig, error) {
	if o.accessLog == "off" || o.accessLog == "" {
		return nil, nil
	}
	l := &telemetry.AccessLogConfig{Path: o.accessLog}
	switch o.accessLogFormat {
	case "text":
	case "json":
		l.JSON = true
	default:
		return nil, fmt.Errorf("--access-log-format %q: want text or json", o.accessLogFormat)
	}
	return l, nil
}

// agent configures the host's identity. The state directory may hold it already,
// so there need not be a token.
func (o *options) agent(log *slog.Logger) (*agent.Config, error) {
	if o.stateDir == "" {
		return nil, errors.New("--state-dir is needed: the node's key and identity live there")
	}
	if err := os.MkdirAll(o.stateDir, 0o700); err != nil {
		return nil, fmt.Errorf("--state-dir: %w", err)
	}
	token := o.token
	if o.tokenFile != "" {
		b, err := os.ReadFile(o.tokenFile)
		if err != nil {
			return nil, fmt.Errorf("--token-file: %w", err)
		}
		if token = strings.TrimSpace(string(b)); token == "" {
			return nil, fmt.Errorf("--token-file %s: the file is empty; make a token with `hauberk token create`", o.tokenFile)
		}
	}
	return &agent.Config{StateDir: o.stateDir, Token: strings.TrimSpace(token), StaleAfter: o.staleAfter, Version: version.Version, Logger: log}, nil
}

// hostSocket configures the host socket; nil when it is off.
func (o *options) hostSocket() (*workloadapi.Config, error) {
	if o.socket == "" {
		if o.workloads != "" {
			return nil, errors.New("--workloads needs --socket: it says who gets what there")
		}
		return nil, nil
	}
	mode, err := strconv.ParseUint(o.socketMode, 8, 32)
	if err != nil || mode == 0 || mode > 0o777 {
		return nil, fmt.Errorf("--socket-mode %q: want octal permissions such as 0666", o.socketMode)
	}
	return &workloadapi.Config{Socket: o.socket, Mode: fs.FileMode(mode), Workloads: o.workloads}, nil
}

func text(a net.Addr) string {
	if a == nil {
		return "off"
	}
	return a.String()
}

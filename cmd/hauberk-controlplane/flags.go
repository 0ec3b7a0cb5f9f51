package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hauberk-mesh/hauberk/controlplane/server"
	"github.com/hauberk-mesh/hauberk/controlplane/source"
	"github.com/hauberk-mesh/hauberk/controlplane/source/consul"
	"github.com/hauberk-mesh/hauberk/controlplane/source/files"
	"github.com/hauberk-mesh/hauberk/identity/spiffe"
	"github.com/hauberk-mesh/hauberk/internal/stale"
	"github.com/hauberk-mesh/hauberk/internal/version"
)

// options are the flags of run.
type options struct {
	trustDomain, id, stateDir string
	source, filesDir          string
	datacenter                string
	xds, apiAddress, socket   string
	advertise, apiHostnames   list
	joinTokenFile             string
	leafTTL, staleAfter       time.Duration
	logLevel, logFormat       string
}

// list is a flag that may be given several times, or once with commas.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(s string) error {
	*l = append(*l, strings.Split(s, ",")...)
	return nil
}

func parseFlags(args []string) (*options, error) {
	var o options
	host, _ := os.Hostname()
	f := flag.NewFlagSet("hauberk-controlplane run", flag.ContinueOnError)
	f.StringVar(&o.trustDomain, "trust-domain", os.Getenv("HAUBERK_TRUST_DOMAIN"), "SPIFFE trust domain of the environment (env HAUBERK_TRUST_DOMAIN)")
	f.StringVar(&o.id, "id", host, "id of this control plane, unique in the trust domain")
	f.StringVar(&o.stateDir, "state-dir", defaultDir("/var/lib/hauberk/controlplane", "XDG_STATE_HOME", ".local/state", "controlplane"), "directory for the signer key, tokens and records")
	f.StringVar(&o.source, "source", "consul", "where services and config entries come from: consul or files")
	f.StringVar(&o.filesDir, "files-dir", "", "directory of the files source")
	f.StringVar(&o.datacenter, "datacenter", "", "datacenter, when the source should not say")
	f.StringVar(&o.xds, "xds-address", ":15012", "address of xDS and identity")
	f.Var(&o.advertise, "advertise", "host:port that nodes reach --xds-address at; repeatable (default: the bound address)")
	f.StringVar(&o.apiAddress, "api-address", "127.0.0.1:15014", "address of the API and metrics, over TLS")
	f.Var(&o.apiHostnames, "api-hostname", "name that the API is reached by, beside localhost and addresses; repeatable")
	f.StringVar(&o.socket, "socket", filepath.Join(runtimeDir(), "controlplane.sock"), "Unix socket for operators (mode 0600)")
	f.StringVar(&o.joinTokenFile, "join-token-file", "", "token of role controlplane, to be admitted by another control plane")
	f.DurationVar(&o.leafTTL, "svid-ttl", 24*time.Hour, "life of an SVID; it is renewed at half of it")
	f.DurationVar(&o.staleAfter, "stale-after", stale.After, "age of the catalog, or of what another control plane said, from which to warn; old data stays in use")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&o.logFormat, "log-format", "text", "text or json")
	if err := parse(f, args); err != nil {
		return nil, err
	}
	return &o, nil
}

// parse tells a mistake in one line, which pages of flags would push out of sight.
func parse(f *flag.FlagSet, args []string) error {
	f.Usage = func() {}
	f.SetOutput(io.Discard)
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		f.SetOutput(os.Stdout)
		fmt.Printf("usage: %s [flags]\n\n", f.Name())
		f.PrintDefaults()
		return err
	case err != nil:
		return fmt.Errorf("%w; %s -h lists the flags", err, f.Name())
	case f.NArg() > 0:
		return fmt.Errorf("unexpected argument %q; %s -h lists the flags", f.Arg(0), f.Name())
	}
	return nil
}

func defaultDir(system, env, below, name string) string {
	if os.Geteuid() == 0 {
		return system
	}
	if d := os.Getenv(env); d != "" {
		return filepath.Join(d, "hauberk", name)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, below, "hauberk", name)
}

func runtimeDir() string {
	if os.Geteuid() == 0 {
		return "/run/hauberk"
	}
	if d := os.Getenv("XDG_RUNTIME_DIR"); d != "" {
		return filepath.Join(d, "hauberk")
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("hauberk-%d", os.Geteuid()))
}

func (o *options) config(log *slog.Logger) (server.Config, error) {
	if o.trustDomain == "" {
		return server.Config{}, errors.New("--trust-domain must be set: a name of this environment, such as prod.example.com, that no other uses")
	}
	td, err := spiffe.TrustDomain(o.trustDomain)
	if err != nil {
		return server.Config{}, fmt.Errorf("--trust-domain: %w", err)
	}
	if o.stateDir == "" {
		return server.Config{}, errors.New("--state-dir must be set")
	}
	cfg := server.Config{
		StateDir: o.stateDir, TrustDomain: td, ID: o.id,
		Datacenter: o.datacenter,
		XDSAddress: o.xds, Advertise: o.advertise,
		APIAddress: o.apiAddress, Socket: o.socket, APIHostnames: o.apiHostnames,
		LeafTTL: o.leafTTL, StaleAfter: o.staleAfter, Version: version.Version, Log: log,
	}
	if o.joinTokenFile != "" {
		b, err := os.ReadFile(o.joinTokenFile)
		if err != nil {
			return cfg, fmt.Errorf("--join-token-file: %w", err)
		}
		cfg.JoinToken = strings.TrimSpace(string(b))
	}
	cfg.Source, err = o.newSource(log)
	return cfg, err
}

func (o *options) newSource(log *slog.Logger) (source.Source, error) {
	log = log.With("component", "source")
	switch o.source {
	case "files":
		if o.filesDir == "" {
			return nil, errors.New("--source files needs --files-dir")
		}
		return files.New(files.Config{Dir: o.filesDir, Logger: log}), nil
	case "consul":
		// Address, token and TLS come from Consul's own CONSUL_* variables.
		return consul.New(consul.Config{Logger: log})
	}
	return nil, fmt.Errorf("--source %q: want consul or files", o.source)
}

// validate reads a directory as run would, and says what it holds.
func validate(args []string) error {
	f := flag.NewFlagSet("hauberk-controlplane validate", flag.ContinueOnError)
	dir := f.String("files-dir", "", "directory to check")
	if err := parse(f, args); err != nil {
		return err
	}
	if *dir == "" {
		return errors.New("--files-dir DIR is needed")
	}
	u, err := files.Load(*dir)
	if err != nil {
		return err
	}
	fmt.Printf("%s is valid: %d config entries, %d services\n", *dir, len(u.Entries), len(u.Instances))
	return nil
}

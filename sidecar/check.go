package sidecar

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"

	"github.com/hauberk-mesh/hauberk/identity/svid"
	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/config"
	"github.com/hauberk-mesh/hauberk/sidecar/discovery"
	"github.com/hauberk-mesh/hauberk/sidecar/hcm"
	"github.com/hauberk-mesh/hauberk/sidecar/listener"
	"github.com/hauberk-mesh/hauberk/sidecar/secrets"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
	"github.com/hauberk-mesh/hauberk/sidecar/tracing"
)

// Check says all that speaks against serving a bootstrap here: what no listener or cluster
// can be made of, files of TLS that cannot be used, and access logs that cannot be opened.
// It makes the listeners, and listens nowhere, connects to nobody and creates no file.
// Identities that an agent would have, and secrets of services, are taken to be there.
func Check(b *config.Bootstrap) error {
	ctx, cancel := context.WithCancel(context.Background())
	nobody := svid.NewHolder(&svid.Snapshot{SVIDs: map[string]*svid.SVID{}, Bundles: map[string]*svid.Anchors{}})
	log := slog.New(slog.DiscardHandler)
	known := secrets.New(secrets.Options{Sockets: b.Sockets(), Offline: true, Log: log})
	tls := newTLSProvider(ctx, nobody, known, log)
	clusters := cluster.NewManager(cluster.Options{TLS: tls, Log: log, Own: b.Own})
	tracers := tracing.NewTracers(tracing.Options{Clusters: clusters, Log: log})
	h := &handlers{clusters: clusters, routes: newRoutes(), tracers: tracers, timers: hcm.NewTimers(), log: log}
	listeners := listener.NewManager(listener.Options{NewHandler: h.build, TLS: tls, Log: log})
	defer func() {
		_ = listeners.Close()
		tracers.Close()
		_ = clusters.Close()
		cancel()
		known.Close()
		tls.wait()
		h.timers.Close()
	}()
	found, err := readFiles(b)
	errs := []error{err}
	errs = append(errs, checkServices(b))
	for _, c := range append(found.clusters, b.Clusters...) {
		errs = append(errs, clusters.Check(c), tls.check(c), checkService(b, c.Discovery, "cluster "+c.Name+": eds_cluster_config.eds_config"))
	}
	for _, c := range append(found.clusters, b.Clusters...) {
		if c.HealthCheck == nil {
			continue
		}
		for _, log := range c.HealthCheck.Events {
			if err := writableAll("event log", []string{log.Path}); err != nil {
				errs = append(errs, fmt.Errorf("cluster %s: %s: %w", c.Name, log.Field, err))
			}
		}
	}
	for _, l := range append(found.listeners, b.Listeners...) {
		for _, from := range config.ListenerRefs(l).Sources {
			errs = append(errs, checkService(b, from, "listener "+l.Name+": rds.config_source"))
		}
		unlogged, logs := withoutLogs(l)
		if err := errors.Join(listeners.Check(unlogged), openable(logs)); err != nil {
			errs = append(errs, fmt.Errorf("listener %s: %w", l.Name, err))
		}
	}
	if b.OutlierEvents != "" {
		if err := writableAll("event log", []string{b.OutlierEvents}); err != nil {
			errs = append(errs, fmt.Errorf("cluster_manager.outlier_detection.event_log_path: %w", err))
		}
	}
	if err := openable(b.AdminLog); err != nil {
		errs = append(errs, fmt.Errorf("admin.access_log: %w", err))
	}
	return errors.Join(errs...)
}

// checkServices says why the services of the bootstrap's own sources cannot be used.
func checkServices(b *config.Bootstrap) error {
	var errs []error
	for path, from := range map[string]*discovery.Source{"lds_config": b.LDS, "cds_config": b.CDS} {
		if from != nil {
			errs = append(errs, checkService(b, *from, "dynamic_resources."+path))
		}
	}
	if b.ADS != nil {
		errs = append(errs, checkService(b, discovery.Source{Stream: &b.ADS.Stream}, "dynamic_resources.ads_config"))
	}
	return errors.Join(errs...)
}

func checkService(b *config.Bootstrap, from discovery.Source, path string) error {
	if from.Stream == nil {
		return nil
	}
	if _, err := service(b, from.Stream); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// withoutLogs is a listener that opens no access log, and those that it has.
func withoutLogs(l *listener.Config) (*listener.Config, []telemetry.AccessLogConfig) {
	out := *l
	logs := append(out.AccessLog[:len(out.AccessLog):len(out.AccessLog)], out.RefusedLog...)
	out.AccessLog, out.RefusedLog = nil, nil
	each := func(c listener.FilterChain) listener.FilterChain {
		if c.HTTP != nil {
			http := *c.HTTP
			logs = append(logs, http.AccessLog...)
			if u := http.UpstreamLog; u != nil {
				logs = append(logs, u.Logs...)
			}
			http.AccessLog, http.UpstreamLog, c.HTTP = nil, nil, &http
		}
		if c.TCP != nil {
			tcp := *c.TCP
			logs = append(logs, tcp.AccessLog...)
			tcp.AccessLog, c.TCP = nil, &tcp
		}
		return c
	}
	out.Chains = nil
	for _, c := range l.Chains {
		out.Chains = append(out.Chains, each(c))
	}
	if l.Default != nil {
		c := each(*l.Default)
		out.Default = &c
	}
	return &out, logs
}

// openable says which access logs could not be opened.
func openable(logs []telemetry.AccessLogConfig) error {
	var paths []string
	for _, l := range logs {
		if l.Export == nil {
			paths = append(paths, l.Path)
		}
	}
	return writableAll("access log", paths)
}

func writableAll(noun string, paths []string) error {
	var errs []error
	told := map[string]bool{}
	for _, path := range paths {
		if told[path] || path == "/dev/stdout" || path == "/dev/stderr" {
			continue
		}
		told[path] = true
		if err := writable(path); err != nil {
			errs = append(errs, fmt.Errorf("%s %s: %w", noun, path, err))
		}
	}
	return errors.Join(errs...)
}

// writable says why a file could not be written to, or else be made.
func writable(path string) error {
	info, err := os.Stat(path)
	const mayWrite = 2
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return syscall.Access(filepath.Dir(path), mayWrite)
	case err != nil:
		return err
	case info.IsDir():
		return syscall.EISDIR
	}
	return syscall.Access(path, mayWrite)
}

package sidecar

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// What the aggregated stream has sent is kept for its service: not for another's, and no longer
// than a bootstrap has it.
func TestAggregatedStreamIsKept(t *testing.T) {
	one := newManager(t)
	one.publish(t, staticCluster(t, "a", 9), tcpListener(t, "in", "a", corev3.TrafficDirection_OUTBOUND))
	dir := t.TempDir()
	kept := func() (out []string) {
		files, err := filepath.Glob(filepath.Join(dir, "config-cache*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if !strings.HasSuffix(f, ".key") {
				out = append(out, f)
			}
		}
		return out
	}
	start := func(t *testing.T, service, socket string) *Sidecar {
		return run(t, "node: {id: n1, cluster: c}\ndynamic_resources:\n  lds_config: {ads: {}, resource_api_version: V3}\n  cds_config: {ads: {}, resource_api_version: V3}"+
			"\n  ads_config: {api_type: DELTA_GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: "+service+"}}]}"+
			"\nstatic_resources:\n  clusters:\n"+carrier(service, socket), func(c *Config) { c.StateDir = dir })
	}
	t.Run("first", func(t *testing.T) {
		s := start(t, "one", one.socket)
		eventually(t, "the listener", func() bool { return s.Addrs().Listeners["in"] != nil })
		eventually(t, "all is there", func() bool { return s.status().Synced })
	})
	one.server.Stop()
	t.Run("without its service", func(t *testing.T) {
		s := start(t, "one", one.socket)
		eventually(t, "the listener", func() bool { return s.Addrs().Listeners["in"] != nil })
	})
	t.Run("another", func(t *testing.T) {
		s := start(t, "other", one.socket)
		eventually(t, "an attempt", func() bool { return s.status().LastError != "" })
		if s.Addrs().Listeners["in"] != nil {
			t.Error("serves what another service has sent")
		}
	})
	// As of a sidecar whose control plane was another's than the bootstrap's.
	if err := os.WriteFile(filepath.Join(dir, "config-cache"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Run("none", func(t *testing.T) {
		run(t, "static_resources: {}", func(c *Config) { c.StateDir = dir })
		eventually(t, "nothing is kept", func() bool { return len(kept()) == 0 })
	})
	if _, err := os.Stat(filepath.Join(dir, "config-cache.key")); errors.Is(err, fs.ErrNotExist) {
		t.Error("the key of caches to come is gone")
	}
}

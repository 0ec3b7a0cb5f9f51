//go:build e2e && peers

package h2spec

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/e2e/conformance/bed"
)

// TestPeers prints how many cases each passes with the same job: HTTP/2 without TLS from clients,
// HTTP/1 to their origin.
func TestPeers(t *testing.T) {
	var table strings.Builder
	table.WriteString("| | of 145 | of 1 strict one | fails |\n|---|---|---|---|\n")
	for _, p := range []struct {
		name  string
		start func(t *testing.T, addr, origin string)
	}{{"Hauberk", startHauberk}, {"HAProxy", startHAProxy}, {"Envoy", startEnvoy}, {"nginx", startNginx}} {
		addr := bed.Addr(t)
		p.start(t, addr, origin(t))
		results := asClient(t, addr)
		of, _, strict := passed(results)
		var fails []string
		for _, r := range results {
			if r.Error != "" || r.Skipped {
				fails = append(fails, r.id())
			}
		}
		fmt.Fprintf(&table, "| %s | %d | %d | %s |\n", p.name, of, strict, strings.Join(fails, " "))
	}
	fmt.Print(&table)
}

func startHauberk(t *testing.T, addr, origin string) {
	bed.StartFile(t, bootstrap(t, "HTTP2", addr, bed.Addr(t), upstream{name: "origin", addr: origin}), addr)
}

func startEnvoy(t *testing.T, addr, origin string) {
	file := bootstrap(t, "HTTP2", addr, bed.Addr(t), upstream{name: "origin", addr: origin})
	run(t, addr, os.Getenv("ENVOY_BIN"), file, "--use-dynamic-base-id", "-l", "off", "-c")
}

func startHAProxy(t *testing.T, addr, origin string) {
	run(t, addr, "haproxy", fmt.Sprintf("defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n"+
		"frontend in\n  bind %s proto h2\n  default_backend origin\nbackend origin\n  server s %s\n", addr, origin), "-db", "-f")
}

// startNginx has it write its process id where it may remove that at its end: at /dev/null it would
// remove the device.
func startNginx(t *testing.T, addr, origin string) {
	dir := t.TempDir()
	run(t, addr, "nginx", fmt.Sprintf("worker_processes 1; daemon off; error_log %s/log; pid %s/pid; events {}\n"+
		"http { access_log off; server { listen %s http2; location / { proxy_pass http://%s; proxy_http_version 1.1; } } }\n", dir, dir, addr, origin), "-c")
}

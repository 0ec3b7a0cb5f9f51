package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/hauberk-mesh/hauberk/cmd/hauberk/client"
	"github.com/hauberk-mesh/hauberk/cmd/hauberk/internal/process"
	"github.com/hauberk-mesh/hauberk/controlplane/server/api"
	freeport "github.com/hauberk-mesh/hauberk/internal/ports"
)

// ports are the loopback ports of one run.
type ports struct {
	web, apiV1, apiV2, db, quotes         int // applications
	webMesh, v1Mesh, v2Mesh, dbM, quotesM int // their sidecars' mTLS
	webToAPI, webToQuotes, v1ToDB, v2ToDB int // upstreams
	xds                                   int
}

func addr(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// pickPorts picks ports that stay free until their programs bind them.
func pickPorts() (p ports, err error) {
	for _, to := range []*int{&p.web, &p.apiV1, &p.apiV2, &p.db, &p.webMesh, &p.v1Mesh, &p.v2Mesh, &p.dbM, &p.quotes, &p.quotesM,
		&p.webToAPI, &p.webToQuotes, &p.v1ToDB, &p.v2ToDB, &p.xds} {
		if *to, err = freeport.Free("127.0.0.1"); err != nil {
			return p, err
		}
	}
	return p, nil
}

// service is one application of the demo.
type service struct {
	id, name, role, version string
	port, mesh              int
	upstreams               []upstream
}

// upstream is a service that an application calls at a loopback port, which it is told
// by a flag.
type upstream struct {
	service, flag string
	port          int
}

func (p ports) services() []service {
	return []service{
		{id: "db", name: "db", role: "db", port: p.db, mesh: p.dbM},
		{id: "api-v1", name: "api", role: "api", version: "v1", port: p.apiV1, mesh: p.v1Mesh, upstreams: []upstream{{"db", "--upstream", p.v1ToDB}}},
		{id: "api-v2", name: "api", role: "api", version: "v2", port: p.apiV2, mesh: p.v2Mesh, upstreams: []upstream{{"db", "--upstream", p.v2ToDB}}},
		{id: "quotes", name: "quotes", role: "quotes", port: p.quotes, mesh: p.quotesM},
		{id: "web", name: "web", role: "web", port: p.web, mesh: p.webMesh,
			upstreams: []upstream{{"api", "--upstream", p.webToAPI}, {"quotes", "--quotes", p.webToQuotes}}},
	}
}

func (d *demo) up(ctx context.Context) error {
	var err error
	if d.ports, err = pickPorts(); err != nil {
		return err
	}
	if err := d.source.start(ctx, d); err != nil {
		return err
	}
	fmt.Fprintf(d.out, "source         %s\n", d.source.describe())
	if err := d.startControlPlane(ctx); err != nil {
		return err
	}
	for _, s := range d.ports.services() {
		if err := d.startService(ctx, s); err != nil {
			return err
		}
	}
	return d.awaitMesh(ctx)
}

func (d *demo) startControlPlane(ctx context.Context) error {
	d.socket = d.path("cp.sock")
	args := append([]string{"run",
		"--trust-domain", trustDomain,
		"--id", "demo",
		"--state-dir", d.path("controlplane"),
		"--xds-address", addr(d.ports.xds),
		"--api-address", "127.0.0.1:0",
		"--socket", d.socket,
	}, d.source.controlPlaneArgs()...)
	p, err := d.spawn("controlplane", "hauberk-controlplane", d.source.env(), args...)
	if err != nil {
		return err
	}
	if d.api, err = client.New("unix://"+d.socket, nil); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	err = process.Poll(ctx, p, 50*time.Millisecond, func(ctx context.Context) error {
		var st api.Status
		if err := d.api.Get(ctx, api.StatusPath, &st); err != nil {
			return err
		}
		if !st.Source.Synced {
			return errors.New("the catalog is not in sync yet")
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, d.logTail("controlplane"))
	}
	fmt.Fprintf(d.out, "control plane  %s, trust domain %s\n", addr(d.ports.xds), trustDomain)
	return nil
}

func (d *demo) mint(ctx context.Context, node, service string) (string, error) {
	var reply api.TokenReply
	err := d.api.Post(ctx, api.TokensPath, api.TokenRequest{Node: node, Services: []string{service}}, &reply)
	return reply.Token, err
}

func (d *demo) startService(ctx context.Context, s service) error {
	token, err := d.mint(ctx, s.id, s.name)
	if err != nil {
		return fmt.Errorf("join token for %s: %w", s.id, err)
	}
	file := d.path(s.id + ".token")
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		return err
	}
	args := []string{"run",
		"--service", s.name, "--id", s.id, "--port", strconv.Itoa(s.port),
		"--mesh-port", strconv.Itoa(s.mesh),
		"--token-file", file,
		"--state-dir", d.path("sidecar-" + s.id),
		"--access-log", d.accessLog(s.id), "--access-log-format", "json",
		"--settle", "500ms", "--drain-time", "5s", "--stop-timeout", "5s",
	}
	if s.version != "" {
		args = append(args, "--meta", "version="+s.version)
	}
	app := []string{"demo", "service", "--role", s.role, "--listen", addr(s.port), "--version", s.version}
	for _, u := range s.upstreams {
		args = append(args, "--upstream", fmt.Sprintf("%s:%d", u.service, u.port))
		app = append(app, u.flag, addr(u.port))
	}
	args = append(args, d.source.runArgs()...)
	args = append(args, "--", d.bin+"/hauberk")
	_, err = d.spawn(s.id, "hauberk", d.source.env(), append(args, app...)...)
	return err
}

// awaitMesh waits until every service is up, every sidecar in sync, and a
// request gets through.
func (d *demo) awaitMesh(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 45*time.Second)
	defer cancel()
	for i, s := range d.ports.services() {
		err := process.Poll(ctx, d.procs[i+1], 100*time.Millisecond, func(ctx context.Context) error {
			return d.serviceUp(ctx, s)
		})
		if err != nil {
			return fmt.Errorf("%s: %w\n%s", s.id, err, d.logTail(s.id))
		}
		fmt.Fprintf(d.out, "up             %-7s application %s, mTLS %s\n", s.id, addr(s.port), addr(s.mesh))
	}
	return process.Poll(ctx, d.procs[0], 100*time.Millisecond, func(ctx context.Context) error {
		code, _, err := d.get(ctx, "/answer", "")
		if err == nil && code != 200 {
			err = fmt.Errorf("web answers %d", code)
		}
		return err
	})
}

func (d *demo) serviceUp(ctx context.Context, s service) error {
	var st api.Status
	if err := d.api.Get(ctx, api.StatusPath, &st); err != nil {
		return err
	}
	for _, sc := range st.Sidecars {
		if sc.Node == s.id && sc.State != "synced" {
			return fmt.Errorf("its sidecar is %s: %s", sc.State, sc.Why)
		}
	}
	want := 0
	for _, x := range d.ports.services() {
		if x.name == s.name {
			want++
		}
	}
	for _, x := range st.Services {
		if x.Name == s.name && x.Passing == want {
			return nil
		}
	}
	return fmt.Errorf("%s has fewer than %d passing instances", s.name, want)
}

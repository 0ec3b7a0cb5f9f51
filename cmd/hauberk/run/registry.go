package run

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
)

// registration is what is told to the registry about the application and its
// sidecar.
type registration struct {
	Service   string
	ID        string
	Node      string // the Hauberk node whose sidecar serves it
	App       hostPort
	Mesh      hostPort
	Upstreams []upstream
	Tags      []string
	Meta      map[string]string
}

type hostPort struct {
	Host string
	Port int
}

func (h hostPort) String() string { return net.JoinHostPort(h.Host, strconv.Itoa(h.Port)) }

// upstream is a service the application calls, at a loopback address of its own.
type upstream struct {
	Service string
	Bind    hostPort
}

// registry is where the service is made known. Announce makes the sidecar's
// configuration possible while peers do not use the instance yet; Ready lets
// them; Withdraw takes the instance away.
type registry interface {
	Announce(context.Context, *registration) error
	Ready(context.Context, *registration) error
	Withdraw(context.Context, *registration) error
}

func (r *registration) meta() map[string]string {
	m := map[string]string{catalog.NodeMeta: r.Node}
	for k, v := range r.Meta {
		m[k] = v
	}
	return m
}

func (r *registration) proxy() *api.AgentServiceConnectProxyConfig {
	p := &api.AgentServiceConnectProxyConfig{
		LocalServiceAddress: r.App.Host,
		LocalServicePort:    r.App.Port,
	}
	for _, u := range r.Upstreams {
		p.Upstreams = append(p.Upstreams, api.Upstream{
			DestinationName:  u.Service,
			LocalBindAddress: u.Bind.Host,
			LocalBindPort:    u.Bind.Port,
		})
	}
	return p
}

// consulRegistry registers with the local Consul agent. Consul's own checks
// keep peers away until the application and the sidecar accept connections.
type consulRegistry struct {
	agent *api.Agent
}

func newConsulRegistry() (*consulRegistry, error) {
	c, err := api.NewClient(api.DefaultConfig())
	if err != nil {
		return nil, fmt.Errorf("consul: %w", err)
	}
	return &consulRegistry{agent: c.Agent()}, nil
}

const checkInterval = "1s"

func (c *consulRegistry) Announce(ctx context.Context, r *registration) error {
	sidecar := &api.AgentServiceRegistration{
		Port:    r.Mesh.Port,
		Address: r.Mesh.Host,
		Proxy:   r.proxy(),
		Meta:    r.meta(),
		Tags:    r.Tags,
		Checks: api.AgentServiceChecks{
			{Name: "sidecar accepts connections", TCP: r.Mesh.String(), Interval: checkInterval, Timeout: "2s"},
			{Name: "application", AliasService: r.ID},
		},
	}
	reg := &api.AgentServiceRegistration{
		ID:      r.ID,
		Name:    r.Service,
		Address: r.App.Host,
		Port:    r.App.Port,
		Tags:    r.Tags,
		Meta:    r.meta(),
		Checks: api.AgentServiceChecks{
			{Name: "application accepts connections", TCP: r.App.String(), Interval: checkInterval, Timeout: "2s"},
		},
		Connect: &api.AgentServiceConnect{SidecarService: sidecar},
	}
	opts := api.ServiceRegisterOpts{ReplaceExistingChecks: true}.WithContext(ctx)
	if err := c.agent.ServiceRegisterOpts(reg, opts); err != nil {
		return fmt.Errorf("register %s with consul: %w (CONSUL_HTTP_ADDR says where its agent is, --registry files does without)", r.ID, err)
	}
	return nil
}

// Ready has nothing to do: the checks decide.
func (c *consulRegistry) Ready(context.Context, *registration) error { return nil }

func (c *consulRegistry) Withdraw(ctx context.Context, r *registration) error {
	opts := (&api.QueryOptions{}).WithContext(ctx)
	// The sidecar goes with the service it belongs to.
	if err := c.agent.ServiceDeregisterOpts(r.ID, opts); err != nil {
		return fmt.Errorf("deregister %s from consul: %w", r.ID, err)
	}
	return nil
}

// filesRegistry writes a service stanza into the directory that a control plane
// reads, one file per instance, replaced as a whole.
type filesRegistry struct {
	dir string
}

func (f *filesRegistry) path(r *registration) string {
	return filepath.Join(f.dir, "run-"+r.ID+".json")
}

// Files have no health checks; a weight of zero keeps peers away meanwhile.
func (f *filesRegistry) Announce(_ context.Context, r *registration) error { return f.write(r, 0) }

func (f *filesRegistry) Ready(_ context.Context, r *registration) error { return f.write(r, 1) }

func (f *filesRegistry) Withdraw(_ context.Context, r *registration) error {
	if err := os.Remove(f.path(r)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("deregister %s: %w", r.ID, err)
	}
	return nil
}

func (f *filesRegistry) write(r *registration, weight int) error {
	weights := map[string]int{"passing": weight, "warning": weight}
	var upstreams []map[string]any
	for _, u := range r.Upstreams {
		upstreams = append(upstreams, map[string]any{
			"destination_name":   u.Service,
			"local_bind_address": u.Bind.Host,
			"local_bind_port":    u.Bind.Port,
		})
	}
	proxy := map[string]any{
		"local_service_address": r.App.Host,
		"local_service_port":    r.App.Port,
	}
	if len(upstreams) > 0 {
		proxy["upstreams"] = upstreams
	}
	doc := map[string]any{"service": map[string]any{
		"id": r.ID, "name": r.Service, "address": r.App.Host, "port": r.App.Port,
		"tags": r.Tags, "meta": r.meta(), "weights": weights,
		"connect": map[string]any{"sidecar_service": map[string]any{
			"address": r.Mesh.Host, "port": r.Mesh.Port,
			"tags": r.Tags, "meta": r.meta(), "weights": weights,
			"proxy": proxy,
		}},
	}}
	b, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return err
	}
	// A dot file is not read; the rename makes it appear complete.
	tmp := filepath.Join(f.dir, ".run-"+r.ID+"."+strconv.FormatInt(time.Now().UnixNano(), 36))
	if err := os.WriteFile(tmp, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("register %s: %w", r.ID, err)
	}
	if err := os.Rename(tmp, f.path(r)); err != nil {
		return errors.Join(fmt.Errorf("register %s: %w", r.ID, err), os.Remove(tmp))
	}
	return nil
}

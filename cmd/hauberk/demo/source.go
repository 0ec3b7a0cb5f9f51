package demo

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/source/decode"
	"github.com/hauberk-mesh/hauberk/e2e/consultest"
)

//go:embed config/*.hcl
var configFiles embed.FS

// knobs are what DEMO_BREAK turns.
type knobs struct {
	V1, V2   int
	Retry    bool
	Intruder bool
}

// configs renders the demo's config entries, by file name.
func (d *demo) configs() (map[string][]byte, error) {
	k := knobs{V1: 90, V2: 10, Retry: d.breaking != "retry", Intruder: d.breaking == "identity"}
	if d.breaking == "split" {
		k.V1, k.V2 = 50, 50
	}
	t, err := template.ParseFS(configFiles, "config/*.hcl")
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	for _, f := range t.Templates() {
		var b bytes.Buffer
		if err := f.Execute(&b, k); err != nil {
			return nil, err
		}
		out[path.Base(f.Name())] = b.Bytes()
	}
	return out, nil
}

// chooseSource: files, unless a Consul is asked for.
func chooseSource() (catalogSource, error) {
	if !truthy(os.Getenv("CONSUL")) {
		return &filesSource{}, nil
	}
	return &consulSource{}, nil
}

// filesSource is a directory that the control plane watches.
type filesSource struct{ dir string }

func (f *filesSource) start(_ context.Context, d *demo) error {
	f.dir = d.path("config")
	if err := os.Mkdir(f.dir, 0o755); err != nil {
		return err
	}
	files, err := d.configs()
	if err != nil {
		return err
	}
	files["settings.hcl"] = []byte("hauberk {\n  datacenter               = \"dc1\"\n  default_intention_policy = \"deny\"\n}\n")
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(f.dir, name), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (f *filesSource) controlPlaneArgs() []string {
	return []string{"--source", "files", "--files-dir", f.dir}
}

func (f *filesSource) runArgs() []string {
	return []string{"--registry", "files", "--files-dir", f.dir}
}

func (f *filesSource) env() []string    { return nil }
func (f *filesSource) describe() string { return "files in " + f.dir }
func (f *filesSource) stop() error      { return nil }

// consulSource is a real Consul: the one CONSUL_HTTP_ADDR names, else one that
// is built and started for the demo.
type consulSource struct {
	own     *consultest.Server
	client  *api.Client
	address string
	written []api.ConfigEntry
}

func (c *consulSource) start(ctx context.Context, d *demo) error {
	c.address = os.Getenv("CONSUL_HTTP_ADDR")
	if c.address == "" {
		own, err := consultest.Start(ctx, consultest.Options{Dir: d.path("consul"), Progress: d.err})
		if err != nil {
			return err
		}
		c.own, c.address = own, own.HTTPAddr()
	}
	cfg := api.DefaultConfig()
	cfg.Address = c.address
	var err error
	if c.client, err = api.NewClient(cfg); err != nil {
		return err
	}
	return c.writeEntries(ctx, d)
}

func (c *consulSource) writeEntries(ctx context.Context, d *demo) error {
	files, err := d.configs()
	if err != nil {
		return err
	}
	var entries []api.ConfigEntry
	for name, b := range files {
		nodes, err := decode.Parse(name, b)
		if err != nil {
			return err
		}
		for _, n := range nodes {
			e, _, err := decode.Entry(n, decode.Strict)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			entries = append(entries, e)
		}
	}
	// Consul refuses an entry before those it builds on.
	order := map[string]int{api.ProxyDefaults: 0, api.ServiceDefaults: 1, api.ServiceResolver: 2, api.ServiceSplitter: 3, api.ServiceRouter: 4, api.ServiceIntentions: 5}
	for rank := range len(order) {
		for _, e := range entries {
			if order[e.GetKind()] != rank {
				continue
			}
			if err := c.write(ctx, e); err != nil {
				return err
			}
		}
	}
	return nil
}

// write never replaces what is somebody else's.
func (c *consulSource) write(ctx context.Context, e api.ConfigEntry) error {
	_, _, err := c.client.ConfigEntries().Get(e.GetKind(), e.GetName(), (&api.QueryOptions{}).WithContext(ctx))
	if err == nil {
		return fmt.Errorf("consul at %s has %s/%s already; the demo would overwrite it: use another Consul", c.address, e.GetKind(), e.GetName())
	}
	var status api.StatusError
	if !errors.As(err, &status) || status.Code != 404 {
		return fmt.Errorf("consul at %s: %w", c.address, err)
	}
	if _, _, err := c.client.ConfigEntries().Set(e, (&api.WriteOptions{}).WithContext(ctx)); err != nil {
		return fmt.Errorf("consul at %s: write %s/%s: %w", c.address, e.GetKind(), e.GetName(), err)
	}
	c.written = append(c.written, e)
	return nil
}

func (c *consulSource) controlPlaneArgs() []string { return []string{"--source", "consul"} }
func (c *consulSource) runArgs() []string          { return []string{"--registry", "consul"} }
func (c *consulSource) env() []string              { return []string{"CONSUL_HTTP_ADDR=" + c.address} }

func (c *consulSource) describe() string {
	whose := "found at CONSUL_HTTP_ADDR"
	if c.own != nil {
		whose = "started for the demo"
	}
	return "consul at " + strings.TrimPrefix(c.address, "http://") + ", " + whose
}

func (c *consulSource) stop() error {
	var errs []error
	if c.own == nil && c.client != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		for i := len(c.written) - 1; i >= 0; i-- {
			e := c.written[i]
			if _, err := c.client.ConfigEntries().Delete(e.GetKind(), e.GetName(), (&api.WriteOptions{}).WithContext(ctx)); err != nil {
				errs = append(errs, fmt.Errorf("remove %s/%s from consul: %w", e.GetKind(), e.GetName(), err))
			}
		}
	}
	if c.own != nil {
		errs = append(errs, c.own.Stop())
	}
	return errors.Join(errs...)
}

package sidecar

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/config"
	"github.com/hauberk-mesh/hauberk/sidecar/files"
	"github.com/hauberk-mesh/hauberk/sidecar/listener"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/xds/client"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// filed is what files of resources have, read and put in force nowhere. It is the Handler of a
// check.
type filed struct {
	source    *files.Source
	bootstrap *config.Bootstrap
	addresses addresses
	clusters  []*cluster.Config
	listeners []*listener.Config
}

// readFiles reads all files that a bootstrap names, and those that they name.
func readFiles(b *config.Bootstrap) (*filed, error) {
	f := &filed{bootstrap: b, addresses: addresses{}}
	var errs []error
	static := func(name string) bool {
		return slices.ContainsFunc(b.Clusters, func(c *cluster.Config) bool { return c.Name == name })
	}
	for _, l := range b.Listeners {
		errs = append(errs, f.addresses.claim(l), config.MissingOfListener(l, static))
	}
	f.source = files.New(files.Options{All: b.Files, Handler: f, Log: slog.New(slog.DiscardHandler)})
	for _, c := range b.Clusters {
		f.endpointsOf(c)
	}
	for _, l := range b.Listeners {
		f.routesOf(l)
	}
	return f, errors.Join(append(errs, f.source.Load())...)
}

// claim takes the addresses of a listener, which no other may have.
func (a addresses) claim(l *listener.Config) error {
	err := a.clash(l)
	a.occupy(l.Name, []*listener.Config{l})
	return err
}

// Apply implements client.Handler.
func (f *filed) Apply(u client.Update) map[string]error {
	errs := map[string]error{}
	for _, r := range u.Upserts {
		if err := f.take(r); err != nil {
			errs[r.Name] = err
		}
	}
	return errs
}

func (f *filed) take(r *resource.Resource) error {
	switch r.Type {
	case resource.ClusterType:
		c, err := read(f.bootstrap.Runtime.Cluster, r)
		if slices.ContainsFunc(f.bootstrap.Clusters, func(c *cluster.Config) bool { return c.Name == r.Name }) {
			err = errStatic("cluster")
		}
		if err == nil && c.Type == cluster.EDS {
			err = f.bootstrap.Comes(edsName(c), c.Discovery)
		}
		if err == nil {
			f.clusters = append(f.clusters, c)
			f.endpointsOf(c)
		}
		return err
	case resource.ListenerType:
		l, err := read(f.bootstrap.Runtime.Listener, r)
		if slices.ContainsFunc(f.bootstrap.Listeners, func(l *listener.Config) bool { return l.Name == r.Name }) {
			err = errStatic("listener")
		}
		if err == nil {
			err = f.bootstrap.RoutesCome(l)
		}
		if err == nil && !f.bootstrap.StreamsClusters() {
			err = config.MissingOfListener(l, f.known)
		}
		if err == nil {
			err = f.addresses.claim(l)
		}
		if err == nil {
			f.listeners = append(f.listeners, l)
			f.routesOf(l)
		}
		return err
	case resource.RouteType:
		c, err := read(f.bootstrap.Runtime.Route, r)
		if err == nil && !f.bootstrap.StreamsClusters() {
			err = config.MissingCluster(c, f.known)
		}
		if err == nil {
			_, err = route.Compile(c)
		}
		return err
	case resource.EndpointType:
		a, err := read(config.Assignment, r)
		if err == nil {
			err = f.taken(a, r.Name)
		}
		return err
	}
	return fmt.Errorf("%s is not discovered in files", r.Type)
}

// known tells whether there is a cluster, in a file or the bootstrap.
func (f *filed) known(name string) bool {
	return slices.ContainsFunc(f.all(), func(c *cluster.Config) bool { return c.Name == name })
}

func (f *filed) all() []*cluster.Config { return slices.Concat(f.clusters, f.bootstrap.Clusters) }

// taken says why a cluster that asks for endpoints by a name cannot have those.
func (f *filed) taken(a *cluster.Assignment, name string) error {
	for _, c := range f.all() {
		if c.Type != cluster.EDS || edsName(c) != name {
			continue
		}
		if err := cmp.Or(c.Takes(a), f.bootstrap.Own.Takes(c.Name, a)); err != nil {
			return fmt.Errorf("for cluster %s: %w", c.Name, err)
		}
	}
	return nil
}

func (f *filed) endpointsOf(c *cluster.Config) {
	if c.Type == cluster.EDS {
		f.source.Subscribe(resource.EndpointType, edsName(c))
	}
}

func (f *filed) routesOf(l *listener.Config) {
	f.source.Subscribe(resource.RouteType, config.ListenerRefs(l).Routes...)
}

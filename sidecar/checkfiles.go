package sidecar

import (
	"fmt"
	"log/slog"

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
	clusters  []*cluster.Config
	listeners []*listener.Config
}

// readFiles reads all files that a bootstrap names, and those that they name.
func readFiles(b *config.Bootstrap) (*filed, error) {
	f := &filed{}
	f.source = files.New(files.Options{All: b.Files, Handler: f, Log: slog.New(slog.DiscardHandler)})
	for _, c := range b.Clusters {
		f.endpointsOf(c)
	}
	for _, l := range b.Listeners {
		f.routesOf(l)
	}
	return f, f.source.Load()
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
		c, err := read(config.Cluster, r)
		if err == nil {
			f.clusters = append(f.clusters, c)
			f.endpointsOf(c)
		}
		return err
	case resource.ListenerType:
		l, err := read(config.Listener, r)
		if err == nil {
			f.listeners = append(f.listeners, l)
			f.routesOf(l)
		}
		return err
	case resource.RouteType:
		c, err := read(config.Route, r)
		if err == nil {
			_, err = route.Compile(c)
		}
		return err
	case resource.EndpointType:
		_, err := read(config.Assignment, r)
		return err
	}
	return fmt.Errorf("%s is not discovered in files", r.Type)
}

func (f *filed) endpointsOf(c *cluster.Config) {
	if c.Type == cluster.EDS {
		f.source.Subscribe(resource.EndpointType, edsName(c))
	}
}

func (f *filed) routesOf(l *listener.Config) {
	f.source.Subscribe(resource.RouteType, config.ListenerRefs(l).Routes...)
}

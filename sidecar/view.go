package sidecar

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/hauberk-mesh/hauberk/identity/svid"
	"github.com/hauberk-mesh/hauberk/internal/altname"
	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/files"
	"github.com/hauberk-mesh/hauberk/sidecar/listener"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// view is the sidecar as its admin interface shows and changes it.
type view Sidecar

// Ready tells whether traffic can be served, and if not, why.
func (v *view) Ready() (bool, string) {
	s := (*Sidecar)(v)
	if s.watcher.Draining() {
		return false, "draining"
	}
	var why []string
	if s.agent != nil {
		select {
		case <-s.agent.Ready():
		default:
			return false, "waiting for the node's identity"
		}
	}
	if why := s.unconfigured(); why != "" {
		return false, why
	}
	why = append(why, s.missing()...)
	why = append(why, s.state.unready()...)
	if len(why) > 0 {
		slices.Sort(why)
		return false, strings.Join(why, "; ")
	}
	return true, "ready"
}

// ConfigDump is everything in force. Certificates and keys are in it by name
// only.
func (v *view) ConfigDump() any {
	s := (*Sidecar)(v)
	clusters := []*cluster.Config{}
	for _, c := range s.clusters.All() {
		clusters = append(clusters, c.Config())
	}
	found := []files.Status{}
	if s.files != nil {
		found = s.files.Status()
	}
	return map[string]any{
		"files": found, "version": s.cfg.Version, "node": s.node(), "xds": s.status(), "streams": s.streamsStatus(), "pending": s.state.pending(),
		"listeners": s.listeners.Configs(), "clusters": clusters, "routes": s.state.routes.all(),
	}
}

type clusterView struct {
	Name  string              `json:"name"`
	Hosts []cluster.HostStats `json:"hosts"`
}

// Clusters is the state of every endpoint.
func (v *view) Clusters() any {
	out := []clusterView{}
	for _, c := range v.clusters.All() {
		out = append(out, clusterView{c.Name(), c.Stats()})
	}
	return out
}

type certView struct {
	ID        string    `json:"id"`
	Serial    string    `json:"serial"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	DaysLeft  int       `json:"days_left"`
}

// Certs are the own identities and the trust anchors; never keys.
func (v *view) Certs() any {
	own, anchors := []certView{}, map[string][]certView{}
	if snap := v.tls.snapshot(); snap != nil {
		for _, id := range slices.Sorted(maps.Keys(snap.SVIDs)) {
			own = append(own, describe(id, snap.SVIDs[id].Leaf().SerialNumber.Text(16), snap.SVIDs[id].Leaf().NotBefore, snap.SVIDs[id].Leaf().NotAfter))
		}
		addAnchors(anchors, snap)
	}
	for _, leaf := range v.tls.files() {
		own = append(own, describe(nameOf(leaf), leaf.SerialNumber.Text(16), leaf.NotBefore, leaf.NotAfter))
	}
	for file, certs := range v.tls.contexts.Anchors() {
		for _, c := range certs {
			of := file
			if len(c.URIs) == 1 && c.URIs[0].Scheme == "spiffe" {
				of = c.URIs[0].Host
			}
			anchors[of] = append(anchors[of], describe(nameOf(c), c.SerialNumber.Text(16), c.NotBefore, c.NotAfter))
		}
	}
	return map[string]any{"svids": own, "trust_bundles": anchors, "trust": (*Sidecar)(v).trustView()}
}

// nameOf is the name by which people know a certificate.
func nameOf(leaf *x509.Certificate) string {
	switch {
	case len(leaf.URIs) > 0:
		return altname.URIs(leaf)[0]
	case len(leaf.DNSNames) > 0:
		return leaf.DNSNames[0]
	}
	return leaf.Subject.String()
}

func addAnchors(to map[string][]certView, snap *svid.Snapshot) {
	for td, b := range snap.Bundles {
		for _, c := range b.Certificates {
			to[td] = append(to[td], describe("spiffe://"+td, c.SerialNumber.Text(16), c.NotBefore, c.NotAfter))
		}
	}
}

func describe(id, serial string, from, to time.Time) certView {
	return certView{id, serial, from, to, int(math.Floor(time.Until(to).Hours() / 24))}
}

type listenerView struct {
	Name        string `json:"name"`
	Address     string `json:"address"`
	Workload    string `json:"workload,omitempty"`
	Service     string `json:"service,omitempty"`
	Upstream    string `json:"upstream,omitempty"`
	Direction   string `json:"direction"`
	Connections int    `json:"connections"`
	// Error is why it is not what was asked for last; it has no address where there was none before.
	Error string `json:"error,omitempty"`
}

// Listeners are the bound addresses, and what keeps one from being bound.
func (v *view) Listeners() any {
	open := map[string]int{}
	for _, c := range v.listeners.Conns() {
		open[c.Listener]++
	}
	addrs, failed := v.listeners.Addrs(), v.state.failures()
	out := []listenerView{}
	for _, l := range v.listeners.Configs() {
		lv := listenerView{
			Name: l.Name, Workload: l.Workload, Service: l.Service, Upstream: l.Upstream,
			Direction: telemetry.Direction(l.Direction).String(), Connections: open[l.Name],
		}
		if a := addrs[l.Name]; a != nil {
			lv.Address = a.String()
		}
		if err := failed[l.Name]; err != nil {
			lv.Error = err.Error()
			delete(failed, l.Name)
		}
		out = append(out, lv)
	}
	for _, name := range slices.Sorted(maps.Keys(failed)) {
		out = append(out, listenerView{Name: name, Error: failed[name].Error()})
	}
	return out
}

// WriteMetrics writes Prometheus text, with used only what has counted anything.
func (v *view) WriteMetrics(w io.Writer, used bool) error {
	connected := 0.0
	if (*Sidecar)(v).status().Connected {
		connected = 1
	}
	v.metrics.XDSConnected.With().Set(connected)
	if used {
		return v.metrics.Registry.WriteUsed(w)
	}
	return v.metrics.Registry.WritePrometheus(w)
}

// Drain finishes what is under way: of the inbound side, or of all. It is an error that
// connections are left.
func (v *view) Drain(ctx context.Context, inbound bool, wait time.Duration) error {
	s := (*Sidecar)(v)
	if wait <= 0 || wait > s.cfg.DrainTime {
		wait = s.cfg.DrainTime
	}
	left := func() int { return len(s.listeners.Conns()) }
	if inbound {
		s.inbound.Drain(time.Now().Add(wait))
		s.state.drainInbound()
		left = s.inboundConns
	} else {
		s.metrics.Draining.With().Set(1)
		s.trigger.Drain(time.Now().Add(wait))
	}
	cut := s.listeners.Cut()
	n := s.settled(ctx, wait, left)
	if n == 0 {
		n = int(s.listeners.Cut() - cut) // none is left, because time was over
	}
	switch {
	case n == 0:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("the drain goes on, connections are left: %d", n)
	case inbound:
		return fmt.Errorf("connections are left after %s: %d", wait, n)
	}
	return fmt.Errorf("connections were left after %s, and are closed: %d", wait, n)
}

// inboundConns is how many connections peers have.
func (s *Sidecar) inboundConns() (n int) {
	for _, c := range s.listeners.Conns() {
		if c.Direction == telemetry.Direction(listener.Inbound) {
			n++
		}
	}
	return n
}

// Quit ends the process.
func (v *view) Quit() { v.quit() }

// ReopenLogs opens the access logs again, after they were rotated.
func (v *view) ReopenLogs() { v.logs.Reopen() }

// String describes what the sidecar is doing in a line.
func (v *view) String() string {
	ok, why := v.Ready()
	b, _ := json.Marshal(why)
	return fmt.Sprintf("ready=%v reason=%s", ok, b)
}

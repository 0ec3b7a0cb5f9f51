package server

import (
	"fmt"
	"net/http"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/compile"
	"github.com/hauberk-mesh/hauberk/controlplane/server/api"
	"github.com/hauberk-mesh/hauberk/identity/spiffe"
	"github.com/hauberk-mesh/hauberk/xds/ads"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// shortTypes are the names operators call resource types by.
var shortTypes = map[string]string{
	resource.ListenerType: "LDS",
	resource.RouteType:    "RDS",
	resource.ClusterType:  "CDS",
	resource.EndpointType: "EDS",
}

func strconvQuote(s string) string { return strconv.Quote(s) }

// services lists what has mesh endpoints, with its protocol.
func services(snap *catalog.Snapshot) []api.Service {
	out := []api.Service{}
	// Consul lists each sidecar's registration as a service of its own.
	sidecars := map[string]bool{}
	for _, instances := range snap.Instances {
		for _, i := range instances {
			if i.Proxy != nil {
				sidecars[i.Entry.Service.Service] = true
			}
		}
	}
	for name, instances := range snap.Instances {
		if sidecars[name.Service] && len(instances) == 0 {
			continue
		}
		s := api.Service{Name: name.Service, Total: len(instances)}
		if name.Datacenter != snap.Datacenter {
			s.Name = name.String()
		}
		for _, i := range instances {
			if i.Health == catalog.Passing || i.Health == catalog.Warning {
				s.Passing++
			}
		}
		if chain, _, err := compile.CompileChain(snap, name); err == nil {
			s.Protocol = chain.Protocol
		}
		out = append(out, s)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

// nodeOf returns the node name of a session, which its certificate proves.
func nodeOf(s ads.SessionStatus) string {
	id, err := spiffe.Parse(s.Client.PeerID)
	if err != nil || id.Kind != spiffe.Node {
		return s.Client.PeerID
	}
	return id.Name
}

// sidecarOf describes a session for people.
func sidecarOf(s ads.SessionStatus) api.Sidecar {
	out := api.Sidecar{
		Node:      nodeOf(s),
		SPIFFEID:  s.Client.PeerID,
		Version:   strings.TrimSpace(s.Client.UserAgent + " " + s.Client.Version),
		Connected: true,
		Since:     s.Since,
		State:     "synced",
		LastAck:   s.LastAck,
		Types:     map[string]api.TypeState{},
	}
	for _, t := range s.Types {
		short := shortTypes[t.Type]
		if short == "" {
			continue
		}
		out.Types[short] = api.TypeState{Acked: t.Acked, Rejected: t.Nacked, Pending: t.Subscribed - t.Acked - t.Nacked}
		if t.Nacked > 0 {
			out.State = "rejected"
			out.Why = fmt.Sprintf("%s: %s", short, t.LastError)
		}
	}
	if out.State == "synced" && !s.InSync {
		out.State = "stale"
		out.Why = "sent, not acknowledged yet; last acknowledgement " + ago(s.LastAck)
	}
	return out
}

func ago(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return time.Since(t).Round(time.Second).String() + " ago"
}

// resourcesOf lists what a session is to have, in push order, with its bodies
// as JSON.
func resourcesOf(s ads.SessionStatus, held map[[2]string]*resource.Resource, types []string) ([]api.Resource, error) {
	out := []api.Resource{}
	for _, t := range s.Types {
		short := shortTypes[t.Type]
		if short == "" || (len(types) > 0 && !slices.Contains(types, short)) {
			continue
		}
		for _, r := range t.Resources {
			x := api.Resource{Type: short, Name: r.Name, Version: r.Version, State: stateName(r.State), Error: r.Error}
			x.Body = []byte("null")
			if res := held[[2]string{t.Type, r.Name}]; res != nil {
				body, err := bodyJSON(res)
				if err != nil {
					return nil, err
				}
				x.Body = body
			}
			out = append(out, x)
		}
	}
	return out, nil
}

func stateName(s ads.ResourceState) string {
	switch s {
	case ads.StateAcked:
		return "acked"
	case ads.StateNacked:
		return "rejected"
	}
	return string(s)
}

func bodyJSON(r *resource.Resource) ([]byte, error) {
	m, err := r.Body.UnmarshalNew()
	if err != nil {
		return nil, fmt.Errorf("resource %q: %w", r.Name, err)
	}
	// Origins of extensions and defaults are kept out: this is for people.
	return protojson.MarshalOptions{}.Marshal(m)
}

func fail(w http.ResponseWriter, code int, message string) {
	writeJSON(w, code, api.Error{Error: message})
}

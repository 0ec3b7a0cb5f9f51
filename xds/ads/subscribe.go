package ads

import (
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

const wildcard = "*"

// legacyWildcard reports whether a first request without names asks for
// everything, as it does for listeners and clusters only.
func legacyWildcard(url string) bool {
	return url == resource.ListenerType || url == resource.ClusterType
}

// event is what a request did, for observers.
type event struct {
	url    string
	acked  bool
	nacked []string
	detail string
	took   time.Duration
}

// onDelta takes one incremental request. Its subscription changes count
// whatever its nonce is: they are increments, and would be lost.
func (c *core) onDelta(req *discoveryv3.DeltaDiscoveryRequest, now time.Time) (*event, error) {
	ts, first, err := c.typeFor(req.GetTypeUrl())
	if err != nil {
		return nil, err
	}
	var ev *event
	if !first && req.GetResponseNonce() != "" {
		detail, nacked := req.GetErrorDetail().GetMessage(), req.GetErrorDetail() != nil
		ev = c.answered(ts, req.GetResponseNonce(), nacked, detail, now)
	}
	subscribe, initial := req.GetResourceNamesSubscribe(), req.GetInitialResourceVersions()
	if !first {
		initial = nil
	}
	if first && len(subscribe) == 0 && legacyWildcard(ts.url) {
		subscribe = []string{wildcard}
	}
	for _, n := range subscribe {
		if n == wildcard {
			ts.answer = ts.answer || !ts.wildcard
			ts.wildcard = true
		}
	}
	for n, version := range initial {
		if n != "" && n != wildcard && version != "" {
			ts.held[n] = holding{version: version}
		}
		if max(len(n), len(version)) > maxName {
			return nil, errLongName(n + version)
		}
		ts.claimed += perName + len(n) + len(version)
	}
	force := first && c.forceEndpoints && ts.url == resource.EndpointType
	for _, n := range subscribe {
		if n == "" || n == wildcard {
			continue
		}
		ts.names[n] = struct{}{}
		if _, has := initial[n]; !has || force {
			ts.must[n] = struct{}{}
		}
	}
	ts.answer = ts.answer || (first && len(ts.names) > 0)
	for _, n := range req.GetResourceNamesUnsubscribe() {
		ts.unsubscribe(n)
	}
	for n := range initial {
		if !ts.wants(n) {
			ts.forget(n)
		}
	}
	if len(subscribe)+len(req.GetResourceNamesUnsubscribe()) > 0 {
		ts.dirty = true
	}
	if len(subscribe)+len(initial)+len(req.GetResourceNamesUnsubscribe()) == 0 {
		return ev, nil
	}
	return ev, ts.bounded()
}

// unsubscribe drops a name. Under a wildcard the client may have dropped the
// resource with it, so the name is answered once more: with the resource, or
// with its removal.
func (ts *typeState) unsubscribe(name string) {
	if name == wildcard {
		ts.wildcard = false
		for n := range ts.held {
			if !ts.wants(n) {
				ts.forget(n)
			}
		}
		for n := range ts.must {
			if !ts.wants(n) {
				ts.forget(n)
			}
		}
		return
	}
	if _, ok := ts.names[name]; !ok {
		return
	}
	delete(ts.names, name)
	if ts.wildcard {
		ts.must[name] = struct{}{}
		return
	}
	ts.forget(name)
}

// bounded measures what the client has named, and says when that is too much.
func (ts *typeState) bounded() error {
	ts.size = ts.claimed
	for n := range ts.names {
		ts.size += perName + len(n)
		if len(n) > maxName {
			return errLongName(n)
		}
	}
	if n := max(len(ts.names), len(ts.held)); n > maxNamesPerType {
		return status.Errorf(codes.ResourceExhausted, "a stream may name at most %d resources of type %s, this one named %d", maxNamesPerType, ts.url, n)
	}
	return nil
}

func errLongName(s string) error {
	return status.Errorf(codes.ResourceExhausted, "a resource's name or version has %d bytes, at most %d are taken", len(s), maxName)
}

// onSotw takes one state-of-the-world request. Its names are the whole
// subscription, so a request that answers an older response than the newest is
// stale: the client's answer to the newest follows and says more.
func (c *core) onSotw(req *discoveryv3.DiscoveryRequest, now time.Time) (*event, error) {
	ts, first, err := c.typeFor(req.GetTypeUrl())
	if err != nil {
		return nil, err
	}
	var ev *event
	if nonce := req.GetResponseNonce(); !first && nonce != "" {
		newest := nonce == ts.lastNonce
		detail, nacked := req.GetErrorDetail().GetMessage(), req.GetErrorDetail() != nil
		ev = c.answered(ts, nonce, nacked, detail, now)
		if !newest {
			return ev, nil
		}
	}
	changed := ts.replace(req.GetResourceNames())
	if first {
		ts.answer = ts.wildcard || len(ts.names) > 0
	}
	// A request that answers nothing and changes nothing asks again.
	if !first && ev == nil && !changed && req.GetErrorDetail() == nil {
		ts.answer = true
		if !ts.full {
			for n := range ts.names {
				ts.must[n] = struct{}{}
			}
			ts.dirty = true
		}
	}
	return ev, ts.bounded()
}

// replace sets the subscription to a request's names and reports whether that
// changed it.
func (ts *typeState) replace(list []string) (changed bool) {
	all := legacyWildcard(ts.url) && !ts.everNamed && len(list) == 0
	names := make(map[string]struct{}, len(list))
	for _, n := range list {
		switch n {
		case "":
		case wildcard:
			all = true
		default:
			names[n] = struct{}{}
		}
	}
	ts.everNamed = ts.everNamed || len(list) > 0
	if all != ts.wildcard {
		changed = true
		ts.answer = ts.answer || all
	}
	old := ts.names
	ts.names, ts.wildcard = names, all
	for n := range names {
		if _, ok := old[n]; !ok {
			changed = true
			ts.must[n] = struct{}{}
		}
	}
	for n := range old {
		if _, ok := names[n]; !ok {
			changed = true
		}
	}
	for n := range ts.held {
		if !ts.wants(n) {
			ts.forget(n)
		}
	}
	for n := range ts.must {
		if !ts.wants(n) {
			ts.forget(n)
		}
	}
	ts.dirty = ts.dirty || changed
	return changed
}

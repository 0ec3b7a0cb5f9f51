package client

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// answer is one response of either protocol. bad are resources that could not
// even be read, by name or position.
type answer struct {
	url        string
	nonce      string
	version    string
	identifier string
	resources  []*resource.Resource
	removed    []string
	bad        map[string]error
	// bodyless are versions, by the names of resources that say nothing but that they are there.
	bodyless map[string]string
	// full: resources is the complete list of the type. partial: more follows.
	full, partial bool

	seen map[string]struct{}
}

type deltaWire struct {
	stream grpc.BidiStreamingClient[discoveryv3.DeltaDiscoveryRequest, discoveryv3.DeltaDiscoveryResponse]
	client *Client
}

func (w *deltaWire) request(ts *typeState, first bool) proto.Message {
	m := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: ts.url}
	if first {
		m.Node = w.client.node
	}
	m.ResourceNamesSubscribe, m.ResourceNamesUnsubscribe = ts.pendingNames()
	if !ts.requested {
		// Only what was accepted: what was rejected must come again.
		m.InitialResourceVersions = make(map[string]string, len(ts.accepted))
		for n, r := range ts.accepted {
			m.InitialResourceVersions[n] = r.Version
		}
		// The oldest form of the wildcard is understood by every server.
		if legacyWildcard(ts.url) && slices.Equal(m.ResourceNamesSubscribe, []string{wildcard}) {
			m.ResourceNamesSubscribe = nil
		}
	}
	if r := ts.oldest(); r != nil {
		m.ResponseNonce, m.ErrorDetail = r.nonce, r.status()
	}
	return m
}

func legacyWildcard(url string) bool {
	return url == resource.ListenerType || url == resource.ClusterType
}

func (w *deltaWire) send(m proto.Message) error {
	return w.stream.Send(m.(*discoveryv3.DeltaDiscoveryRequest))
}

func (w *deltaWire) recv() (*answer, error) {
	m, err := w.stream.Recv()
	if err != nil {
		return nil, err
	}
	a := &answer{
		url: m.GetTypeUrl(), nonce: m.GetNonce(), version: m.GetSystemVersionInfo(),
		identifier: m.GetControlPlane().GetIdentifier(),
		partial:    strings.HasSuffix(m.GetSystemVersionInfo(), resource.PartialSuffix), bad: map[string]error{},
	}
	for i, r := range m.GetResources() {
		a.add(i, r.GetName(), r.GetVersion(), r.GetResource(), misnamed)
	}
	for _, n := range m.GetRemovedResources() {
		if a.names(n) {
			a.bad[n] = errors.New("resource: is removed and there in one response")
			continue
		}
		a.removed = append(a.removed, n)
	}
	return a, nil
}

type sotwWire struct {
	stream grpc.BidiStreamingClient[discoveryv3.DiscoveryRequest, discoveryv3.DiscoveryResponse]
	client *Client
}

func (w *sotwWire) request(ts *typeState, first bool) proto.Message {
	m := &discoveryv3.DiscoveryRequest{TypeUrl: ts.url, VersionInfo: ts.sotwVersion, ResponseNonce: ts.nonce}
	if first {
		m.Node = w.client.node
	}
	m.ResourceNames = slices.Sorted(maps.Keys(ts.asking()))
	if ts.wildcard && (len(m.ResourceNames) > 0 || !legacyWildcard(ts.url)) {
		m.ResourceNames = append(m.ResourceNames, wildcard)
	}
	if r := ts.oldest(); r != nil {
		m.ResponseNonce, m.ErrorDetail = r.nonce, r.status()
	}
	return m
}

func (w *sotwWire) send(m proto.Message) error {
	return w.stream.Send(m.(*discoveryv3.DiscoveryRequest))
}

func (w *sotwWire) recv() (*answer, error) {
	m, err := w.stream.Recv()
	if err != nil {
		return nil, err
	}
	a := &answer{
		url: m.GetTypeUrl(), nonce: m.GetNonce(), version: m.GetVersionInfo(),
		identifier: m.GetControlPlane().GetIdentifier(), full: legacyWildcard(m.GetTypeUrl()), bad: map[string]error{},
	}
	for i, body := range m.GetResources() {
		if body.MessageIs(&discoveryv3.Resource{}) {
			var r discoveryv3.Resource
			if err := proto.Unmarshal(body.GetValue(), &r); err != nil {
				a.bad[fmt.Sprintf("%s%d]", unnamed, i)] = err
				continue
			}
			version := r.GetVersion()
			if r.GetResource() == nil {
				version = a.version // it is that of all
			}
			a.add(i, r.GetName(), version, r.GetResource(), misnamed)
			continue
		}
		name, err := resource.NameOf(body)
		if err != nil {
			a.bad[fmt.Sprintf("%s%d]", unnamed, i)] = err
			continue
		}
		a.add(i, name, "", body, func(string, *anypb.Any) error { return nil }) // it is the body's own
	}
	a.full = a.full && !a.nameless()
	return a, nil
}

// add takes a resource, or says why not; misnamed tells whether its name is none of its own.
func (a *answer) add(i int, name, version string, body *anypb.Any, misnamed func(string, *anypb.Any) error) {
	switch {
	case name == "":
		a.bad[fmt.Sprintf("%s%d]", unnamed, i)] = errors.New("has no name")
	case body == nil:
		if a.bodyless == nil {
			a.bodyless = map[string]string{}
		}
		a.bodyless[name] = version
	case body.GetTypeUrl() != a.url:
		a.bad[name] = fmt.Errorf("resource: type %q in a response of type %q", body.GetTypeUrl(), a.url)
	case a.has(name):
		a.bad[name] = errors.New("resource: appears twice in one response")
	default:
		if err := misnamed(name, body); err != nil {
			a.bad[name] = err
			return
		}
		a.resources = append(a.resources, resource.Received(name, version, body))
	}
}

// nameless tells whether there is a resource whose name cannot be read: it may be any of those
// that were there before, and none of them is gone for not being seen.
func (a *answer) nameless() bool {
	for n := range a.bad {
		if strings.HasPrefix(n, unnamed) {
			return true
		}
	}
	return false
}

// misnamed says why a body cannot come under a name: by that it is removed, and told from
// those that others have.
func misnamed(name string, body *anypb.Any) error {
	own, err := resource.NameOf(body)
	switch {
	case err != nil:
		return err
	case own != name:
		return fmt.Errorf("resource: its own name is %q", own)
	}
	return nil
}

// names tells whether there is a resource of a name, whatever is wrong with it.
func (a *answer) names(name string) bool {
	_, there := a.seen[name]
	_, beats := a.bodyless[name]
	return there || beats || a.bad[name] != nil
}

func (a *answer) has(name string) bool {
	if _, ok := a.seen[name]; ok {
		return true
	}
	if a.seen == nil {
		a.seen = map[string]struct{}{}
	}
	a.seen[name] = struct{}{}
	return false
}

func (r *reply) status() *spb.Status {
	if r.nack == "" {
		return nil
	}
	return &spb.Status{Code: int32(codes.InvalidArgument), Message: r.nack}
}

// unnamed begins the position that stands for the name of a resource without.
const unnamed = "resources["

// maxDetail bounds a NACK's text: it travels in one message and ends in logs.
const maxDetail = 8 << 10

// describe joins rejections as "name: path: reason".
func describe(errs map[string]error) string {
	var b strings.Builder
	names := slices.Sorted(maps.Keys(errs))
	for i, n := range names {
		line := fmt.Sprintf("%s: %v", n, errs[n])
		if b.Len() > 0 && b.Len()+len(line) > maxDetail {
			fmt.Fprintf(&b, "; and %d more", len(names)-i)
			break
		}
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(line[:min(len(line), maxDetail)])
	}
	return strings.ToValidUTF8(b.String(), "?")
}

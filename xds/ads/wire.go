package ads

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// request is one message of either protocol.
type request interface {
	GetNode() *corev3.Node
	GetTypeUrl() string
}

// wire is a stream of either protocol.
type wire interface {
	delta() bool
	recv() (request, error)
	send(*response) error
}

type deltaWire struct {
	stream     discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer
	identifier string
}

func (w *deltaWire) delta() bool { return true }

func (w *deltaWire) recv() (request, error) {
	m, err := w.stream.Recv()
	if err != nil {
		return nil, err
	}
	return m, nil
}

func (w *deltaWire) send(r *response) error { return w.stream.Send(deltaMessage(r, w.identifier)) }

func deltaMessage(r *response, identifier string) *discoveryv3.DeltaDiscoveryResponse {
	m := &discoveryv3.DeltaDiscoveryResponse{
		TypeUrl:           r.url,
		Nonce:             r.nonce,
		SystemVersionInfo: r.nonce,
		RemovedResources:  r.removed,
		Resources:         make([]*discoveryv3.Resource, len(r.upserts)),
		ControlPlane:      &corev3.ControlPlane{Identifier: identifier},
	}
	if r.partial {
		m.SystemVersionInfo += resource.PartialSuffix
	}
	for i, res := range r.upserts {
		m.Resources[i] = &discoveryv3.Resource{Name: res.Name, Version: res.Version, Resource: res.Body}
	}
	return m
}

type sotwWire struct {
	stream     discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer
	identifier string
}

func (w *sotwWire) delta() bool { return false }

func (w *sotwWire) recv() (request, error) {
	m, err := w.stream.Recv()
	if err != nil {
		return nil, err
	}
	return m, nil
}

func (w *sotwWire) send(r *response) error { return w.stream.Send(sotwMessage(r, w.identifier)) }

// sotwMessage versions a response by the hash of what it lists, so that every
// control plane gives the same list the same version.
func sotwMessage(r *response, identifier string) *discoveryv3.DiscoveryResponse {
	m := &discoveryv3.DiscoveryResponse{
		TypeUrl:      r.url,
		Nonce:        r.nonce,
		Resources:    make([]*anypb.Any, len(r.upserts)),
		ControlPlane: &corev3.ControlPlane{Identifier: identifier},
	}
	h := sha256.New()
	for i, res := range r.upserts {
		m.Resources[i] = res.Body
		fmt.Fprintf(h, "%q %s\n", res.Name, res.Version)
	}
	m.VersionInfo = hex.EncodeToString(h.Sum(nil)[:8])
	return m
}

// apply gives a request to the core.
func (c *core) apply(req request, now time.Time) (*event, error) {
	switch m := req.(type) {
	case *discoveryv3.DeltaDiscoveryRequest:
		return c.onDelta(m, now)
	case *discoveryv3.DiscoveryRequest:
		return c.onSotw(m, now)
	}
	panic(fmt.Sprintf("ads: request of type %T", req))
}

// clientOf reads the node of a stream's first request.
func clientOf(ctx context.Context, node *corev3.Node, peerID string, delta bool) Client {
	c := Client{
		NodeID:    node.GetId(),
		Cluster:   node.GetCluster(),
		UserAgent: node.GetUserAgentName(),
		Version:   node.GetUserAgentVersion(),
		Features:  node.GetClientFeatures(),
		Metadata:  node.GetMetadata().AsMap(),
		PeerID:    peerID,
		Delta:     delta,
	}
	if v := node.GetUserAgentBuildVersion().GetVersion(); v != nil && c.Version == "" {
		c.Version = fmt.Sprintf("%d.%d.%d", v.GetMajorNumber(), v.GetMinorNumber(), v.GetPatch())
	}
	if p, ok := peer.FromContext(ctx); ok && p.Addr != nil {
		c.RemoteAddr = p.Addr.String()
	}
	return c
}

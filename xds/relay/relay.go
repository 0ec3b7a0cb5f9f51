// Package relay serves ADS to the processes of a host on the agent's socket, and
// passes each stream on to the control plane over the agent's own connection. So
// an Envoy needs no certificate, address or trust of its own to be configured: the
// kernel says who it is, and the agent vouches for that.
//
// What a client says of itself could claim another workload's configuration. The
// relay replaces it: node.metadata's hauberk.entitled holds the SPIFFE IDs that
// the caller's selectors give it, and no other key of ours but the one that
// narrows. The control plane shows the intersection with the node's record.
package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/hauberk-mesh/hauberk/xds/names"
)

// Caller is the process at the other end of a stream.
type Caller interface {
	// Entitled are the SPIFFE IDs it may have now.
	Entitled() []string
	// Changed is closed when Entitled may have changed.
	Changed() <-chan struct{}
	// String describes it for logs and errors.
	String() string
}

// Config says between whom to relay. All fields but Log are needed.
type Config struct {
	// Upstream is a connection to a control plane, authenticated as the node.
	Upstream grpc.ClientConnInterface
	// Caller returns who a call is from; false for one that nobody vouches for,
	// which is refused.
	Caller func(context.Context) (Caller, bool)
	Log    *slog.Logger
}

// maxResponse bounds one message of the control plane, in bytes. A list in full
// (state of the world) is one message.
const maxResponse = 64 << 20

// Relay is an aggregated discovery service. Its methods may be called
// concurrently; each stream holds at most one message in each direction.
type Relay struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	cfg Config
}

// New returns a relay.
func New(cfg Config) *Relay {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Log = cfg.Log.With("component", "relay")
	return &Relay{cfg: cfg}
}

// Register adds the service to the socket's server.
func (r *Relay) Register(s grpc.ServiceRegistrar) {
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(s, r)
}

// StreamAggregatedResources relays state-of-the-world streams.
func (r *Relay) StreamAggregatedResources(down discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	return relay(r, down, func(ctx context.Context, c discoveryv3.AggregatedDiscoveryServiceClient) (
		grpc.BidiStreamingClient[discoveryv3.DiscoveryRequest, discoveryv3.DiscoveryResponse], error) {
		return c.StreamAggregatedResources(ctx, grpc.MaxCallRecvMsgSize(maxResponse))
	}, func(m *discoveryv3.DiscoveryRequest, n *corev3.Node) { m.Node = n })
}

// DeltaAggregatedResources relays incremental streams.
func (r *Relay) DeltaAggregatedResources(down discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	return relay(r, down, func(ctx context.Context, c discoveryv3.AggregatedDiscoveryServiceClient) (
		grpc.BidiStreamingClient[discoveryv3.DeltaDiscoveryRequest, discoveryv3.DeltaDiscoveryResponse], error) {
		return c.DeltaAggregatedResources(ctx, grpc.MaxCallRecvMsgSize(maxResponse))
	}, func(m *discoveryv3.DeltaDiscoveryRequest, n *corev3.Node) { m.Node = n })
}

type hasNode interface{ GetNode() *corev3.Node }

// relay passes one stream on until either end ends it, or the caller's identities
// change: then the client connects anew and is shown what it may see by now.
func relay[Req, Resp any](
	r *Relay,
	down grpc.BidiStreamingServer[Req, Resp],
	open func(context.Context, discoveryv3.AggregatedDiscoveryServiceClient) (grpc.BidiStreamingClient[Req, Resp], error),
	setNode func(*Req, *corev3.Node),
) error {
	caller, ok := r.cfg.Caller(down.Context())
	if !ok {
		return status.Error(codes.PermissionDenied, "relay: nobody vouches for the caller")
	}
	// Taken before Entitled: no change falls between the two.
	changed := caller.Changed()
	entitled := caller.Entitled()
	if len(entitled) == 0 {
		return status.Errorf(codes.PermissionDenied, "relay: no entry of this host is for %s, so there is nothing to configure it with", caller)
	}
	first, err := down.Recv()
	if err != nil {
		return err
	}
	node, err := vouched(any(first).(hasNode).GetNode(), entitled)
	if err != nil {
		return status.Errorf(codes.InvalidArgument, "relay: %v", err)
	}
	setNode(first, node)

	ctx, cancel := context.WithCancelCause(down.Context())
	defer cancel(nil)
	up, err := open(ctx, discoveryv3.NewAggregatedDiscoveryServiceClient(r.cfg.Upstream))
	if err != nil {
		return upstreamError(err)
	}
	r.cfg.Log.Info("stream opened", "src", caller.String(), "node", node.GetId(), "src_id", strings.Join(entitled, " "))
	stopped := make(chan struct{})
	defer func() { <-stopped }()
	defer cancel(nil)
	go func() {
		defer close(stopped)
		watch(ctx, caller, changed, entitled, cancel)
	}()
	// It ends with the stream's context, which ends with this function.
	go requests(down, up, first, setNode, cancel)
	err = responses(up, down)
	if cause := context.Cause(ctx); cause != nil && down.Context().Err() == nil {
		err = cause
	}
	r.cfg.Log.Info("stream ended", "src", caller.String(), "node", node.GetId(), "err", err)
	return err
}

// requests passes on what the client sends. The node is in the first message.
func requests[Req, Resp any](down grpc.BidiStreamingServer[Req, Resp], up grpc.BidiStreamingClient[Req, Resp], m *Req, setNode func(*Req, *corev3.Node), cancel context.CancelCauseFunc) {
	for {
		if err := up.Send(m); err != nil {
			return // Recv of the responses tells why
		}
		var err error
		if m, err = down.Recv(); errors.Is(err, io.EOF) {
			_ = up.CloseSend()
			return
		} else if err != nil {
			cancel(err)
			return
		}
		// The control plane knows it by now; a second one could say otherwise.
		setNode(m, nil)
	}
}

func responses[Req, Resp any](up grpc.BidiStreamingClient[Req, Resp], down grpc.BidiStreamingServer[Req, Resp]) error {
	for {
		m, err := up.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return upstreamError(err)
		}
		if err := down.Send(m); err != nil {
			return err
		}
	}
}

// watch ends the stream when the caller's identities are others.
func watch(ctx context.Context, caller Caller, changed <-chan struct{}, entitled []string, cancel context.CancelCauseFunc) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
		changed = caller.Changed()
		switch now := caller.Entitled(); {
		case len(now) == 0:
			cancel(status.Errorf(codes.PermissionDenied, "relay: no entry of this host is for %s any more", caller))
			return
		case !sameSet(now, entitled):
			cancel(status.Error(codes.Unavailable, "relay: the identities of the caller have changed; connect again"))
			return
		}
	}
}

func sameSet(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(slices.Compact(a), slices.Compact(b))
}

// upstreamError keeps what the control plane said of the client, and hides the
// agent's own troubles behind "unavailable": the client shall try again.
func upstreamError(err error) error {
	s := status.Convert(err)
	switch s.Code() {
	case codes.PermissionDenied, codes.InvalidArgument, codes.ResourceExhausted, codes.Unavailable:
		return status.Errorf(s.Code(), "relay: control plane: %s", s.Message())
	}
	return status.Errorf(codes.Unavailable, "relay: control plane: %s: %s", s.Code(), s.Message())
}

// vouched is the node as the control plane is told of it.
func vouched(n *corev3.Node, entitled []string) (*corev3.Node, error) {
	if n == nil || n.GetId() == "" {
		return nil, fmt.Errorf("the first request names no node")
	}
	md := n.GetMetadata()
	if md == nil {
		md = &structpb.Struct{}
	}
	if md.Fields == nil {
		md.Fields = map[string]*structpb.Value{}
	}
	for k := range md.Fields {
		// Keys are compared as the control plane reads them, letter by letter.
		if strings.HasPrefix(strings.ToLower(k), "hauberk.") && k != names.MetadataWorkloads {
			delete(md.Fields, k)
		}
	}
	list := &structpb.ListValue{}
	for _, id := range entitled {
		list.Values = append(list.Values, structpb.NewStringValue(id))
	}
	md.Fields[names.MetadataEntitled] = structpb.NewListValue(list)
	n.Metadata = md
	return n, nil
}

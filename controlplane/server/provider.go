package server

import (
	"context"
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/hauberk-mesh/hauberk/controlplane/view"
	"github.com/hauberk-mesh/hauberk/identity/spiffe"
	"github.com/hauberk-mesh/hauberk/xds/ads"
)

// nodeRecords tells what a node may be. A node that is unknown or banned is not
// permitted to open a stream.
type nodeRecords interface {
	Permitted(node string) (ids []string, ok bool)
}

// provider gives each xDS stream the view its node identity entitles it to.
type provider struct {
	views   *view.Manager
	records nodeRecords
}

// Open implements ads.Provider. Who the client is comes from its certificate;
// what it says of itself can only narrow what it sees.
func (p *provider) Open(_ context.Context, c ads.Client) (ads.View, error) {
	peer, err := spiffeid.FromString(c.PeerID)
	if err != nil {
		return nil, status.Errorf(codes.Unauthenticated, "xds stream: client identity: %v", err)
	}
	parsed, err := spiffe.Of(peer)
	if err != nil || parsed.Kind != spiffe.Node {
		return nil, status.Errorf(codes.PermissionDenied, "xds stream: %s is not a node; join with a token of role node", c.PeerID)
	}
	permitted, ok := p.records.Permitted(parsed.Name)
	if !ok {
		return nil, status.Errorf(codes.PermissionDenied, "xds stream: node %q has no record here or is banned; create a token and join again", parsed.Name)
	}
	node, err := nodeMessage(c)
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "xds stream: node metadata: %v", err)
	}
	return p.views.Open(view.NewClient(parsed.Name, permitted, node)), nil
}

func nodeMessage(c ads.Client) (*corev3.Node, error) {
	md, err := structpb.NewStruct(c.Metadata)
	if err != nil {
		return nil, fmt.Errorf("metadata: %w", err)
	}
	return &corev3.Node{
		Id:             c.NodeID,
		Cluster:        c.Cluster,
		Metadata:       md,
		UserAgentName:  c.UserAgent,
		ClientFeatures: c.Features,
		// The version as text, in whichever form it came.
		UserAgentVersionType: &corev3.Node_UserAgentVersion{UserAgentVersion: c.Version},
	}, nil
}

// Package sds follows secrets of a secret discovery service on this host: the state of
// the world protocol of xDS, a stream for each secret, as Envoy has it. It knows nothing
// of what a secret holds.
package sds

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// A service that is away is asked again after a random part of backoffBase, doubled each
// time up to backoffMax.
const (
	backoffBase = 200 * time.Millisecond
	backoffMax  = 10 * time.Second
)

// turn is what a stream waits with each answer: a service that sends without end, the same
// again or what is refused, costs ten looks a second.
const turn = 100 * time.Millisecond

// Handler takes what a service says of one secret. It is called from one goroutine.
type Handler interface {
	// Secret takes a marshalled secret. An error refuses it: the service is told, and
	// what was taken before stays.
	Secret(body []byte) error
	// Ended tells that the stream ended, and when it is tried again.
	Ended(err error, retryIn time.Duration)
}

// Service is a secret discovery service.
type Service struct {
	// Socket is the path of its Unix socket. There is no other way to it: private keys
	// never cross the network.
	Socket string
	Node   *corev3.Node
}

// Follow asks for a secret until ctx ends.
func (s *Service) Follow(ctx context.Context, name string, h Handler) {
	for failures := 0; ; failures++ {
		answered, err := s.stream(ctx, name, h)
		if ctx.Err() != nil {
			return
		}
		if answered {
			failures = 0
		}
		bound := backoffMax
		if failures < 16 {
			bound = min(bound, backoffBase<<failures)
		}
		wait := rand.N(bound) + time.Millisecond
		h.Ended(err, wait)
		if pause(ctx, wait); ctx.Err() != nil {
			return
		}
	}
}

// pause waits, no longer than ctx lasts.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// stream runs one stream to its end, and tells whether it was ever answered.
func (s *Service) stream(ctx context.Context, name string, h Handler) (answered bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := grpc.NewClient("unix:"+s.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return false, fmt.Errorf("connect: %w", err)
	}
	defer conn.Close()
	st, err := secretv3.NewSecretDiscoveryServiceClient(conn).StreamSecrets(ctx)
	if err != nil {
		return false, fmt.Errorf("open secret discovery stream: %w", err)
	}
	request := &discoveryv3.DiscoveryRequest{Node: s.Node, TypeUrl: resource.SecretType, ResourceNames: []string{name}}
	for {
		// io.EOF from a send: the reason comes from the receiver.
		if err := st.Send(request); err != nil && !errors.Is(err, io.EOF) {
			return answered, err
		}
		response, err := st.Recv()
		if errors.Is(err, io.EOF) {
			err = errors.New("the service ended the stream")
		}
		if err != nil {
			return answered, err
		}
		answered = true
		request = &discoveryv3.DiscoveryRequest{
			TypeUrl: resource.SecretType, ResourceNames: request.GetResourceNames(),
			VersionInfo: request.GetVersionInfo(), ResponseNonce: response.GetNonce(),
		}
		err = take(response, h)
		if pause(ctx, turn); ctx.Err() != nil {
			return answered, ctx.Err() // what has come by now is nobody's any more
		}
		if err != nil {
			request.ErrorDetail = &spb.Status{Code: int32(codes.InvalidArgument), Message: err.Error()}
		} else {
			request.VersionInfo = response.GetVersionInfo()
		}
	}
}

// take hands on the one secret of a response.
func take(r *discoveryv3.DiscoveryResponse, h Handler) error {
	if n := len(r.GetResources()); n != 1 {
		return fmt.Errorf("the response has %d secrets, and one was asked for", n)
	}
	secret := r.GetResources()[0]
	if secret.GetTypeUrl() != resource.SecretType {
		return fmt.Errorf("the response has a %q, and a secret was asked for", secret.GetTypeUrl())
	}
	return h.Secret(secret.GetValue())
}

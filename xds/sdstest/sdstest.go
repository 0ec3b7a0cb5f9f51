// Package sdstest is a secret discovery service for tests: it sends what it is told to,
// and keeps what its clients say.
package sdstest

import (
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// Service is a secret discovery service on a Unix socket. Safe for concurrent use.
type Service struct {
	secretv3.UnimplementedSecretDiscoveryServiceServer
	Socket string

	mu       sync.Mutex
	server   *grpc.Server
	changed  chan struct{}
	secrets  map[string][]byte // marshalled, by the name that is asked for
	version  int
	requests []*discoveryv3.DiscoveryRequest
}

// New returns a service that is served until the test ends.
func New(t *testing.T) *Service {
	t.Helper()
	s := &Service{Socket: filepath.Join(t.TempDir(), "sds.sock"), changed: make(chan struct{}), secrets: map[string][]byte{}}
	s.Start(t)
	t.Cleanup(s.Stop)
	return s
}

// Start serves again after Stop.
func (s *Service) Start(t *testing.T) {
	t.Helper()
	ln, err := net.Listen("unix", s.Socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	secretv3.RegisterSecretDiscoveryServiceServer(server, s)
	s.mu.Lock()
	s.server = server
	s.mu.Unlock()
	go func() { _ = server.Serve(ln) }()
}

// Stop ends all streams.
func (s *Service) Stop() {
	s.mu.Lock()
	server := s.server
	s.mu.Unlock()
	server.Stop()
}

// Put sends a marshalled secret to all who ask for name, whatever it calls itself.
func (s *Service) Put(name string, secret []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secrets[name] = secret
	s.version++
	close(s.changed)
	s.changed = make(chan struct{})
}

// Refusals are the errors of clients that refused a secret, in order.
func (s *Service) Refusals() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, r := range s.requests {
		if r.GetErrorDetail() != nil {
			out = append(out, r.GetErrorDetail().GetMessage())
		}
	}
	return out
}

// Requests are all that was asked.
func (s *Service) Requests() []*discoveryv3.DiscoveryRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*discoveryv3.DiscoveryRequest{}, s.requests...)
}

// StreamSecrets implements the state of the world protocol for one name a stream.
func (s *Service) StreamSecrets(stream secretv3.SecretDiscoveryService_StreamSecretsServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	s.note(first)
	ended := make(chan error, 1)
	go func() {
		for {
			r, err := stream.Recv()
			if err != nil {
				ended <- err
				return
			}
			s.note(r)
		}
	}()
	name := first.GetResourceNames()[0]
	var sent []byte
	for {
		s.mu.Lock()
		changed, secret, version := s.changed, s.secrets[name], strconv.Itoa(s.version)
		s.mu.Unlock()
		if secret != nil && string(secret) != string(sent) {
			sent = secret
			if err := stream.Send(&discoveryv3.DiscoveryResponse{
				TypeUrl: resource.SecretType, VersionInfo: version, Nonce: "n" + version,
				Resources: []*anypb.Any{{TypeUrl: resource.SecretType, Value: secret}},
			}); err != nil {
				return err
			}
		}
		select {
		case <-changed:
		case err := <-ended:
			return err
		}
	}
}

func (s *Service) note(r *discoveryv3.DiscoveryRequest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, r)
}

package sds_test

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/hauberk-mesh/hauberk/xds/resource"
	"github.com/hauberk-mesh/hauberk/xds/sds"
)

// endless is a service that sends another secret without end, and listens to nobody.
type endless struct {
	secretv3.UnimplementedSecretDiscoveryServiceServer
}

func (endless) StreamSecrets(s secretv3.SecretDiscoveryService_StreamSecretsServer) error {
	for i := 0; ; i++ {
		text := fmt.Sprint(i)
		if err := s.Send(&discoveryv3.DiscoveryResponse{TypeUrl: resource.SecretType, VersionInfo: text, Nonce: text,
			Resources: []*anypb.Any{{TypeUrl: resource.SecretType, Value: []byte(text)}}}); err != nil {
			return err
		}
	}
}

type looks struct {
	at     []time.Time
	enough context.CancelFunc
}

func (l *looks) Secret([]byte) error {
	if l.at = append(l.at, time.Now()); len(l.at) == 4 {
		l.enough()
	}
	return nil
}

func (l *looks) Ended(error, time.Duration) {}

// TestEndlessService: a service that sends as fast as it can is not read as fast.
func TestEndlessService(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	secretv3.RegisterSecretDiscoveryServiceServer(server, endless{})
	go func() { _ = server.Serve(ln) }()
	t.Cleanup(server.Stop)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	l := &looks{enough: cancel}
	(&sds.Service{Socket: socket}).Follow(ctx, "web", l)
	if len(l.at) != 4 || l.at[3].Sub(l.at[0]) < 290*time.Millisecond {
		t.Errorf("looked at %v", l.at)
	}
}

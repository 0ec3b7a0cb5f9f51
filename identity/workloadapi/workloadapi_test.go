package workloadapi

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	workloadv1 "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// The SPIFFE project's own client gets the SVID, verifies with the bundle, and
// sees each renewal and each signer that comes.
func TestGoSPIFFEClientFollowsRotation(t *testing.T) {
	src := newSource(t)
	src.permit(t, "web "+me(), "db "+notMe())
	src.issue(t, "web", "db")
	s := serve(t, Config{Source: src})
	x, err := workloadapi.NewX509Source(limited(t), workloadapi.WithClientOptions(workloadapi.WithAddr("unix://"+s.path)))
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	got, err := x.GetX509SVID()
	if err != nil || got.ID.String() != id("web") || got.Certificates[0].SerialNumber.String() != src.serial("web") {
		t.Fatalf("%+v %v", got, err)
	}
	for range 3 {
		updated := x.Updated()
		src.issue(t, "web")
		select {
		case <-updated:
		case <-time.After(within):
			t.Fatal("no update after a renewal")
		}
		if got, _ = x.GetX509SVID(); got.Certificates[0].SerialNumber.String() != src.serial("web") {
			t.Fatal("the update is not the newest SVID")
		}
	}
	bundle, err := x.GetX509BundleForTrustDomain(spiffeid.RequireTrustDomainFromString(td))
	if err != nil || len(bundle.X509Authorities()) != 1 {
		t.Fatalf("bundle: %v", err)
	}
}

func withHeader(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, headerName, headerValue)
}

func (s *server) fetch(t *testing.T, ctx context.Context) workloadv1.SpiffeWorkloadAPI_FetchX509SVIDClient {
	t.Helper()
	stream, err := workloadv1.NewSpiffeWorkloadAPIClient(s.dial(t)).FetchX509SVID(ctx, &workloadv1.X509SVIDRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

func wantCode(t *testing.T, what string, err error, code codes.Code, text string) {
	t.Helper()
	if status.Code(err) != code || !strings.Contains(status.Convert(err).Message(), text) {
		t.Errorf("%s: got %v, want %s with %q", what, err, code, text)
	}
}

func TestHeaderIsNeeded(t *testing.T) {
	src := newSource(t)
	src.permit(t, "web "+me())
	src.issue(t, "web")
	s := serve(t, Config{Source: src})
	for name, md := range map[string][]string{
		"none": nil, "another value": {headerName, "TRUE"}, "a number": {headerName, "1"}, "twice": {headerName, "true", headerName, "true"},
	} {
		ctx := metadata.AppendToOutgoingContext(limited(t), md...)
		_, err := s.fetch(t, ctx).Recv()
		wantCode(t, name, err, codes.InvalidArgument, headerName)
		_, err = workloadv1.NewSpiffeWorkloadAPIClient(s.dial(t)).FetchJWTSVID(ctx, &workloadv1.JWTSVIDRequest{})
		wantCode(t, name+", unary", err, codes.InvalidArgument, headerName)
	}
	_, err := workloadv1.NewSpiffeWorkloadAPIClient(s.dial(t)).FetchJWTSVID(withHeader(limited(t)), &workloadv1.JWTSVIDRequest{})
	wantCode(t, "the JWT profile", err, codes.Unimplemented, "")
}

// Other users, and entries that are for nobody, get nothing.
func TestOnlyTheMatchingUserIsServed(t *testing.T) {
	src := newSource(t)
	src.permit(t, "web "+notMe(), "everyone", "db "+me()+" gid=4000000")
	src.issue(t, "web", "everyone", "db")
	s := serve(t, Config{Source: src})
	_, err := s.fetch(t, withHeader(limited(t))).Recv()
	wantCode(t, "no entry is for this user", err, codes.PermissionDenied, "no entry of this host is for uid=")

	src.permit(t, "web "+me(), "everyone")
	m, err := s.fetch(t, withHeader(limited(t))).Recv()
	if err != nil || len(m.GetSvids()) != 1 || m.GetSvids()[0].GetSpiffeId() != id("web") {
		t.Fatalf("%v %v", m, err)
	}
	if os.Geteuid() != 0 {
		return
	}
	src.permit(t, "web uid=4001", "db uid=4002 gid=4002", "everyone")
	for _, c := range []struct {
		uid, gid uint32
		want     string
	}{
		{4001, 4001, id("web")}, {4002, 4002, id("db")},
		{4002, 4001, "PermissionDenied: no identity issued: no entry of this host is for uid=4002 gid=4001"},
		{4003, 4002, "PermissionDenied"}, {0, 0, "PermissionDenied"},
	} {
		if got := as(t, c.uid, c.gid, s.path); !strings.HasPrefix(got, c.want) {
			t.Errorf("user %d group %d got %q, want %q", c.uid, c.gid, got, c.want)
		}
	}
}

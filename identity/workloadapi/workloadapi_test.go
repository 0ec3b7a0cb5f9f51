package workloadapi

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	workloadv1 "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/hauberk-mesh/hauberk/identity/agent"
	"github.com/hauberk-mesh/hauberk/identity/internal/idtest"
	"github.com/hauberk-mesh/hauberk/identity/svid"
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

// svids asks once.
func (s *server) svids(t *testing.T) (*workloadv1.X509SVIDResponse, error) {
	t.Helper()
	stream, err := workloadv1.NewSpiffeWorkloadAPIClient(s.dial(t)).FetchX509SVID(withHeader(limited(t)), &workloadv1.X509SVIDRequest{})
	if err != nil {
		return nil, err
	}
	return stream.Recv()
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
	_, err := s.svids(t)
	wantCode(t, "no entry is for this user", err, codes.PermissionDenied, "no entry of this host is for uid=")

	src.permit(t, "web "+me(), "everyone")
	m, err := s.svids(t)
	if err != nil || len(m.GetSvids()) != 1 || m.GetSvids()[0].GetSpiffeId() != id("web") {
		t.Fatalf("%v %v", m, err)
	}
	if os.Geteuid() != 0 {
		return
	}
	src.permit(t, "web uid=4001", "db uid=4002 gid=4002", "everyone")
	s.settle(t)
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

func TestStreamFollowsWithdrawal(t *testing.T) {
	src := newSource(t)
	src.permit(t, "web "+me(), "db "+me())
	src.issue(t, "web", "db")
	s := serve(t, Config{Source: src})
	stream := s.fetch(t, withHeader(limited(t)))
	want := func(ids ...string) {
		t.Helper()
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, x := range m.GetSvids() {
			got = append(got, x.GetSpiffeId())
		}
		if !slices.Equal(got, ids) {
			t.Fatalf("got %v, want %v", got, ids)
		}
	}
	want(id("web"), id("db"))
	// Every answer is the full state, so one that is withdrawn is not in it.
	src.permit(t, "db "+me())
	want(id("db"))
	src.permit(t, "db "+notMe())
	_, err := stream.Recv()
	wantCode(t, "withdrawn", err, codes.PermissionDenied, "no identity issued")

	src.permit(t, "web "+me())
	stream = s.fetch(t, withHeader(limited(t)))
	want(id("web"))
	// A change of what others get is no change for this caller.
	src.permit(t, "web "+me(), "db "+notMe())
	s.settle(t)
	src.setRecord(&agent.Record{Node: "n1", Banned: true, BanReason: "stolen", Workloads: src.Record().Workloads})
	_, err = stream.Recv()
	wantCode(t, "banned", err, codes.PermissionDenied, "this node is banned: stolen")
}

// An SVID that is being issued is waited for; one that does not come is an
// Unavailable, after which clients try again.
func TestSVIDThatIsNotThereYet(t *testing.T) {
	src := newSource(t)
	s := serve(t, Config{Source: src})
	_, err := s.svids(t)
	wantCode(t, "before the join", err, codes.PermissionDenied, "not joined the mesh yet")
	src.permit(t, "web "+me())
	stream := s.fetch(t, withHeader(limited(t)))
	src.issue(t, "web")
	m, err := stream.Recv()
	if err != nil || len(m.GetSvids()) != 1 {
		t.Fatal(err)
	}
	s.stop()

	s = serve(t, Config{Source: src}, func(s *Server) { s.patience = time.Millisecond })
	src.permit(t, "late "+me())
	_, err = s.svids(t)
	wantCode(t, "not issued", err, codes.Unavailable, "holds no SVID of "+id("late"))
	leaf, key := src.signer.Leaf(t, id("late"), func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	v, err := svid.New([]*x509.Certificate{leaf}, key)
	if err != nil {
		t.Fatal(err)
	}
	src.hold(v)
	_, err = s.svids(t)
	wantCode(t, "expired", err, codes.Unavailable, "expired at")
	// Without an anchor an SVID proves nothing, and its holder could verify nobody.
	src.issue(t, "late")
	src.Set(&svid.Snapshot{SVIDs: src.Snapshot().SVIDs, Bundles: map[string]*svid.Anchors{td: svid.NewAnchors(9, nil)}})
	_, err = s.svids(t)
	wantCode(t, "revoked bundle", err, codes.Unavailable, "the trust bundle of "+td+" is empty")
	_, err = fetched(t, s, RootSecret)
	wantCode(t, "an empty bundle by SDS", err, codes.Unavailable, "is empty")
}

func TestBundles(t *testing.T) {
	src := newSource(t)
	partner := idtest.NewSigner(t, "partner.test")
	src.more = []*idtest.Signer{partner}
	src.permit(t, "web "+notMe())
	src.issue(t, "web")
	s := serve(t, Config{Source: src})
	api := workloadv1.NewSpiffeWorkloadAPIClient(s.dial(t))
	stream, err := api.FetchX509Bundles(withHeader(limited(t)), &workloadv1.X509BundlesRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	wantCode(t, "a caller without an identity", err, codes.PermissionDenied, "no identity issued")

	src.permit(t, "web "+me())
	s.settle(t)
	if stream, err = api.FetchX509Bundles(withHeader(limited(t)), &workloadv1.X509BundlesRequest{}); err != nil {
		t.Fatal(err)
	}
	recv := func() map[string][]byte {
		t.Helper()
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return m.GetBundles()
	}
	got := recv()
	if len(got) != 2 || !bytes.Equal(got["spiffe://"+td], src.signer.Cert.Raw) || !bytes.Equal(got["spiffe://partner.test"], partner.Cert.Raw) {
		t.Errorf("%d bundles", len(got))
	}
	// A renewal is no change of bundles: had it been sent, it would come first.
	src.issue(t, "web")
	s.settle(t)
	src.more = nil
	src.publish()
	if got = recv(); len(got) != 1 {
		t.Errorf("%d bundles after one was dropped", len(got))
	}
	x, err := s.svids(t)
	if err != nil || len(x.GetFederatedBundles()) != 0 || !bytes.Equal(x.GetSvids()[0].GetBundle(), src.signer.Cert.Raw) {
		t.Errorf("%v", err)
	}
	src.more = []*idtest.Signer{partner}
	src.publish()
	recv()
	x, err = s.svids(t)
	if err != nil || !bytes.Equal(x.GetFederatedBundles()["spiffe://partner.test"], partner.Cert.Raw) || len(x.GetFederatedBundles()) != 1 {
		t.Errorf("%v", err)
	}
}

// Hints are unique in one answer.
func TestHints(t *testing.T) {
	src := newSource(t)
	src.permit(t, "a", "b", "c")
	src.issue(t, "a", "b", "c")
	s := serve(t, Config{Source: src, Workloads: entries(t, `workloads:
- {service: a, selectors: [`+me()+`], hint: x}
- {service: b, selectors: [`+me()+`], hint: x}
- {service: c, selectors: [`+me()+`]}
`)})
	m, err := s.svids(t)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, v := range m.GetSvids() {
		got = append(got, v.GetHint())
	}
	if !slices.Equal(got, []string{"x", "", ""}) {
		t.Errorf("%q", got)
	}
}

// Keys go to their callers, and nowhere else.
func TestKeysAreNotLogged(t *testing.T) {
	src := newSource(t)
	src.permit(t, "web "+me())
	src.issue(t, "web")
	s := serve(t, Config{Source: src})
	m, err := s.svids(t)
	if err != nil {
		t.Fatal(err)
	}
	key := m.GetSvids()[0].GetX509SvidKey()
	parsed, err := x509.ParsePKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := parsed.(*ecdsa.PrivateKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fetched(t, s, DefaultSecret); err != nil {
		t.Fatal(err)
	}
	stream := s.sotw(t, id("web"))
	stream.request(stream.want(id("web")).GetNonce(), "rejected")
	s.stop()
	log := s.log.String()
	if !strings.Contains(log, "served") || !strings.Contains(log, fmt.Sprintf("serial %x", src.Snapshot().SVIDs[id("web")].Leaf().SerialNumber)) {
		t.Errorf("the log does not say what was served:\n%s", log)
	}
	for _, secret := range []string{
		"PRIVATE", base64.StdEncoding.EncodeToString(key)[:40], hex.EncodeToString(raw), base64.StdEncoding.EncodeToString(raw), fmt.Sprint(raw), string(raw),
	} {
		if strings.Contains(strings.ToLower(log), strings.ToLower(secret)) {
			t.Errorf("the log holds a key:\n%s", log)
		}
	}
}

// The end of the server ends every call, and leaves nothing running.
func TestStopEndsStreams(t *testing.T) {
	src := newSource(t)
	src.permit(t, "web "+me())
	src.issue(t, "web")
	s := serve(t, Config{Source: src})
	stream := s.fetch(t, withHeader(limited(t)))
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	x := s.sotw(t, id("web"))
	x.want(id("web"))
	s.stop()
	if _, err := stream.Recv(); err == nil {
		t.Error("the stream goes on")
	}
	if _, err := x.Recv(); err == nil {
		t.Error("the SDS stream goes on")
	}
	if _, err := os.Lstat(s.path); !os.IsNotExist(err) {
		t.Errorf("the socket is left behind: %v", err)
	}
}

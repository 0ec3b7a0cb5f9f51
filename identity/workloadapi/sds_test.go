package workloadapi

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"slices"
	"strings"
	"testing"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/hauberk-mesh/hauberk/identity/internal/idtest"
)

func (s *server) sds(t *testing.T) secretv3.SecretDiscoveryServiceClient {
	t.Helper()
	return secretv3.NewSecretDiscoveryServiceClient(s.dial(t))
}

func open(t *testing.T, any *anypb.Any) *tlsv3.Secret {
	t.Helper()
	m := &tlsv3.Secret{}
	if err := any.UnmarshalTo(m); err != nil {
		t.Fatal(err)
	}
	if err := m.ValidateAll(); err != nil {
		t.Fatal(err)
	}
	return m
}

func fetched(t *testing.T, s *server, names ...string) (*discoveryv3.DiscoveryResponse, error) {
	t.Helper()
	return s.sds(t).FetchSecrets(limited(t), &discoveryv3.DiscoveryRequest{TypeUrl: secretType, ResourceNames: names})
}

// serials are those of the SVIDs in secrets, by name; a bundle's is the number
// of its anchors.
func certificate(t *testing.T, m *tlsv3.Secret) *x509.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair(m.GetTlsCertificate().GetCertificateChain().GetInlineBytes(), m.GetTlsCertificate().GetPrivateKey().GetInlineBytes())
	if err != nil {
		t.Fatalf("%s: %v", m.GetName(), err)
	}
	return pair.Leaf
}

func anchors(t *testing.T, b []byte) (out []*x509.Certificate) {
	t.Helper()
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, c)
	}
	return out
}

func TestSecretsByName(t *testing.T) {
	src := newSource(t)
	foreign := idtest.NewSigner(t, "partner.test")
	src.more = []*idtest.Signer{foreign}
	src.permit(t, "web "+me(), "db "+notMe())
	src.issue(t, "web", "db")
	s := serve(t, Config{Source: src})
	for _, name := range []string{DefaultSecret, id("web")} {
		m, err := fetched(t, s, name)
		if err != nil || len(m.GetResources()) != 1 {
			t.Fatalf("%s: %v %v", name, m, err)
		}
		sec := open(t, m.GetResources()[0])
		if sec.GetName() != name || certificate(t, sec).URIs[0].String() != id("web") {
			t.Errorf("%s: got %s", name, sec.GetName())
		}
	}
	for name, want := range map[string]*idtest.Signer{RootSecret: src.signer, "spiffe://" + td: src.signer, "spiffe://partner.test": foreign} {
		m, err := fetched(t, s, name)
		if err != nil || len(m.GetResources()) != 1 {
			t.Fatalf("%s: %v %v", name, m, err)
		}
		sec := open(t, m.GetResources()[0])
		got := anchors(t, sec.GetValidationContext().GetTrustedCa().GetInlineBytes())
		if sec.GetName() != name || len(got) != 1 || !got[0].Equal(want.Cert) {
			t.Errorf("%s: got %s with %d anchors", name, sec.GetName(), len(got))
		}
	}
	m, err := fetched(t, s, AllSecret)
	if err != nil {
		t.Fatal(err)
	}
	conf := &tlsv3.SPIFFECertValidatorConfig{}
	custom := open(t, m.GetResources()[0]).GetValidationContext().GetCustomValidatorConfig()
	if err := custom.GetTypedConfig().UnmarshalTo(conf); err != nil || custom.GetName() != spiffeValidator {
		t.Fatal(custom.GetName(), err)
	}
	if len(conf.GetTrustDomains()) != 2 || conf.GetTrustDomains()[0].GetName() != td || conf.GetTrustDomains()[1].GetName() != "partner.test" ||
		!anchors(t, conf.GetTrustDomains()[1].GetTrustBundle().GetInlineBytes())[0].Equal(foreign.Cert) {
		t.Errorf("ALL: %v", conf)
	}
	// Without names: everything that is the caller's, and nothing else.
	m, err = fetched(t, s)
	if err != nil {
		t.Fatal(err)
	}
	if got := names(t, m.GetResources()); !slices.Equal(got, []string{"spiffe://" + td, id("web"), "spiffe://partner.test"}) {
		t.Errorf("everything: %v", got)
	}
}

func names(t *testing.T, in []*anypb.Any) (out []string) {
	t.Helper()
	for _, any := range in {
		out = append(out, open(t, any).GetName())
	}
	return out
}

func TestSecretsThatAreNotTheCallers(t *testing.T) {
	src := newSource(t)
	src.permit(t, "web "+me(), "db "+notMe(), "nobody")
	src.issue(t, "web", "db", "nobody")
	s := serve(t, Config{Source: src})
	for name, want := range map[string]string{
		id("db"):                              "no entry of this host gives",
		id("nobody"):                          "no entry of this host gives",
		id("stranger"):                        "no entry of this host gives",
		"spiffe://" + td + "/hauberk/node/n1": "no entry of this host gives",
		"spiffe://elsewhere.test":             "trusts no anchor of elsewhere.test",
		"file-root:system":                    "no name of a secret",
		"":                                    "no name of a secret",
		"rootca":                              "no name of a secret",
		"spiffe://" + td + "/../web":          "no name of a secret",
	} {
		_, err := fetched(t, s, name)
		wantCode(t, name, err, codes.PermissionDenied, want)
		// With a name that is the caller's, that one is answered and this one named.
		m, err := fetched(t, s, name, DefaultSecret)
		if err != nil || !slices.Equal(names(t, m.GetResources()), []string{DefaultSecret}) {
			t.Fatalf("%q: %v", name, err)
		}
		if e := m.GetResourceErrors(); len(e) != 1 || e[0].GetResourceName().GetName() != name ||
			codes.Code(e[0].GetErrorDetail().GetCode()) != codes.PermissionDenied || !strings.Contains(e[0].GetErrorDetail().GetMessage(), want) {
			t.Errorf("%q: errors %v", name, e)
		}
	}
	_, err := s.sds(t).FetchSecrets(limited(t), &discoveryv3.DiscoveryRequest{TypeUrl: "type.googleapis.com/envoy.config.cluster.v3.Cluster"})
	wantCode(t, "another type", err, codes.InvalidArgument, "only type.googleapis.com")
	src.permit(t, "web "+notMe())
	for _, name := range []string{DefaultSecret, RootSecret, AllSecret, id("web"), "spiffe://" + td} {
		_, err := fetched(t, s, name)
		wantCode(t, name+" for a caller without an identity", err, codes.PermissionDenied, "no identity issued")
	}
}

// Which of several identities is the default is not guessed.
func TestDefaultOfSeveral(t *testing.T) {
	src := newSource(t)
	src.permit(t, "web "+me(), "db "+me())
	src.issue(t, "web", "db")
	s := serve(t, Config{Source: src})
	_, err := fetched(t, s, DefaultSecret)
	wantCode(t, "two identities", err, codes.PermissionDenied, "mark one entry with default: true")
	s.stop()

	s = serve(t, Config{Source: src, Workloads: entries(t, "workloads: [{service: db, selectors: ["+me()+"], default: true, hint: main}]")})
	m, err := fetched(t, s, DefaultSecret)
	if err != nil || certificate(t, open(t, m.GetResources()[0])).URIs[0].String() != id("db") {
		t.Errorf("the marked one: %v", err)
	}
	x, err := s.svids(t)
	if err != nil || len(x.GetSvids()) != 2 || x.GetSvids()[0].GetSpiffeId() != id("db") || x.GetSvids()[0].GetHint() != "main" {
		t.Errorf("the default comes first: %v %v", x, err)
	}
}

// sotw is a state-of-the-world stream.
type sotw struct {
	t *testing.T
	secretv3.SecretDiscoveryService_StreamSecretsClient
	names []string
}

func (s *server) sotw(t *testing.T, names ...string) *sotw {
	t.Helper()
	stream, err := s.sds(t).StreamSecrets(limited(t))
	if err != nil {
		t.Fatal(err)
	}
	x := &sotw{t, stream, names}
	x.request("", "")
	return x
}

func (x *sotw) request(nonce, rejected string) {
	x.t.Helper()
	r := &discoveryv3.DiscoveryRequest{TypeUrl: secretType, ResourceNames: x.names, ResponseNonce: nonce}
	if rejected != "" {
		r.ErrorDetail = &rpcstatus.Status{Code: int32(codes.InvalidArgument), Message: rejected}
	}
	if err := x.Send(r); err != nil && err != io.EOF { // a stream that has ended: Recv tells why
		x.t.Fatal(err)
	}
}

// want receives a response with these resources, and does not acknowledge it.
func (x *sotw) want(names_ ...string) *discoveryv3.DiscoveryResponse {
	x.t.Helper()
	m, err := x.Recv()
	if err != nil {
		x.t.Fatal(err)
	}
	got := names(x.t, m.GetResources())
	slices.Sort(got)
	slices.Sort(names_)
	if !slices.Equal(got, names_) || m.GetTypeUrl() != secretType {
		x.t.Fatalf("got %v, want %v", got, names_)
	}
	return m
}

func TestStateOfTheWorld(t *testing.T) {
	src := newSource(t)
	src.permit(t, "web "+me(), "db "+me())
	src.issue(t, "web", "db")
	s := serve(t, Config{Source: src})
	x := s.sotw(t, id("web"), RootSecret)
	m := x.want(id("web"), RootSecret)
	x.request(m.GetNonce(), "")

	// A renewal brings the new SVID, and not the unchanged bundle. Had the
	// acknowledgement been answered, that would come first.
	src.issue(t, "web")
	m = x.want(id("web"))
	if got := certificate(t, open(t, m.GetResources()[0])).SerialNumber.String(); got != src.serial("web") {
		t.Errorf("serial %s, want %s", got, src.serial("web"))
	}
	// A rejected one is not sent again by itself; the next one is.
	x.request(m.GetNonce(), "I do not like it")
	src.issue(t, "db", "web")
	m = x.want(id("web"))
	// An answer to an earlier response changes nothing.
	x.names = []string{id("web"), RootSecret, id("db")}
	x.request("1", "")
	src.issue(t, "web")
	stale := m.GetNonce()
	if m = x.want(id("web")); m.GetNonce() == stale {
		t.Error("a nonce was used twice")
	}
	// To ask for one more brings that one alone.
	x.request(m.GetNonce(), "")
	m = x.want(id("db"))
	if !strings.Contains(s.log.String(), "I do not like it") {
		t.Error("a rejection is not in the log")
	}
	// What is no longer asked for is not sent; asked for again, it is.
	x.names = []string{RootSecret, id("db")}
	x.request(m.GetNonce(), "")
	x.names = []string{RootSecret, id("db"), id("web")}
	x.request(m.GetNonce(), "")
	x.want(id("web"))
	// A new signer is in the bundle at once.
	src.more = append(src.more, idtest.NewSigner(t, td))
	src.publish()
	m = x.want(RootSecret)
	if got := anchors(t, open(t, m.GetResources()[0]).GetValidationContext().GetTrustedCa().GetInlineBytes()); len(got) != 2 {
		t.Errorf("%d anchors", len(got))
	}
	// A name that is not the caller's is named, and the stream goes on.
	x.names = append(x.names, id("other"))
	x.request(m.GetNonce(), "")
	if m = x.want(); len(m.GetResourceErrors()) != 1 || m.GetResourceErrors()[0].GetResourceName().GetName() != id("other") {
		t.Errorf("errors: %v", m.GetResourceErrors())
	}
	// A withdrawn identity ends the stream.
	src.permit(t, "db "+me())
	_, err := x.Recv()
	wantCode(t, "withdrawn", err, codes.PermissionDenied, id("web"))
}

func TestStateOfTheWorldUnpermitted(t *testing.T) {
	src := newSource(t)
	src.permit(t, "web "+me(), "db "+notMe())
	src.issue(t, "web", "db")
	s := serve(t, Config{Source: src})
	_, err := s.sotw(t, id("db")).Recv()
	wantCode(t, "another's identity", err, codes.PermissionDenied, id("db"))
	src.permit(t)
	_, err = s.sotw(t, DefaultSecret).Recv()
	wantCode(t, "no identity", err, codes.PermissionDenied, "no identity issued")
	x := s.sotw(t)
	if _, err = x.Recv(); err == nil {
		t.Error("everything, for a caller without an identity")
	}
	// One that is coming is waited for.
	src.permit(t, "web "+me(), "late "+me())
	x = s.sotw(t, id("late"))
	src.issue(t, "late")
	x.want(id("late"))
}

// delta is an incremental stream.
type delta struct {
	t *testing.T
	secretv3.SecretDiscoveryService_DeltaSecretsClient
}

func (s *server) delta(t *testing.T, r *discoveryv3.DeltaDiscoveryRequest) *delta {
	t.Helper()
	stream, err := s.sds(t).DeltaSecrets(limited(t))
	if err != nil {
		t.Fatal(err)
	}
	x := &delta{t, stream}
	r.TypeUrl = secretType
	x.send(r)
	return x
}

func (x *delta) send(r *discoveryv3.DeltaDiscoveryRequest) {
	x.t.Helper()
	if err := x.Send(r); err != nil && err != io.EOF { // a stream that has ended: Recv tells why
		x.t.Fatal(err)
	}
}

// want receives a response; names with a leading minus are removed ones.
func (x *delta) want(want ...string) *discoveryv3.DeltaDiscoveryResponse {
	x.t.Helper()
	m, err := x.Recv()
	if err != nil {
		x.t.Fatal(err)
	}
	var got []string
	for _, r := range m.GetResources() {
		got = append(got, r.GetName())
		if open(x.t, r.GetResource()).GetName() != r.GetName() || r.GetVersion() == "" {
			x.t.Errorf("resource %v", r)
		}
	}
	for _, n := range m.GetRemovedResources() {
		got = append(got, "-"+n)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		x.t.Fatalf("got %v, want %v", got, want)
	}
	x.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: secretType, ResponseNonce: m.GetNonce()})
	return m
}

func TestDelta(t *testing.T) {
	src := newSource(t)
	src.permit(t, "web "+me(), "db "+me(), "other "+notMe())
	src.issue(t, "web", "db", "other")
	s := serve(t, Config{Source: src})
	x := s.delta(t, &discoveryv3.DeltaDiscoveryRequest{ResourceNamesSubscribe: []string{id("web"), RootSecret, id("other")}})
	m := x.want(id("web"), RootSecret, "-"+id("other"))
	if len(m.GetResourceErrors()) != 1 || !strings.Contains(m.GetResourceErrors()[0].GetErrorDetail().GetMessage(), "no entry") {
		t.Errorf("errors %v", m.GetResourceErrors())
	}
	versions := map[string]string{}
	for _, r := range m.GetResources() {
		versions[r.GetName()] = r.GetVersion()
	}
	src.issue(t, "web")
	m = x.want(id("web"))
	if m.GetResources()[0].GetVersion() == versions[id("web")] {
		t.Error("a new SVID has the version of the old one")
	}
	x.send(&discoveryv3.DeltaDiscoveryRequest{ResponseNonce: m.GetNonce(), ErrorDetail: &rpcstatus.Status{Message: "no thanks"}})
	x.send(&discoveryv3.DeltaDiscoveryRequest{ResourceNamesSubscribe: []string{id("db")}})
	x.want(id("db"))
	// Unsubscribed, its renewal is not sent; subscribed again, it is sent anew.
	x.send(&discoveryv3.DeltaDiscoveryRequest{ResourceNamesUnsubscribe: []string{id("db")}})
	x.send(&discoveryv3.DeltaDiscoveryRequest{ResourceNamesSubscribe: []string{id("web")}})
	x.want(id("web"))
	src.issue(t, "db", "web")
	x.want(id("web"))
	// Withdrawn: removed; given back: sent.
	src.permit(t, "db "+me())
	x.want("-" + id("web"))
	src.permit(t, "web "+me(), "other "+me())
	x.want(id("web"), id("other"))
	src.permit(t)
	_, err := x.Recv()
	wantCode(t, "nothing left", err, codes.PermissionDenied, "no identity issued")
}

// A client that comes back says what it has, and gets what it has not.
func TestDeltaResumes(t *testing.T) {
	src := newSource(t)
	src.permit(t, "web "+me())
	src.issue(t, "web")
	s := serve(t, Config{Source: src})
	m := s.delta(t, &discoveryv3.DeltaDiscoveryRequest{}).want(id("web"), "spiffe://"+td)
	have := map[string]string{}
	for _, r := range m.GetResources() {
		have[r.GetName()] = r.GetVersion()
	}
	have["spiffe://"+td] = "older"
	x := s.delta(t, &discoveryv3.DeltaDiscoveryRequest{InitialResourceVersions: have})
	x.want("spiffe://" + td)
	src.issue(t, "web")
	x.want(id("web"))
}

func TestStreamRefusesWhatItDoesNotServe(t *testing.T) {
	src := newSource(t)
	src.permit(t, "web "+me())
	src.issue(t, "web")
	s := serve(t, Config{Source: src})
	x, err := s.sds(t).StreamSecrets(limited(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Send(&discoveryv3.DiscoveryRequest{TypeUrl: "type.googleapis.com/envoy.config.listener.v3.Listener"}); err != nil {
		t.Fatal(err)
	}
	_, err = x.Recv()
	wantCode(t, "another type", err, codes.InvalidArgument, "only type.googleapis.com")
	// The reason for long names still fits into a trailer.
	var long []string
	for range 4 {
		long = append(long, strings.Repeat(string(rune('\x01'+len(long))), maxName))
	}
	_, err = s.sotw(t, long...).Recv()
	wantCode(t, "long names that are none", err, codes.PermissionDenied, "; and 1 more")
	if n := len(err.Error()); n > 8<<10 {
		t.Errorf("the reason has %d bytes", n)
	}
	many := make([]string, maxNames+1)
	for n := range many {
		many[n] = id("x") + strings.Repeat("y", n)
	}
	_, err = s.sotw(t, many...).Recv()
	wantCode(t, "too many names", err, codes.ResourceExhausted, "may ask for")
	_, err = s.sotw(t, strings.Repeat("x", maxName+1)).Recv()
	wantCode(t, "a long name", err, codes.InvalidArgument, "bytes")
}

// A request that answers an earlier response than the last is out of date, also
// in what it asks for.
func TestStaleNonce(t *testing.T) {
	c := &call{sub: newSubscription()}
	for _, x := range []struct {
		nonce, name string
		taken       bool
	}{
		{"9", "first", true}, // of an earlier stream
		{"", "before the first response", true},
		{"1", "unknown", false},
	} {
		if err := c.request(&discoveryv3.DiscoveryRequest{ResponseNonce: x.nonce, ResourceNames: []string{x.name}}); err != nil {
			t.Fatal(err)
		}
		if c.sub.names[x.name] != x.taken {
			t.Errorf("nonce %q: %v", x.nonce, c.sub.names)
		}
	}
	first, second := c.nextNonce(), c.nextNonce()
	for nonce, taken := range map[string]bool{first: false, "": false, second: true} {
		if err := c.request(&discoveryv3.DiscoveryRequest{ResponseNonce: nonce, ResourceNames: []string{"x" + nonce}}); err != nil {
			t.Fatal(err)
		}
		if c.sub.names["x"+nonce] != taken {
			t.Errorf("nonce %q after %q: %v", nonce, second, c.sub.names)
		}
	}
}

// Only a first request without names is for everything.
func TestNoNames(t *testing.T) {
	c := &call{sub: newSubscription()}
	ask := func(names ...string) {
		t.Helper()
		if err := c.request(&discoveryv3.DiscoveryRequest{ResourceNames: names}); err != nil {
			t.Fatal(err)
		}
	}
	if ask(); !c.sub.all {
		t.Error("not everything")
	}
	if ask(); !c.sub.all {
		t.Error("everything, acknowledged, is no longer everything")
	}
	if ask("a", wildcard); !c.sub.all || !c.sub.names["a"] {
		t.Error("everything, and a name")
	}
	if ask("a"); c.sub.all {
		t.Error("everything was left out, and stayed")
	}
	if ask(); c.sub.all || len(c.sub.names) != 0 {
		t.Error("nothing became everything")
	}
}

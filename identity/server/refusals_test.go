package server

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/hauberk-mesh/hauberk/identity/identityv1"
	"github.com/hauberk-mesh/hauberk/identity/spiffe"
	"github.com/hauberk-mesh/hauberk/identity/token"
)

var testTD = spiffeid.RequireTrustDomainFromString("server.test")

// wire is a control plane's identity service as it is on port 15012.
type wire struct {
	*Server
	t    *testing.T
	dir  string
	addr string
}

func serveIdentity(t *testing.T) *wire {
	t.Helper()
	w := &wire{t: t, dir: filepath.Join(t.TempDir(), "cp")}
	var err error
	w.Server, err = Build(t.Context(), Config{Dir: w.dir, TrustDomain: testTD, ControlPlane: "one", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.addr = ln.Addr().String()
	if err := w.SetAddresses([]string{w.addr}); err != nil {
		t.Fatal(err)
	}
	opts, err := w.ServerOptions()
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(opts...)
	w.Register(g)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 2)
	go func() { _ = w.Run(ctx); done <- struct{}{} }()
	go func() { _ = g.Serve(ln); done <- struct{}{} }()
	t.Cleanup(func() { cancel(); g.Stop(); <-done; <-done; _ = w.Close() })
	return w
}

func newKey(t *testing.T) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (w *wire) mint(role token.Role, name string, services ...string) token.Token {
	w.t.Helper()
	spec := token.Spec{Role: role, Name: name}
	for _, s := range services {
		spec.Permitted = append(spec.Permitted, token.Permit{ID: w.service(s)})
	}
	tok, _, err := w.MintToken(spec)
	if err != nil {
		w.t.Fatal(err)
	}
	return tok
}

func (w *wire) service(name string) spiffeid.ID {
	id, err := spiffe.ForService(testTD, "default", "dc1", name)
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

// join returns the certificate of a new node, control plane or operator.
func (w *wire) join(role token.Role, name string, services ...string) *tls.Certificate {
	w.t.Helper()
	key := newKey(w.t)
	j, err := identityv1.JoinWith(w.t.Context(), w.mint(role, name, services...), testTD, key)
	if err != nil {
		w.t.Fatal(err)
	}
	return pair(key, j.Reply.GetChain())
}

func pair(key crypto.Signer, chain [][]byte) *tls.Certificate {
	return &tls.Certificate{Certificate: chain, PrivateKey: key}
}

// as calls the service with a certificate, or with none. What the server is does
// not matter here: it is the one under test.
func (w *wire) as(cert *tls.Certificate) identityv1.IdentityClient {
	w.t.Helper()
	conf := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13}
	if cert != nil {
		conf.Certificates = []tls.Certificate{*cert}
	}
	c, err := grpc.NewClient("passthrough:///"+w.addr, grpc.WithTransportCredentials(credentials.NewTLS(conf)))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.Close() })
	return identityv1.NewIdentityClient(c)
}

func (w *wire) csr(key crypto.Signer, change func(*x509.CertificateRequest)) []byte {
	w.t.Helper()
	r := &x509.CertificateRequest{}
	if change != nil {
		change(r)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, r, key)
	if err != nil {
		w.t.Fatal(err)
	}
	return der
}

// stranger is a certificate for the right name by another CA.
func stranger(t *testing.T, id string) *tls.Certificate {
	t.Helper()
	key := newKey(t)
	u, err := url.Parse(id)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		URIs: []*url.URL{u}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pair(key, [][]byte{der})
}

// calls are the methods of port 15012, each so that only the caller decides.
func calls(t *testing.T, w *wire, caller *tls.Certificate) map[string]func(context.Context, identityv1.IdentityClient) error {
	// A renewal for another key would be a rotation.
	key := newKey(t)
	if caller != nil {
		key = caller.PrivateKey.(crypto.Signer)
	}
	csr := w.csr(key, nil)
	return map[string]func(context.Context, identityv1.IdentityClient) error{
		"Renew": func(ctx context.Context, c identityv1.IdentityClient) error {
			_, err := c.Renew(ctx, &identityv1.RenewRequest{Csr: csr})
			return err
		},
		"IssueWorkload": func(ctx context.Context, c identityv1.IdentityClient) error {
			_, err := c.IssueWorkload(ctx, &identityv1.IssueWorkloadRequest{SpiffeId: w.service("api").String(), Csr: csr})
			return err
		},
		"WatchTrust": func(ctx context.Context, c identityv1.IdentityClient) error {
			s, err := c.WatchTrust(ctx, &identityv1.WatchTrustRequest{})
			if err == nil {
				_, err = s.Recv()
			}
			return err
		},
		"Report": func(ctx context.Context, c identityv1.IdentityClient) error {
			_, err := c.Report(ctx, &identityv1.ReportRequest{})
			return err
		},
		"AdmitControlPlane": func(ctx context.Context, c identityv1.IdentityClient) error {
			_, err := c.AdmitControlPlane(ctx, &identityv1.AdmitControlPlaneRequest{})
			return err
		},
		"PeerSync": func(ctx context.Context, c identityv1.IdentityClient) error {
			s, err := c.PeerSync(ctx)
			if err == nil {
				_ = s.Send(&identityv1.PeerState{}) // Recv tells why it failed
				_, err = s.Recv()
			}
			return err
		},
	}
}

// refusedCaller tells a refusal of the caller from one of the request.
func refusedCaller(err error) bool {
	switch status.Code(err) {
	case codes.Unauthenticated, codes.PermissionDenied, codes.Unavailable: // Unavailable: the handshake failed
		return true
	}
	return false
}

// TestWhoMayCallWhat: every method of the port, by every kind of caller. The
// table is written out here, not read from the code.
func TestWhoMayCallWhat(t *testing.T) {
	w := serveIdentity(t)
	node := w.join(token.RoleNode, "n1", "api")
	key := newKey(t)
	reply, err := w.as(node).IssueWorkload(t.Context(), &identityv1.IssueWorkloadRequest{SpiffeId: w.service("api").String(), Csr: w.csr(key, nil)})
	if err != nil {
		t.Fatal(err)
	}
	callers := map[string]*tls.Certificate{
		"nobody":       nil,
		"node":         node,
		"operator":     w.join(token.RoleOperator, "alice"),
		"controlplane": w.join(token.RoleControlPlane, "two"),
		"workload":     pair(key, reply.GetChain()),
		"stranger":     stranger(t, "spiffe://server.test/hauberk/node/n1"),
	}
	allowed := map[string]string{
		"Renew":             "node operator controlplane",
		"IssueWorkload":     "node",
		"WatchTrust":        "node operator",
		"Report":            "node",
		"AdmitControlPlane": "controlplane",
		"PeerSync":          "controlplane",
	}
	for who, cert := range callers {
		for method, call := range calls(t, w, cert) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			err := call(ctx, w.as(cert))
			cancel()
			may := strings.Contains(" "+allowed[method]+" ", " "+who+" ")
			if may == refusedCaller(err) {
				t.Errorf("%s by %s: %v, allowed %t", method, who, err, may)
			}
		}
	}
}

// TestNamesComeFromTheRecord: what a CSR asks for is not what is signed.
func TestNamesComeFromTheRecord(t *testing.T) {
	w := serveIdentity(t)
	admin, _ := url.Parse("spiffe://server.test/hauberk/controlplane/one")
	greedy := func(r *x509.CertificateRequest) {
		r.Subject = pkix.Name{CommonName: "root"}
		r.URIs, r.DNSNames, r.IPAddresses, r.EmailAddresses = []*url.URL{admin}, []string{"cp.example.com"}, []net.IP{net.IPv4(127, 0, 0, 1)}, []string{"root@example.com"}
	}
	check := func(what, want string, chain [][]byte) {
		t.Helper()
		c, err := x509.ParseCertificate(chain[0])
		if err != nil {
			t.Fatal(err)
		}
		if len(c.URIs) != 1 || c.URIs[0].String() != want || len(c.DNSNames)+len(c.IPAddresses)+len(c.EmailAddresses) > 0 || c.Subject.CommonName == "root" || c.IsCA {
			t.Errorf("%s: %v %v %v %q, want %s alone", what, c.URIs, c.DNSNames, c.IPAddresses, c.Subject, want)
		}
	}
	key, tok := newKey(t), w.mint(token.RoleNode, "n1", "api")
	joined, err := w.as(nil).Join(t.Context(), &identityv1.JoinRequest{TokenId: tok.ID, Secret: tok.Secret(), Csr: w.csr(key, greedy), TrustDomain: testTD.Name()})
	if err != nil {
		t.Fatal(err)
	}
	check("join", "spiffe://server.test/hauberk/node/n1", joined.GetChain())
	c := w.as(pair(key, joined.GetChain()))
	renewed, err := c.Renew(t.Context(), &identityv1.RenewRequest{Csr: w.csr(key, greedy)})
	if err != nil {
		t.Fatal(err)
	}
	check("renewal", "spiffe://server.test/hauberk/node/n1", renewed.GetChain())
	issued, err := c.IssueWorkload(t.Context(), &identityv1.IssueWorkloadRequest{SpiffeId: w.service("api").String(), Csr: w.csr(newKey(t), greedy)})
	if err != nil {
		t.Fatal(err)
	}
	check("workload", w.service("api").String(), issued.GetChain())
}

// TestWhatANodeIsNotGiven: identities beyond its record, the reserved ones, those
// of another trust domain, and everything once it is banned.
func TestWhatANodeIsNotGiven(t *testing.T) {
	w := serveIdentity(t)
	node := w.join(token.RoleNode, "n1", "api")
	c := w.as(node)
	for _, id := range []string{
		w.service("web").String(), "spiffe://server.test/hauberk/controlplane/one", "spiffe://server.test/hauberk/node/n1",
		"spiffe://other.test/ns/default/dc/dc1/svc/api", "spiffe://server.test/ns/default/dc/dc1/svc/API", "", "spiffe://server.test",
	} {
		if r, err := c.IssueWorkload(t.Context(), &identityv1.IssueWorkloadRequest{SpiffeId: id, Csr: w.csr(newKey(t), nil)}); err == nil {
			t.Errorf("%q was issued: %d certificates", id, len(r.GetChain()))
		}
	}
	for name, csr := range map[string][]byte{"no CSR": nil, "rubbish": []byte("x"), "someone else's key": forged(t, w)} {
		if _, err := c.IssueWorkload(t.Context(), &identityv1.IssueWorkloadRequest{SpiffeId: w.service("api").String(), Csr: csr}); err == nil {
			t.Errorf("%s was signed", name)
		}
	}
	if _, err := w.BanNode(token.RoleNode, "n1", "stolen"); err != nil {
		t.Fatal(err)
	}
	for name, call := range calls(t, w, node) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		err := call(ctx, w.as(node))
		cancel()
		if name == "WatchTrust" {
			continue // it learns there that it is banned, and why
		}
		if !refusedCaller(err) {
			t.Errorf("%s by a banned node: %v", name, err)
		}
	}
	if _, _, err := w.MintToken(token.Spec{Role: token.RoleNode, Name: "n1"}); err == nil {
		t.Error("a token was made for a banned node")
	}
}

// forged is a CSR whose signature is not by the key that it names.
func forged(t *testing.T, w *wire) []byte {
	t.Helper()
	der := w.csr(newKey(t), nil)
	der[len(der)-1] ^= 1
	return der
}

// TestTokenIsGoodOnce: many that use it at once, and one afterwards.
func TestTokenIsGoodOnce(t *testing.T) {
	w := serveIdentity(t)
	tok := w.mint(token.RoleNode, "n1", "api")
	var good atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		c, csr := w.as(nil), w.csr(newKey(t), nil)
		wg.Go(func() {
			if _, err := c.Join(t.Context(), &identityv1.JoinRequest{TokenId: tok.ID, Secret: tok.Secret(), Csr: csr, TrustDomain: testTD.Name()}); err == nil {
				good.Add(1)
			}
		})
	}
	wg.Wait()
	if good.Load() != 1 {
		t.Errorf("%d joins by one token", good.Load())
	}
	wrong := make([]byte, len(tok.Secret()))
	other := w.mint(token.RoleNode, "n2", "api")
	for name, r := range map[string]*identityv1.JoinRequest{
		"again":            {TokenId: tok.ID, Secret: tok.Secret()},
		"a wrong secret":   {TokenId: other.ID, Secret: wrong},
		"no secret":        {TokenId: other.ID},
		"half a secret":    {TokenId: other.ID, Secret: other.Secret()[:8]},
		"another's secret": {TokenId: other.ID, Secret: tok.Secret()},
		"no such token":    {TokenId: strings.Repeat("0", len(tok.ID)), Secret: tok.Secret()},
		"a path":           {TokenId: "../nodes", Secret: tok.Secret()},
		"another mesh":     {TokenId: other.ID, Secret: other.Secret(), TrustDomain: "elsewhere.test"},
		"no CSR":           {TokenId: other.ID, Secret: other.Secret(), Csr: []byte{0}},
	} {
		if r.TrustDomain == "" {
			r.TrustDomain = testTD.Name()
		}
		if r.Csr == nil {
			r.Csr = w.csr(newKey(t), nil)
		}
		if _, err := w.as(nil).Join(t.Context(), r); err == nil {
			t.Errorf("%s: joined", name)
		}
	}
}

// TestNothingSecretLiesInTheStateDirectory: of a token only the hash is kept, and
// every file is its owner's alone.
func TestNothingSecretLiesInTheStateDirectory(t *testing.T) {
	w := serveIdentity(t)
	tok := w.mint(token.RoleNode, "n1", "api")
	text := tok.Reveal()
	secret := text[strings.LastIndexByte(text, '.')+1:]
	err := filepath.WalkDir(w.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %o", path, info.Mode().Perm())
		}
		if d.IsDir() {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, form := range []string{secret, string(tok.Secret()), hex.EncodeToString(tok.Secret()), base64.StdEncoding.EncodeToString(tok.Secret()), base64.RawURLEncoding.EncodeToString(tok.Secret())} {
			if strings.Contains(string(b), form) {
				t.Errorf("%s holds the token's secret", path)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

package tlscontext

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/internal/handshake"
)

// found are secrets that a test has discovered.
type found struct {
	has  map[string]*Discovered
	asOf time.Time
	bad  error
}

func (f *found) Usable(SecretRef) error         { return f.bad }
func (f *found) Lookup(r SecretRef) *Discovered { return f.has[r.Name] }
func (f *found) AsOf(SecretRef) time.Time       { return f.asOf }
func secretOf(name string) *SecretRef           { return &SecretRef{Name: name, Cluster: "keeper"} }
func certificateOf(own Certificate) *Discovered { return &Discovered{Certificate: &own} }
func trustIn(a *authority) *Discovered {
	return &Discovered{Validation: &Validation{CA: Source{Inline: Secret(a.pem())}, MaxDepth: DefaultDepth}}
}

// Before its secrets have come a context has no handshakes, on either side; then it has,
// and what comes later is for those that begin later.
func TestAbsentSecret(t *testing.T) {
	a := newAuthority(t, "ca")
	issue := func(name string) *issued {
		return a.issue(&x509.Certificate{DNSNames: []string{name}, URIs: uri("spiffe://td/" + name), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}})
	}
	secrets := &found{has: map[string]*Discovered{}, asOf: time.Now()}
	common := func(own string) Common {
		return Common{
			Certificates: []Certificate{{Secret: secretOf(own)}}, MinVersion: tls.VersionTLS13, MaxVersion: tls.VersionTLS13,
			Validation: &Validation{Secret: secretOf("trust"), MaxDepth: DefaultDepth},
		}
	}
	server := &Server{Common: common("api"), RequireClientCertificate: true}
	client := &Client{Common: common("web"), SNI: "api"}
	o := Options{Secrets: secrets}
	s, err := NewServer(server, o)
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewClient(client, o)
	if err != nil {
		t.Fatal(err)
	}
	handshake := func() (serverErr, clientErr error) {
		_, _, serverErr, clientErr = shake(t, s.ServerConfig(server), c.ClientConfig())
		return serverErr, clientErr
	}
	log := slog.New(slog.DiscardHandler)
	refresh := func() { s.Refresh(log); c.Refresh(log) }

	if err, _ := handshake(); err == nil || !strings.Contains(err.Error(), `secret "api" of cluster "keeper" has not come yet`) {
		t.Errorf("the server: %v", err)
	}
	api := issue("api")
	secrets.has["api"], secrets.has["trust"] = certificateOf(api.own()), trustIn(a)
	refresh()
	if s.Own().ID != "spiffe://td/api" || c.Own().ID != "" {
		t.Errorf("the identities are %q and %q", s.Own().ID, c.Own().ID)
	}
	if _, err := handshake(); err == nil || !strings.Contains(err.Error(), `secret "web" of cluster "keeper" has not come yet`) {
		t.Errorf("the client: %v", err)
	}
	secrets.has["web"] = certificateOf(issue("web").own())
	refresh()
	if serverErr, clientErr := handshake(); serverErr != nil || clientErr != nil {
		t.Fatalf("%v, %v", serverErr, clientErr)
	}

	// Trust in somebody else ends it, and what cannot be used does not end that.
	secrets.has["trust"] = trustIn(newAuthority(t, "other"))
	refresh()
	var refused *VerifyError
	if _, err := handshake(); !errors.As(err, &refused) {
		t.Errorf("after trust was withdrawn: %v", err)
	}
	secrets.has["trust"] = certificateOf(api.own())
	refresh()
	if _, err := handshake(); !errors.As(err, &refused) {
		t.Errorf("a certificate in place of trust: %v", err)
	}
	secrets.has["trust"] = &Discovered{Validation: &Validation{MaxDepth: DefaultDepth}}
	refresh()
	if _, err := handshake(); !errors.As(err, &refused) {
		t.Errorf("trust in nobody in particular: %v", err)
	}
}

// TestOwnIsWhatIsPresented: what a log says of our certificate is so, when it changes meanwhile.
func TestOwnIsWhatIsPresented(t *testing.T) {
	a := newAuthority(t, "ca")
	issue := func(name string) *issued {
		return a.issue(&x509.Certificate{DNSNames: []string{name}, URIs: uri("spiffe://td/" + name), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}})
	}
	secrets := &found{has: map[string]*Discovered{"trust": trustIn(a), "web": certificateOf(issue("old").own())}, asOf: time.Now()}
	c, err := NewClient(&Client{Common: Common{
		Certificates: []Certificate{{Secret: secretOf("web")}}, MinVersion: tls.VersionTLS13, MaxVersion: tls.VersionTLS13,
		Validation: &Validation{Secret: secretOf("trust"), MaxDepth: DefaultDepth},
	}}, Options{Secrets: secrets})
	if err != nil {
		t.Fatal(err)
	}
	cfg, own := c.ClientOnce()
	secrets.has["web"] = certificateOf(issue("new").own())
	c.Refresh(slog.New(slog.DiscardHandler))
	serving := &Server{RequireClientCertificate: true, Common: Common{
		Certificates: []Certificate{issue("api").own()}, MinVersion: tls.VersionTLS13, MaxVersion: tls.VersionTLS13,
		Validation: &Validation{CA: Source{Inline: Secret(a.pem())}, MaxDepth: DefaultDepth},
	}}
	server, err := NewServer(serving, Options{})
	if err != nil {
		t.Fatal(err)
	}
	side, _, serverErr, clientErr := shake(t, server.ServerConfig(serving), cfg)
	if serverErr != nil || clientErr != nil {
		t.Fatal(serverErr, clientErr)
	}
	seen := side.ConnectionState().PeerCertificates[0].URIs[0].String()
	if seen != own.ID || seen != "spiffe://td/old" || c.Own().ID != "spiffe://td/new" {
		t.Errorf("the server was shown %q; ours is %q, and then %q", seen, own.ID, c.Own().ID)
	}
}

// A secret may add what a context leaves out, and the context what the secret does.
// TestPinsOfASecret: pins that are discovered, and nothing besides, accept a certificate that has expired, and say
// that its end is nobody's business; with an authority, a pin is not enough.
func TestPinsOfASecret(t *testing.T) {
	a := newAuthority(t, "ca")
	use := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	old := a.issue(&x509.Certificate{ExtKeyUsage: use, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)})
	pins := &Validation{Hash: [][32]byte{sha256.Sum256(old.cert.Raw)}, MaxDepth: DefaultDepth}
	both := *pins
	both.CA = Source{Inline: Secret(a.pem())}
	for _, v := range []*Validation{pins, &both} {
		server := &Server{Common: Common{Certificates: []Certificate{a.issue(&x509.Certificate{DNSNames: []string{"api"}}).own()},
			MinVersion: tls.VersionTLS13, MaxVersion: tls.VersionTLS13, Validation: &Validation{Secret: secretOf("trust"), MaxDepth: DefaultDepth}}, RequireClientCertificate: true}
		s, err := NewServer(server, Options{Secrets: &found{has: map[string]*Discovered{"trust": {Validation: v}}}})
		if err != nil {
			t.Fatal(err)
		}
		told, pinned := 0, false
		cfg := handshake.Listen(s.ServerConfig(server), io.Discard, func(_ []*x509.Certificate, p bool) { told, pinned = told+1, p })
		_, _, err, _ = shake(t, cfg, &tls.Config{InsecureSkipVerify: true,
			Certificates: []tls.Certificate{{Certificate: [][]byte{old.cert.Raw}, PrivateKey: old.key}}})
		if alone := v == pins; alone != (err == nil) || alone != pinned || alone != (told == 1) {
			t.Errorf("pins alone %v: %v, told %d times, pinned %v", alone, err, told, pinned)
		}
	}
}

func TestMergedSecret(t *testing.T) {
	a := newAuthority(t, "ca")
	api := a.issue(&x509.Certificate{DNSNames: []string{"api"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	secrets := &found{has: map[string]*Discovered{"trust": trustIn(a)}, asOf: time.Now()}
	for name, want := range map[string]bool{"api": true, "db": false} {
		c, err := NewClient(&Client{Common: Common{
			MinVersion: tls.VersionTLS13, MaxVersion: tls.VersionTLS13,
			Validation: &Validation{Secret: secretOf("trust"), Names: exact(DNS, name), MaxDepth: DefaultDepth},
		}}, Options{Secrets: secrets})
		if err != nil {
			t.Fatal(err)
		}
		_, _, _, err = shake(t, serverOf(t, api.own()), c.ClientConfig())
		if (err == nil) != want {
			t.Errorf("as %s: %v", name, err)
		}
	}
}

// What nobody can discover is said when the configuration comes.
func TestUnusableSecret(t *testing.T) {
	cfg := &Server{Common: Common{Certificates: []Certificate{{Secret: secretOf("api")}}}}
	for _, o := range []Options{{}, {Secrets: &found{bad: errors.New("nobody has it")}}} {
		if _, err := NewServer(cfg, o); err == nil || !strings.Contains(err.Error(), `secret "api" of cluster "keeper"`) {
			t.Error(err)
		}
	}
}

// How old trust is tells its source, too.
func TestAgeOfASecret(t *testing.T) {
	a := newAuthority(t, "ca")
	secrets := &found{has: map[string]*Discovered{"trust": trustIn(a)}, asOf: time.Now().Add(-time.Hour)}
	cache := NewCache(slog.New(slog.DiscardHandler), secrets)
	cfg := &Client{Common: Common{Validation: &Validation{Secret: secretOf("trust"), MaxDepth: DefaultDepth}}}
	if _, err := cache.Client(cfg); err != nil {
		t.Fatal(err)
	}
	if got := cache.AsOf()[`secret "trust" of cluster "keeper"`]; !got.Equal(secrets.asOf) {
		t.Errorf("as of %v", got)
	}
	if got := cache.Anchors()[`secret "trust" of cluster "keeper"`]; len(got) != 1 {
		t.Errorf("%d anchors", len(got))
	}
	_ = cfg.SNI // which the cache holds weakly
}

package tlscontext

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// authority signs certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	n    int64
}

type issued struct {
	cert       *x509.Certificate
	key        *ecdsa.PrivateKey
	chain, pem string // PEM of the chain and of the key
}

func newAuthority(t *testing.T, name string) *authority {
	a := &authority{t: t}
	root := a.issue(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, Subject: pkix.Name{CommonName: name}})
	a.cert, a.key = root.cert, root.key
	return a
}

func (a *authority) issue(c *x509.Certificate) *issued {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	a.n++
	c.SerialNumber = big.NewInt(a.n)
	if c.NotAfter.IsZero() {
		c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	out := &issued{key: key}
	if out.cert, err = x509.ParseCertificate(der); err != nil {
		a.t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	out.chain = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	out.pem = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
	return out
}

func (a *authority) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}))
}

func (a *authority) crl(next time.Time, revoked ...*issued) string {
	a.t.Helper()
	l := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: next}
	for _, r := range revoked {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: r.cert.SerialNumber, RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, l, a.cert, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))
}

func (i *issued) own() Certificate {
	return Certificate{Chain: Source{Inline: Secret(i.chain)}, Key: Source{Inline: Secret(i.pem)}}
}

// shake has both sides shake hands; each error is that side's.
func shake(t *testing.T, server *tls.Config, client *tls.Config) (s, c *tls.Conn, serverErr, clientErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	far, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	_, _ = near.SetDeadline(deadline), far.SetDeadline(deadline)
	s, c = tls.Server(near, server), tls.Client(far, client)
	done := make(chan error, 1)
	go func() {
		err := s.Handshake()
		if err != nil {
			_ = near.Close()
		}
		done <- err
	}()
	clientErr = c.Handshake()
	if clientErr != nil {
		_ = far.Close()
	}
	serverErr = <-done
	t.Cleanup(func() { _, _ = near.Close(), far.Close() })
	return s, c, serverErr, clientErr
}

func ptr(s string) *string { return &s }

func exact(t NameType, s string) []NameMatch {
	return []NameMatch{{Type: t, Match: &route.StringMatch{Exact: ptr(s)}}}
}

func uri(s string) []*url.URL {
	u, _ := url.Parse(s)
	return []*url.URL{u}
}

// spelled is the extension of a certificate that has its URIs spelt so.
func spelled(t *testing.T, uris ...string) []pkix.Extension {
	t.Helper()
	var names []asn1.RawValue
	for _, u := range uris {
		names = append(names, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(u)})
	}
	san, err := asn1.Marshal(names)
	if err != nil {
		t.Fatal(err)
	}
	return []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: san}}
}

// TestOwnNameIsAsItIsSpelt: the own identity is what peers read in the certificate.
func TestOwnNameIsAsItIsSpelt(t *testing.T) {
	ca := newAuthority(t, "ca")
	for _, c := range []struct {
		uris []string
		want string
	}{
		{[]string{"spiffe://td/api"}, "spiffe://td/api"},
		{[]string{"spiffe://td/api#"}, "spiffe://td/api#"},
		{[]string{"SPIFFE://td/api"}, "SPIFFE://td/api"},
		{[]string{"spiffe://td/a b"}, "spiffe://td/a b"},
		{[]string{"https://td/api"}, ""},
		{[]string{"spiffe://td/api", "spiffe://td/web"}, ""},
	} {
		own := ca.issue(&x509.Certificate{ExtraExtensions: spelled(t, c.uris...)})
		s, err := NewServer(&Server{Common: Common{Certificates: []Certificate{own.own()}, MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS13}}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Own().ID; got != c.want {
			t.Errorf("%q: %q, want %q", c.uris, got, c.want)
		}
	}
}

// serverOf is a listening side that shows a certificate to anyone.
func serverOf(t *testing.T, own ...Certificate) *tls.Config {
	t.Helper()
	cfg := &Server{Common: Common{Certificates: own, MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS13}}
	c, err := NewServer(cfg, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c.ServerConfig(cfg)
}

// TestAddressesAreNotMapped: an address of 16 bytes is not the IPv4 address that it maps, which
// constraints on IPv4 addresses do not see (RFC 5280 4.2.1.10 goes by the length).
func TestAddressesAreNotMapped(t *testing.T) {
	ca := newAuthority(t, "ca")
	san, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 7, Bytes: net.IPv4(10, 1, 2, 3).To16()}})
	if err != nil {
		t.Fatal(err)
	}
	leaf := ca.issue(&x509.Certificate{ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: san}}}).cert
	if len(leaf.IPAddresses) != 1 || len(leaf.IPAddresses[0]) != 16 {
		t.Fatal(leaf.IPAddresses)
	}
	if exact(IP, "10.1.2.3")[0].Matches(leaf) {
		t.Error("a rule takes it for the IPv4 address")
	}
	if !exact(IP, "::ffff:10.1.2.3")[0].Matches(leaf) {
		t.Error("no rule sees it")
	}
	for _, verify := range []func(name string) error{
		func(name string) error { return VerifyName([]*x509.Certificate{leaf}, name) },
		func(name string) error {
			_, err := (&verifier{cfg: &Validation{}}).judge([]*x509.Certificate{leaf}, name, false)
			return err
		},
	} {
		if verify("10.1.2.3") == nil {
			t.Error("it is valid for the IPv4 address")
		}
		if err := verify("::ffff:10.1.2.3"); err != nil {
			t.Error(err)
		}
	}
}

// TestVerification: what a client accepts of a server, each way that a context can
// say it, and that the reason is told.
func TestVerification(t *testing.T) {
	ca, other := newAuthority(t, "ca"), newAuthority(t, "other")
	use := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	leaf := ca.issue(&x509.Certificate{ExtKeyUsage: use, DNSNames: []string{"*.example.com", "api.internal"}, URIs: uri("spiffe://td/api"),
		IPAddresses: []net.IP{net.IPv4(10, 1, 2, 3)}, EmailAddresses: []string{"ops@example.com"}})
	spelt := func(uri string) *issued {
		return ca.issue(&x509.Certificate{ExtKeyUsage: use, ExtraExtensions: spelled(t, uri)})
	}
	expired := ca.issue(&x509.Certificate{ExtKeyUsage: use, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)})
	forClients := ca.issue(&x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	spki, hash := sha256.Sum256(leaf.cert.RawSubjectPublicKeyInfo), sha256.Sum256(leaf.cert.Raw)
	anchored := func(change func(*Validation)) *Validation {
		v := &Validation{CA: Source{Inline: Secret(ca.pem())}, MaxDepth: 100}
		if change != nil {
			change(v)
		}
		return v
	}
	names := func(m ...NameMatch) *Validation { return anchored(func(v *Validation) { v.Names = m }) }
	match := func(m route.StringMatch, of NameType) *Validation { return names(NameMatch{Type: of, Match: &m}) }
	future := time.Now().Add(time.Hour)
	for _, tc := range []struct {
		name   string
		show   *issued
		v      *Validation
		sni    string
		verify bool
		rule   string // of the refusal, empty for none
	}{
		{name: "chain", show: leaf, v: anchored(nil)},
		{name: "another authority", show: leaf, v: &Validation{CA: Source{Inline: Secret(other.pem())}, MaxDepth: 100}, rule: "chain"},
		{name: "expired", show: expired, v: anchored(nil), rule: "chain"},
		{name: "a client's certificate", show: forClients, v: anchored(nil), rule: "chain"},
		{name: "untrusted is accepted", show: leaf, v: &Validation{AcceptUntrusted: true}},
		{name: "URI", show: leaf, v: names(exact(URI, "spiffe://td/api")...)},
		{name: "another URI", show: leaf, v: names(exact(URI, "spiffe://td/apis")...), rule: "name"},
		{name: "URI with an empty fragment", show: spelt("spiffe://td/api#"), v: names(exact(URI, "spiffe://td/api")...), rule: "name"},
		{name: "URI with a scheme in capitals", show: spelt("SPIFFE://td/api"), v: names(exact(URI, "spiffe://td/api")...), rule: "name"},
		{name: "URI as it is spelt", show: spelt("SPIFFE://td/a b#"), v: names(exact(URI, "SPIFFE://td/a b#")...)},
		{name: "URI prefix", show: leaf, v: match(route.StringMatch{Prefix: ptr("spiffe://td/")}, URI)},
		{name: "URI suffix", show: leaf, v: match(route.StringMatch{Suffix: ptr("/web")}, URI), rule: "name"},
		{name: "URI contains", show: leaf, v: match(route.StringMatch{Contains: ptr("TD/a"), IgnoreCase: true}, URI)},
		{name: "DNS", show: leaf, v: names(exact(DNS, "api.internal")...)},
		{name: "DNS by wildcard", show: leaf, v: names(exact(DNS, "WWW.example.com")...)},
		{name: "a wildcard is one label", show: leaf, v: names(exact(DNS, "a.b.example.com")...), rule: "name"},
		{name: "DNS name in a URI matcher", show: leaf, v: names(exact(URI, "api.internal")...), rule: "name"},
		{name: "IP", show: leaf, v: names(exact(IP, "10.1.2.3")...)},
		{name: "email", show: leaf, v: names(exact(Email, "ops@example.com")...)},
		{name: "any of several", show: leaf, v: names(append(exact(DNS, "no"), exact(Email, "ops@example.com")...)...)},
		{name: "SPKI", show: leaf, v: &Validation{SPKI: [][32]byte{{}, spki}}},
		{name: "hash", show: leaf, v: anchored(func(v *Validation) { v.SPKI, v.Hash = [][32]byte{{}}, [][32]byte{hash} })},
		{name: "no pin", show: leaf, v: anchored(func(v *Validation) { v.Hash = [][32]byte{{}} }), rule: "pin"},
		{name: "server name", show: leaf, v: anchored(nil), sni: "x.example.com", verify: true},
		{name: "server name in place of others", show: leaf, v: names(exact(DNS, "elsewhere.org")...), sni: "x.example.com", verify: true},
		{name: "another server name", show: leaf, v: anchored(nil), sni: "example.org", verify: true, rule: "name"},
		{name: "no server name", show: leaf, v: anchored(nil), verify: true, rule: "name"},
		{name: "not revoked", show: leaf, v: anchored(func(v *Validation) { v.CRL.Inline = Secret(ca.crl(future, expired)) })},
		{name: "revoked", show: leaf, v: anchored(func(v *Validation) { v.CRL.Inline = Secret(ca.crl(future, leaf)) }), rule: "revoked"},
		{name: "stale list", show: leaf, v: anchored(func(v *Validation) { v.CRL.Inline = Secret(ca.crl(time.Now().Add(-time.Minute))) }), rule: "revoked"},
		{name: "list of another", show: leaf, v: anchored(func(v *Validation) { v.CRL.Inline = Secret(other.crl(future)) }), rule: "revoked"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := &Client{Common: Common{MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12, Validation: tc.v}, SNI: tc.sni, VerifySNI: tc.verify}
			c, err := NewClient(cfg, Options{})
			if err != nil {
				t.Fatal(err)
			}
			_, _, _, err = shake(t, serverOf(t, tc.show.own()), c.ClientConfig())
			var refused *VerifyError
			switch {
			case tc.rule == "" && err != nil:
				t.Error(err)
			case tc.rule != "" && (!errors.As(err, &refused) || refused.Rule != tc.rule):
				t.Errorf("got %v, want a refusal by rule %q", err, tc.rule)
			}
		})
	}
}

// TestDepth: certificates between leaf and anchor count.
func TestDepth(t *testing.T) {
	ca := newAuthority(t, "ca")
	between := ca.issue(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, Subject: pkix.Name{CommonName: "between"}})
	sub := &authority{t: t, cert: between.cert, key: between.key, n: 50}
	leaf := sub.issue(&x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	leaf.chain += between.chain
	for depth, ok := range []bool{false, false, true} {
		c, err := NewClient(&Client{Common: Common{MinVersion: tls.VersionTLS13, MaxVersion: tls.VersionTLS13,
			Validation: &Validation{CA: Source{Inline: Secret(ca.pem())}, MaxDepth: depth}}}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, _, err := shake(t, serverOf(t, leaf.own()), c.ClientConfig()); (err == nil) != ok {
			t.Errorf("depth %d: %v", depth, err)
		}
	}
}

// TestClientCertificates: who is let in with which certificate.
func TestClientCertificates(t *testing.T) {
	ca, other := newAuthority(t, "ca"), newAuthority(t, "other")
	own := ca.issue(&x509.Certificate{DNSNames: []string{"a"}})
	good := ca.issue(&x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, URIs: uri("spiffe://td/web")})
	bad := other.issue(&x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, URIs: uri("spiffe://td/web")})
	web, pin := []NameMatch{{Type: URI, Match: &route.StringMatch{Exact: new("spiffe://td/web")}}}, make([][32]byte, 1)
	for _, tc := range []struct {
		name    string
		require bool
		show    *issued
		want    bool
		also    Validation
	}{
		{"required", true, good, true, Validation{}},
		{"required and missing", true, nil, false, Validation{}},
		{"required and wrong", true, bad, false, Validation{}},
		{"optional", false, good, true, Validation{}},
		{"optional and missing", false, nil, true, Validation{}},
		{"optional and wrong", false, bad, false, Validation{}},
		{"missing where there is a name", false, nil, false, Validation{Names: web}},
		{"missing where a certificate is pinned", false, nil, false, Validation{Hash: pin}},
		{"missing where a key is pinned", false, nil, false, Validation{SPKI: pin}},
		{"missing where there are trust domains", false, nil, false, Validation{TrustDomains: []TrustDomain{{"td", Source{Inline: Secret(ca.pem())}}}}},
		{"missing where any is accepted", false, nil, true, Validation{Names: web, AcceptUntrusted: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := &Server{RequireClientCertificate: tc.require, Common: Common{Certificates: []Certificate{own.own()}, MinVersion: tls.VersionTLS13, MaxVersion: tls.VersionTLS13, Validation: &tc.also}}
			if tc.also.HideCA, tc.also.MaxDepth = true, 100; tc.also.TrustDomains == nil {
				tc.also.CA = Source{Inline: Secret(ca.pem())}
			}
			c, err := NewServer(cfg, Options{})
			if err != nil {
				t.Fatal(err)
			}
			client := &tls.Config{InsecureSkipVerify: true}
			if tc.show != nil {
				client.Certificates = []tls.Certificate{{Certificate: [][]byte{tc.show.cert.Raw}, PrivateKey: tc.show.key}}
			}
			if _, _, err, _ := shake(t, c.ServerConfig(cfg), client); (err == nil) != tc.want {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestSelection: the certificate that a client is shown.
func TestSelection(t *testing.T) {
	ca := newAuthority(t, "ca")
	named := func(names ...string) *issued { return ca.issue(&x509.Certificate{DNSNames: names}) }
	first, wild, one := named("first.org"), named("*.example.com"), named("one.example.com")
	cfg := serverOf(t, first.own(), wild.own(), one.own())
	for sni, want := range map[string]*issued{"one.example.com": one, "two.example.com": wild, "nobody.org": first, "": first, "FIRST.org": first} {
		_, c, _, err := shake(t, cfg, &tls.Config{InsecureSkipVerify: true, ServerName: sni})
		if err != nil {
			t.Fatal(err)
		}
		if got := c.ConnectionState().PeerCertificates[0]; !got.Equal(want.cert) {
			t.Errorf("%q is shown %v", sni, got.DNSNames)
		}
	}
	strict := &Server{RequireSNI: true, Common: Common{Certificates: []Certificate{first.own()}, MinVersion: tls.VersionTLS13, MaxVersion: tls.VersionTLS13, ALPN: []string{"http/1.1"}}}
	c, err := NewServer(strict, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err, _ := shake(t, c.ServerConfig(strict), &tls.Config{InsecureSkipVerify: true}); !errors.Is(err, errNoName) {
		t.Errorf("without a name: %v", err)
	}
	// A client whose protocols are all unknown is served without one, as by Envoy.
	for offer, want := range map[string]string{"http/1.1": "http/1.1", "smtp": ""} {
		_, conn, _, err := shake(t, c.ServerConfig(strict), &tls.Config{InsecureSkipVerify: true, ServerName: "a", NextProtos: []string{offer}})
		if err != nil || conn.ConnectionState().NegotiatedProtocol != want {
			t.Errorf("%s: %v", offer, err)
		}
	}
}

// TestKeyStaysIn: no error about a key, wherever it stands and whatever is wrong with it, holds a part of it.
func TestKeyStaysIn(t *testing.T) {
	ca := newAuthority(t, "ca")
	own, other := ca.issue(&x509.Certificate{}), ca.issue(&x509.Certificate{})
	body := strings.Split(own.pem, "\n")[1]
	for name, c := range map[string][2]string{
		"in place of the chain": {own.pem, own.pem},
		"of another type":       {own.chain, strings.ReplaceAll(own.pem, "PRIVATE", "EC PRIVATE")},
		"encrypted":             {own.chain, strings.ReplaceAll(own.pem, "PRIVATE", "ENCRYPTED PRIVATE")},
		"cut off":               {own.chain, own.pem[:len(own.pem)/2]},
		"damaged":               {own.chain, strings.Replace(own.pem, body, body[4:], 1)},
		"of another chain":      {other.chain, own.pem},
	} {
		file := filepath.Join(t.TempDir(), "key.pem")
		if err := os.WriteFile(file, []byte(c[1]), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, key := range []Source{{Inline: Secret(c[1])}, {File: file}} {
			cfg := &Server{Common: Common{Certificates: []Certificate{{Chain: Source{Inline: Secret(c[0])}, Key: key}}, MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS13}}
			_, err := NewServer(cfg, Options{})
			if err == nil {
				t.Errorf("%s: it was taken", name)
			} else if strings.Contains(err.Error(), body[8:24]) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// TestRotation: new files are used, broken ones are not, and nothing secret is
// shown.
func TestRotation(t *testing.T) {
	ca := newAuthority(t, "ca")
	dir := t.TempDir()
	chain, key := filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")
	write := func(i *issued) {
		for name, text := range map[string]string{chain: i.chain, key: i.pem} {
			if err := os.WriteFile(name+".new", []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(name+".new", name); err != nil {
				t.Fatal(err)
			}
		}
	}
	first := ca.issue(&x509.Certificate{DNSNames: []string{"first"}})
	second := ca.issue(&x509.Certificate{DNSNames: []string{"second"}})
	write(first)
	cfg := &Server{Common: Common{Certificates: []Certificate{{Chain: Source{File: chain}, Key: Source{File: key}}}, MinVersion: tls.VersionTLS13, MaxVersion: tls.VersionTLS13}}
	cache := NewCache(slog.New(slog.DiscardHandler), nil)
	c, err := cache.Server(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := cache.Server(cfg); again != c {
		t.Error("a context is made twice")
	}
	shown := func() string {
		_, conn, _, err := shake(t, c.ServerConfig(cfg), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		return conn.ConnectionState().PeerCertificates[0].DNSNames[0]
	}
	if got := shown(); got != "first" {
		t.Error(got)
	}
	if err := os.WriteFile(key, []byte(second.pem), 0o600); err != nil {
		t.Fatal(err)
	}
	cache.Refresh()
	if got := shown(); got != "first" {
		t.Errorf("a key that does not belong to the certificate is in use: %s", got)
	}
	write(second)
	cache.Refresh()
	if got := shown(); got != "second" {
		t.Error(got)
	}
	inline := Server{Common: Common{Certificates: []Certificate{first.own()}}}
	b, err := json.Marshal(inline)
	if text := string(b) + fmt.Sprintf("%v %+v %#v", inline, inline, inline); err != nil || strings.Contains(text, "PRIVATE KEY") {
		t.Errorf("the key is shown: %v", err)
	}
}

// TestFileWrittenTwiceAtOneTime: a file that is replaced in place within the resolution of its times, by one
// of the same size, is read again; one that nobody has written to for long is not.
func TestFileWrittenTwiceAtOneTime(t *testing.T) {
	one, two := newAuthority(t, "one"), newAuthority(t, "two")
	size := max(len(one.pem()), len(two.pem()))
	file, at := filepath.Join(t.TempDir(), "ca.pem"), time.Now()
	write := func(a *authority) {
		if err := os.WriteFile(file, []byte(a.pem()+strings.Repeat("\n", size-len(a.pem()))), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, at, at); err != nil {
			t.Fatal(err)
		}
	}
	write(one)
	c, err := NewClient(&Client{Common: Common{Validation: &Validation{CA: Source{File: file}}}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	write(two)
	c.Refresh(log)
	if got := c.state.Load().anchors[0]; !got.Equal(two.cert) {
		t.Errorf("%q is still trusted", got.Subject)
	}
	at = at.Add(-time.Hour)
	write(one)
	c.Refresh(log)
	before := c.state.Load()
	if c.Refresh(log); c.state.Load() != before || !before.anchors[0].Equal(one.cert) {
		t.Error("a file that is as it was is read again and again")
	}
}

// TestOnlyFilesAreRead: whoever waits for a pipe that nobody writes to would look at no
// other file again, and one lock would hold up all updates.
func TestOnlyFilesAreRead(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(pipe, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, link, dir, os.DevNull} {
		read := make(chan error, 1)
		go func() {
			_, err := ReadFile(path)
			read <- err
		}()
		select {
		case err := <-read:
			if err == nil || !strings.Contains(err.Error(), "is no regular file") {
				t.Errorf("%s: %v", path, err)
			}
		case <-time.After(10 * time.Second):
			if w, err := os.OpenFile(pipe, os.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil {
				_ = w.Close() // lets the reader go
			}
			t.Errorf("%s is waited for", path)
		}
	}
}

// TestOwnAuthorityAlone: the host's roots, which have every public authority, do not come
// beside a context's own, wherever either was said.
func TestOwnAuthorityAlone(t *testing.T) {
	ca := newAuthority(t, "ca")
	own, host := &Validation{CA: Source{Inline: Secret(ca.pem())}, MaxDepth: 100}, &Validation{SystemRoots: true, MaxDepth: 100}
	both := *own
	both.SystemRoots = true
	for name, v := range map[string]*Validation{"one context": &both, "the host's by a secret": own.Merge(host), "its own by a secret": host.Merge(own)} {
		m, err := load(&Common{Validation: v})
		if err != nil {
			t.Fatal(err)
		}
		if !m.roots.Equal(poolOf([]*x509.Certificate{ca.cert})) {
			t.Errorf("%s: the roots are others", name)
		}
	}
}

//go:build e2e

package differential

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// pki is what random TLS contexts, clients and hosts have for certificates: files that
// are named for what is odd about them.
type pki struct {
	dir    string
	serial int64
	certs  map[string]*x509.Certificate
	keys   map[string]crypto.Signer
}

// issued describes a certificate; the file has those of its issuers behind it, but for the root.
type issued struct {
	name, by string
	key      string // rsa, or p256 where it is empty
	names    string // dns:a uri:b ip:c email:d
	subject  string // its common name, the name where it is empty
	ca       bool
	path     int // of an authority: its constraint, -1 for none
	usage    string
	from, to time.Duration
	permits  string // names of DNS that an authority may issue
	bare     bool   // the file has none of its issuers
}

// leaves are those that are presented, to clients and by them.
var leaves = []issued{
	{name: "plain", names: "dns:a.example uri:spiffe://one.test/a ip:127.0.0.1 email:a@a.example"},
	{name: "other", names: "dns:b.example dns:c.example uri:spiffe://one.test/b", key: "rsa"},
	{name: "wild", names: "dns:*.a.example uri:spiffe://two.test/a"},
	{name: "wildrsa", names: "dns:*.a.example dns:a.example", key: "rsa"},
	{name: "upper", names: "dns:A.EXAMPLE uri:SPIFFE://ONE.test/a email:A@a.example"},
	{name: "commonname", subject: "a.example"},
	{name: "bothnames", subject: "a.example", names: "dns:z.example"},
	{name: "several", names: "uri:spiffe://one.test/a uri:spiffe://two.test/a"},
	{name: "v6", names: "ip:::1 ip:2001:db8::1 ip:127.0.0.2"},
	{name: "expired", names: "dns:a.example uri:spiffe://one.test/a", from: -3 * time.Hour, to: -time.Hour},
	{name: "early", names: "dns:a.example uri:spiffe://one.test/a", from: time.Hour, to: 2 * time.Hour},
	{name: "serveronly", names: "dns:a.example uri:spiffe://one.test/a", usage: "server"},
	{name: "clientonly", names: "dns:a.example uri:spiffe://one.test/a", usage: "client"},
	{name: "nousage", names: "dns:a.example uri:spiffe://one.test/a", usage: "none"},
	{name: "codesigning", names: "dns:a.example", usage: "code"},
	{name: "anyusage", names: "dns:a.example uri:spiffe://one.test/a", usage: "any"},
	{name: "encipher", names: "dns:a.example uri:spiffe://one.test/a", usage: "encipher", key: "rsa"},
	{name: "isca", names: "dns:a.example uri:spiffe://one.test/a", ca: true, path: -1},
	{name: "foreign", by: "rootb", names: "dns:a.example uri:spiffe://one.test/a"},
	{name: "byinter", by: "inter", names: "dns:a.example uri:spiffe://one.test/a"},
	{name: "bydeep", by: "deep", names: "dns:a.example uri:spiffe://one.test/a", key: "rsa"},
	{name: "bydeeper", by: "deeper", names: "dns:a.example uri:spiffe://one.test/a"},
	{name: "bareinter", by: "inter", names: "dns:a.example uri:spiffe://one.test/a", bare: true},
	{name: "byexpired", by: "interexpired", names: "dns:a.example"},
	{name: "bynoca", by: "plain", names: "dns:a.example uri:spiffe://one.test/a"},
	{name: "bypermit", by: "interpermit", names: "dns:a.example uri:spiffe://one.test/a"},
	{name: "bynotpermit", by: "interpermit", names: "dns:b.example"},
	{name: "bypathlen", by: "belowpathlen", names: "dns:a.example"},
	{name: "revoked", names: "dns:a.example uri:spiffe://one.test/a"},
	{name: "byrevoked", by: "interrevoked", names: "dns:a.example uri:spiffe://one.test/a"},
	{name: "byanyusage", by: "interany", names: "dns:b.example uri:spiffe://one.test/b"},
	{name: "selfsigned", by: "selfsigned", names: "dns:a.example uri:spiffe://one.test/a"},
	{name: "byrsa", by: "rootrsa", names: "dns:a.example uri:spiffe://two.test/a", key: "rsa"},
	{name: "nonames"},
}

// identities are those that a SPIFFE validator may take, which the sidecar holds to all rules of
// X.509-SVIDs, and Envoy to a few.
var identities = []string{"plain", "other", "wild", "foreign", "byinter", "bydeep", "bydeeper", "bareinter", "expired", "early", "bynoca", "revoked", "selfsigned", "byrsa", "bypermit", "commonname", "nonames"}

var authorities = []issued{
	{name: "root", by: "root", ca: true, path: -1}, {name: "rootb", by: "rootb", ca: true, path: -1}, {name: "rootrsa", by: "rootrsa", ca: true, path: -1, key: "rsa"},
	{name: "inter", ca: true, path: -1}, {name: "deep", by: "inter", ca: true, path: -1}, {name: "deeper", by: "deep", ca: true, path: -1},
	{name: "interexpired", ca: true, path: -1, from: -3 * time.Hour, to: -time.Hour}, {name: "interpermit", ca: true, path: -1, permits: "a.example"},
	{name: "interrevoked", ca: true, path: -1}, {name: "interany", ca: true, path: -1, usage: "any"},
	{name: "pathlen", ca: true, path: 0}, {name: "belowpathlen", by: "pathlen", ca: true, path: -1},
}

func newPKI(t *testing.T) *pki {
	p := &pki{dir: t.TempDir(), serial: 100, certs: map[string]*x509.Certificate{}, keys: map[string]crypto.Signer{}}
	for _, c := range append(authorities, leaves...) {
		if err := p.issue(c); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"root", "inter", "rootb", "interrevoked"} {
		if err := p.revoke(name); err != nil {
			t.Fatal(err)
		}
	}
	list := func(name string) []byte {
		b, err := os.ReadFile(p.path(name) + ".crl")
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	both := append(p.pem("root"), p.pem("rootb")...)
	for name, b := range map[string][]byte{
		"both.crt": both, "withinter.crt": append(p.pem("inter"), p.pem("root")...), "withlist.crt": append(p.pem("root"), list("root")...),
		"withlists.crt": slices.Concat(list("inter"), p.pem("root"), list("root")), "withrevoked.crt": append(p.pem("interrevoked"), p.pem("root")...),
		"lists.crl": slices.Concat(list("interrevoked"), list("root"), list("inter")),
	} {
		if err := os.WriteFile(filepath.Join(p.dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// key makes one of a kind.
func newKey(kind string) (crypto.Signer, error) {
	switch kind {
	case "rsa":
		return rsa.GenerateKey(rand.Reader, 2048)
	}
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

func (c *issued) template(serial int64) *x509.Certificate {
	now := time.Now()
	from, to := c.from, c.to
	if from == 0 {
		from, to = -2*time.Hour, 2*time.Hour
	}
	subject := c.subject
	if subject == "" {
		subject = c.name
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: subject}, NotBefore: now.Add(from), NotAfter: now.Add(to),
		BasicConstraintsValid: true, IsCA: c.ca, KeyUsage: x509.KeyUsageDigitalSignature}
	if c.ca {
		t.KeyUsage |= x509.KeyUsageCertSign | x509.KeyUsageCRLSign
		t.MaxPathLen, t.MaxPathLenZero = c.path, c.path == 0
		t.SubjectKeyId = []byte(c.name)
	}
	switch {
	case c.usage == "server":
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	case c.usage == "client":
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	case c.usage == "code":
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
	case c.usage == "any":
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
	case c.usage == "encipher":
		t.KeyUsage = x509.KeyUsageKeyEncipherment
	case c.usage == "" && !c.ca:
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	if c.permits != "" {
		t.PermittedDNSDomains, t.PermittedDNSDomainsCritical = []string{c.permits}, true
	}
	for name := range strings.FieldsSeq(c.names) {
		kind, value, _ := strings.Cut(name, ":")
		switch kind {
		case "dns":
			t.DNSNames = append(t.DNSNames, value)
		case "uri":
			u, _ := url.Parse(value)
			t.URIs = append(t.URIs, u)
		case "ip":
			t.IPAddresses = append(t.IPAddresses, net.ParseIP(value))
		case "email":
			t.EmailAddresses = append(t.EmailAddresses, value)
		}
	}
	return t
}

func (p *pki) issue(c issued) error {
	if c.by == "" {
		c.by = "root"
	}
	key, err := newKey(c.key)
	if err != nil {
		return err
	}
	p.serial++
	t := c.template(p.serial)
	parent, signer := p.certs[c.by], p.keys[c.by]
	if c.by == c.name {
		parent, signer = t, key
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, key.Public(), signer)
	if err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	if p.certs[c.name], err = x509.ParseCertificate(der); err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	p.keys[c.name] = key
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := writePEM(p.path(c.name)+".key", "PRIVATE KEY", pkcs8); err != nil {
		return err
	}
	chain := p.pem(c.name)
	for by := c.by; !c.bare && by != c.name && by != p.issuer(by); by = p.issuer(by) {
		chain = append(chain, p.pem(by)...)
	}
	return os.WriteFile(p.path(c.name)+".crt", chain, 0o600)
}

// issuer is who issued an authority, or what stands in its place.
func (p *pki) issuer(name string) string {
	for _, c := range append(authorities, leaves...) {
		if c.name == name && c.by != "" {
			return c.by
		}
	}
	return "root"
}

// revoke writes a list of an authority; in root's are the leaf "revoked" and one of its authorities.
func (p *pki) revoke(by string) error {
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour)}
	if by == "root" {
		for _, name := range []string{"revoked", "interrevoked"} {
			list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: p.certs[name].SerialNumber, RevocationTime: time.Now().Add(-time.Hour)})
		}
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, p.certs[by], p.keys[by])
	if err != nil {
		return err
	}
	return writePEM(p.path(by)+".crl", "X509 CRL", der)
}

func (p *pki) path(name string) string { return filepath.Join(p.dir, name) }

func (p *pki) pem(name string) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.certs[name].Raw})
}

// hash and key are pins of a certificate.
func (p *pki) hash(name string) string {
	sum := sha256.Sum256(p.certs[name].Raw)
	return hex.EncodeToString(sum[:])
}

func (p *pki) spki(name string) string {
	sum := sha256.Sum256(p.certs[name].RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// own is a tls_certificate.
func (p *pki) own(name string) map[string]any {
	return map[string]any{"certificate_chain": p.file(name + ".crt"), "private_key": p.file(name + ".key")}
}

func (p *pki) file(name string) map[string]any { return map[string]any{"filename": p.path(name)} }

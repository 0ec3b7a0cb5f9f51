package peercert

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"
)

func issue(t *testing.T, c *x509.Certificate) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestTexts(t *testing.T) {
	uri, _ := url.Parse("spiffe://td/a")
	leaf := issue(t, &x509.Certificate{
		SerialNumber: big.NewInt(0x1ab), Subject: pkix.Name{CommonName: "a, b", Organization: []string{"o"}}, URIs: []*url.URL{uri, uri},
		DNSNames: []string{"a.test", "b.test"}, IPAddresses: []net.IP{net.IPv4(10, 0, 0, 1)}, EmailAddresses: []string{"x@y"},
		NotBefore: time.Unix(1, 0), NotAfter: time.Unix(2, 0),
	})
	ca := issue(t, &x509.Certificate{SerialNumber: new(big.Int)})
	c := Of([]*x509.Certificate{leaf, ca}).WithIssuer(ca)
	for k, want := range map[Text]string{
		Subject: `CN=a\, b,O=o`, Issuer: `CN=a\, b,O=o`, Serial: "01ab", URIs: "spiffe://td/a,spiffe://td/a", DNSNames: "a.test,b.test",
		IPs: "10.0.0.1", Emails: "x@y", ChainSerials: "01ab,00", OtherNames: "", IssuerSerial: "00", IssuerSHA256: sum256(ca),
	} {
		if got := c.Text(k); got != want {
			t.Errorf("%d: %q, want %q", k, got, want)
		}
	}
	if len(c.Text(SHA256)) != 64 || len(c.Text(SHA1)) != 40 || !strings.HasPrefix(c.Text(ChainSHA256), c.Text(SHA256)+",") || len(c.Text(ChainSHA1)) != 81 {
		t.Error(c.Text(ChainSHA256), c.Text(ChainSHA1))
	}
	text, err := url.PathUnescape(c.Text(PEM))
	if block, _ := pem.Decode([]byte(text)); err != nil || block == nil || string(block.Bytes) != string(leaf.Raw) {
		t.Errorf("%q %v", text, err)
	}
	if from, until, ok := c.Validity(); !ok || from.Unix() != 1 || until.Unix() != 2 {
		t.Error(from, until, ok)
	}
	if n := testing.AllocsPerRun(10, func() { c.Text(Subject) }); n != 0 {
		t.Errorf("%v allocations for a text that was made", n)
	}
}

func TestNoChain(t *testing.T) {
	c := Of(nil).WithIssuer(nil)
	if _, _, ok := c.Validity(); c != nil || c.Text(Subject) != "" || ok {
		t.Error("something is known of nobody")
	}
}

func FuzzDistinguishedName(f *testing.F) {
	f.Add([]byte{0x30, 0})
	f.Fuzz(func(t *testing.T, der []byte) {
		if s := DistinguishedName(der); strings.ContainsAny(s, "\n\r\x00") {
			t.Errorf("%q", s)
		}
	})
}

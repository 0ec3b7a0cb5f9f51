package tlscontext

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/internal/handshake"
)

// TestSelectionByKey: who can take an ECDSA certificate is shown one, wherever it stands; a
// certificate without alternative names is known by its common name.
func TestSelectionByKey(t *testing.T) {
	ca := newAuthority(t, "ca")
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	withRSA := func(c *x509.Certificate) tls.Certificate {
		c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(1), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, c, ca.cert, key.Public(), ca.key)
		if err != nil {
			t.Fatal(err)
		}
		return loaded(t, der, key)
	}
	named := func(names ...string) tls.Certificate {
		own := ca.issue(&x509.Certificate{DNSNames: names})
		return loaded(t, own.cert.Raw, own.key)
	}
	s := &selector{certs: []tls.Certificate{
		withRSA(&x509.Certificate{DNSNames: []string{"both.org", "rsa.org"}}), named("both.org"), withRSA(&x509.Certificate{Subject: pkix.Name{CommonName: "common.org"}}),
		withRSA(&x509.Certificate{Subject: pkix.Name{CommonName: "ignored.org"}, DNSNames: []string{"other.org"}}),
	}, own: make([]*handshake.Own, 4)}
	cfg := &tls.Config{GetCertificate: s.present}
	modern, old := &tls.Config{}, &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}}
	for _, tc := range []struct {
		client *tls.Config
		sni    string
		want   int
	}{
		{modern, "both.org", 1}, {old, "both.org", 0}, {modern, "rsa.org", 0}, {modern, "", 1}, {old, "", 0},
		{modern, "common.org", 2}, {modern, "ignored.org", 0}, {modern, "nobody.org", 0},
	} {
		client := tc.client.Clone()
		client.ServerName, client.InsecureSkipVerify = tc.sni, true
		_, c, _, err := shake(t, cfg, client)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.ConnectionState().PeerCertificates[0]; !got.Equal(s.certs[tc.want].Leaf) {
			t.Errorf("%q is shown %s %v", tc.sni, got.PublicKeyAlgorithm, got.DNSNames)
		}
	}
}

func loaded(t *testing.T, der []byte, key crypto.PrivateKey) tls.Certificate {
	t.Helper()
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

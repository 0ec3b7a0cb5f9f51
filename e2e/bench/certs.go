package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// The identities of the two hops.
const (
	webID = "spiffe://bench.mesh/ns/default/dc/dc1/svc/web"
	apiID = "spiffe://bench.mesh/ns/default/dc/dc1/svc/api"
)

// writeCerts makes ca.crt, and a certificate and key of each hop: web.crt,
// web.key, and web.pem with both, as HAProxy reads them.
func writeCerts(dir string) error {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench CA"}, SubjectKeyId: []byte{1}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		URIs: []*url.URL{{Scheme: "spiffe", Host: "bench.mesh"}},
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return err
	}
	if err := writePEM(filepath.Join(dir, "ca.crt"), &pem.Block{Type: "CERTIFICATE", Bytes: der}); err != nil {
		return err
	}
	for i, name := range []string{"web", "api"} {
		id, err := url.Parse([]string{webID, apiID}[i])
		if err != nil {
			return err
		}
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 2)), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(12 * time.Hour),
			KeyUsage:    x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
			URIs:        []*url.URL{id}, BasicConstraintsValid: true,
			DNSNames: []string{name + ".bench"}, // HAProxy knows no other names
		}, ca, &key.PublicKey, caKey)
		if err != nil {
			return err
		}
		pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return err
		}
		c, k := &pem.Block{Type: "CERTIFICATE", Bytes: der}, &pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}
		for file, blocks := range map[string][]*pem.Block{".crt": {c}, ".key": {k}, ".pem": {c, k}} {
			if err := writePEM(filepath.Join(dir, name+file), blocks...); err != nil {
				return err
			}
		}
	}
	return nil
}

// clientTLS is of a load that speaks mTLS itself, as web. Sessions are not resumed.
func (b *bench) clientTLS() (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(b.file("web.crt"), b.file("web.key"))
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(b.file("ca.crt"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return &tls.Config{MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519}, RootCAs: roots, ServerName: "api.bench", NextProtos: []string{"http/1.1"}, Certificates: []tls.Certificate{cert}}, nil
}

func writePEM(path string, blocks ...*pem.Block) error {
	var out []byte
	for _, b := range blocks {
		out = append(out, pem.EncodeToMemory(b)...)
	}
	return os.WriteFile(path, out, 0o600)
}

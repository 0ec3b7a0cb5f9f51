package hcm

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net/url"
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/internal/peercert"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// TestClientCertDetails: each part is there where it is asked for, in Envoy's order, and
// no value can end its element.
func TestClientCertDetails(t *testing.T) {
	cert := certificate(t, webID)
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	leaf.DNSNames = []string{"a.example", `evil",By=x;y`}
	if leaf.RawIssuer, err = asn1.Marshal(pkix.Name{CommonName: `CA"`}.ToRDNSequence()); err != nil {
		t.Fatal(err)
	}
	info := &stream.Info{TLS: true, OwnID: apiID, PeerID: webID, PeerCertHash: "ab", PeerChain: []*x509.Certificate{leaf, leaf}}
	cfg := &Config{ForwardClientCert: SanitizeSet, ClientCert: ClientCert{true, true, true, true, true, true, false}}
	got := clientCertElement(cfg, info)
	parts := strings.Split(got, ";")
	if len(parts) != 10 || parts[0] != "By="+apiID || parts[1] != "Hash=ab" || !strings.HasPrefix(parts[2], `Cert="-----BEGIN%20CERTIFICATE-----%0A`) ||
		!strings.HasPrefix(parts[3], `Chain="`) || parts[4] != `Subject="`+peercert.DistinguishedName(leaf.RawSubject)+`"` || parts[5] != "URI="+webID ||
		parts[6] != "DNS=a.example" || parts[7]+";"+parts[8] != `DNS="evil\",By=x;y"` || parts[9] != `Issuer="CN=CA\""` {
		t.Errorf("%q", parts)
	}
	text, err := url.QueryUnescape(strings.Trim(strings.TrimPrefix(parts[3], "Chain="), `"`))
	if err != nil || strings.Count(text, "BEGIN CERTIFICATE") != 2 {
		t.Error(text, err)
	}
	san, err := asn1.Marshal([]asn1.RawValue{
		{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte("SPIFFE://td/a#")},
		{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte("spiffe://td/b")},
	})
	if err != nil {
		t.Fatal(err)
	}
	leaf.URIs = make([]*url.URL, 2)
	leaf.Extensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: san}}
	if got := clientCertElement(cfg, info); !strings.Contains(got, ";URI=SPIFFE://td/a#;URI=spiffe://td/b;") {
		t.Errorf("URIs are not told as they are spelt: %q", got)
	}
	cfg.ForwardClientCert = ForwardOnly
	if got := clientCertElement(cfg, info); got != "" {
		t.Error(got)
	}
	var m Manager
	m.cfg = &Config{ForwardClientCert: SanitizeSet, ClientCert: ClientCert{URI: true}}
	if m.NeedsPeerChain() {
		t.Error("a URI alone needs the chain")
	}
	m.cfg.ClientCert = ClientCert{Issuer: true}
	if !m.NeedsPeerChain() {
		t.Error("an issuer does not need the chain")
	}
}

func TestDistinguishedName(t *testing.T) {
	for want, der := range map[string]string{
		"CN=b\\,c,O=a": "\x30\x1c\x31\x0a\x30\x08\x06\x03\x55\x04\x0a\x0c\x01a\x31\x0e\x30\x0c\x06\x03\x55\x04\x03\x0c\x05b,c\x20\x20"[:0] + "\x30\x1a\x31\x0a\x30\x08\x06\x03\x55\x04\x0a\x0c\x01a\x31\x0c\x30\x0a\x06\x03\x55\x04\x03\x0c\x03b,c",
		"":             "\x30",
		"CN=\\C3\\A9":  "\x30\x0d\x31\x0b\x30\x09\x06\x03\x55\x04\x03\x0c\x02\xc3\xa9",
	} {
		if got := peercert.DistinguishedName([]byte(der)); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

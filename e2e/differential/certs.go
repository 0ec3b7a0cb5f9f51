//go:build e2e

package differential

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"maps"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// webID is who the client is.
const webID = "spiffe://differential.mesh/ns/default/dc/dc1/svc/web"

// certs are the identities of the client and of both programs.
type certs struct {
	dir   string
	roots *x509.CertPool
	web   tls.Certificate
	deep  tls.Certificate // of the same name, by an intermediate
	named map[string]tls.Certificate
}

func newCerts(dir string) (*certs, error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "differential CA"}, SubjectKeyId: []byte{1},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		URIs: []*url.URL{{Scheme: "spiffe", Host: "differential.mesh"}}}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return nil, err
	}
	c := &certs{dir: dir, roots: x509.NewCertPool(), named: map[string]tls.Certificate{}}
	if err := writePEM(c.file("ca.crt"), "CERTIFICATE", der); err != nil {
		return nil, err
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	c.roots.AddCert(root)
	others, err := otherNames()
	if err != nil {
		return nil, err
	}
	more := map[string]*x509.Certificate{
		"announced": {DNSNames: []string{"a.example", "b.example", "*.wild.example"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}},
		"several":   {URIs: []*url.URL{{Scheme: "http", Host: "several.example", Path: "/a,b;c"}}},
		"api":       {EmailAddresses: []string{"api@api.example", "b@api.example"}, IPAddresses: []net.IP{net.IPv4(10, 0, 0, 7)}},
		"rsa":       {},
		"edwards":   {URIs: []*url.URL{{Scheme: "spiffe", Host: "differential.mesh", Path: "/ns/default/dc/dc1/svc/web"}}},
		"encipher":  {DNSNames: []string{"a.example"}, KeyUsage: x509.KeyUsageKeyEncipherment},
		"odd":       {ExtraExtensions: []pkix.Extension{others}},
		"subject":   {Subject: pkix.Name{CommonName: `Ü + "q"`, Organization: []string{"a, b"}, OrganizationalUnit: []string{"x", " y "}, ExtraNames: oddNames()}},
	}
	for i, name := range []string{"web", "api", "announced", "several", "odd", "rsa", "edwards", "encipher", "subject"} {
		own := cmp.Or(more[name], &x509.Certificate{})
		key, err := keyOf(name)
		if err != nil {
			return nil, err
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(int64(i + 2)), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: cmp.Or(own.KeyUsage, x509.KeyUsageDigitalSignature),
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true,
			URIs: append(own.URIs, &url.URL{Scheme: "spiffe", Host: "differential.mesh", Path: "/ns/default/dc/dc1/svc/" + name}), DNSNames: append(own.DNSNames, name+".example"), IPAddresses: own.IPAddresses, EmailAddresses: own.EmailAddresses, ExtraExtensions: own.ExtraExtensions,
		}
		if name == "subject" {
			template.Subject, template.URIs, template.DNSNames = own.Subject, nil, nil
		}
		if name == "web" {
			if err := addOthers(template); err != nil {
				return nil, err
			}
		}
		der, err := x509.CreateCertificate(rand.Reader, template, ca, key.Public(), caKey)
		if err != nil {
			return nil, err
		}
		pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, err
		}
		if err := writePEM(c.file(name+".crt"), "CERTIFICATE", der); err != nil {
			return nil, err
		}
		if err := writePEM(c.file(name+".key"), "PRIVATE KEY", pkcs8); err != nil {
			return nil, err
		}
		if c.named[name], err = tls.LoadX509KeyPair(c.file(name+".crt"), c.file(name+".key")); err != nil {
			return nil, err
		}
	}
	if err := c.writeSecrets(); err != nil {
		return nil, err
	}
	c.web = c.named["web"]
	c.deep, err = deepen(root, caKey)
	return c, err
}

// oddNames are attributes of a subject that are seldom there, and of seldom types.
func oddNames() (out []pkix.AttributeTypeAndValue) {
	add := func(value any, id ...int) {
		out = append(out, pkix.AttributeTypeAndValue{Type: id, Value: value})
	}
	text := func(tag int, s string) asn1.RawValue { return asn1.RawValue{Tag: tag, Bytes: []byte(s)} }
	for n := 12; n < 73; n++ {
		add("a", 2, 5, 4, n)
	}
	add("a", 2, 5, 4, 97)
	for n := 1; n < 12; n++ {
		add(text(asn1.TagIA5String, "a@b.example"), 1, 2, 840, 113549, 1, 9, n)
	}
	for n := 1; n < 57; n++ {
		add("a", 0, 9, 2342, 19200300, 100, 1, n)
	}
	for n := 1; n < 4; n++ {
		add("a", 1, 3, 6, 1, 4, 1, 311, 60, 2, 1, n)
	}
	add("of no name", 1, 2, 3, 4)
	add(text(asn1.TagBMPString, "\x00b\x01\x00"), 2, 5, 4, 12)
	add(text(asn1.TagT61String, "t\xe9"), 2, 5, 4, 17)
	add("#hash", 2, 5, 4, 4)
	add(" ", 2, 5, 4, 9)
	add("a=b/c\x7f\n", 2, 5, 4, 7)
	add("", 2, 5, 4, 41)
	return out
}

// keyOf makes the key of a certificate, of the kind that its name tells.
func keyOf(name string) (crypto.Signer, error) {
	switch name {
	case "rsa", "encipher":
		return rsa.GenerateKey(rand.Reader, 2048)
	case "edwards":
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

// addOthers adds otherNames of several types to the URI and the DNS name of a certificate.
func addOthers(c *x509.Certificate) error {
	named := func(tag int, b []byte, compound bool) asn1.RawValue {
		return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, IsCompound: compound, Bytes: b}
	}
	names := []asn1.RawValue{named(6, []byte(c.URIs[0].String()), false), named(2, []byte(c.DNSNames[0]), false)}
	for last, value := range [][]byte{{12, 3, 'u', 't', 'f'}, {19, 3, 'p', 'r', 'i'}, {22, 3, 'i', 'a', '5'}, {2, 2, 0xff, 0}, {10, 1, 5}, {1, 1, 0xff}, {1, 1, 0}, {6, 3, 0x2a, 3, 4}, {5, 0}, {30, 4, 0, 'b', 0, 'm'},
		{4, 3, 'o', 'c', 't'}, {20, 3, 't', '6', '1'}, {26, 3, 'v', 'i', 's'}, {27, 3, 'g', 'e', 'n'}, append([]byte{23, 13}, "260102030405Z"...), {10, 5, 1, 0, 0, 0, 0}} {
		id, err := asn1.Marshal(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, last})
		if err != nil {
			return err
		}
		outer, err := asn1.Marshal(named(0, value, true))
		if err != nil {
			return err
		}
		names = append(names, named(0, append(id, outer...), true))
	}
	value, err := asn1.Marshal(names)
	c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: value})
	return err
}

// otherNames are names of a client, and ones that object identifiers number.
func otherNames() (pkix.Extension, error) {
	names := []asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(webID)}}
	for _, value := range [][]byte{
		{asn1.TagUTF8String, 3, 'u', 'p', 'n'}, {asn1.TagInteger, 2, 0xff, 0x7f}, {asn1.TagBoolean, 1, 0xff}, {asn1.TagOID, 3, 42, 3, 4}, {asn1.TagNull, 0},
		{asn1.TagBMPString, 4, 0, 'b', 0, 'c'}, {asn1.TagOctetString, 2, 'o', ','}, {asn1.TagSequence | 0x20, 3, asn1.TagInteger, 1, 'A'}, {asn1.TagEnum, 1, 9}, {asn1.TagIA5String, 1, 'i'},
		{28, 4, 0, 0, 0, 'U'}, {asn1.TagBitString, 2, 0, 'B'}, {asn1.TagNumericString, 1, '1'},
	} {
		name := append([]byte{asn1.TagOID, 3, 42, 3, 4, 0xa0, byte(len(value))}, value...)
		names = append(names, asn1.RawValue{Class: asn1.ClassContextSpecific, IsCompound: true, Bytes: name})
	}
	for _, name := range [][]byte{
		{6, 6, 0x69, 0x90, 0x80, 0x80, 0x80, 0, 0xa0, 5, 12, 3, 'a', 'r', 'c'},                              // of a kind with a number above 1<<31
		{6, 3, 42, 3, 4, 0xa0, 8, 6, 6, 0x69, 0x90, 0x80, 0x80, 0x80, 0},                                    // a value that is one
		{6, 3, 42, 3, 4, 0xa0, 13, 6, 11, 0x69, 0x83, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}, // above 1<<64
		{6, 3, 42, 3, 4, 0xa0, 4, 12, 2, 'a', '\n'},
	} {
		names = append(names, asn1.RawValue{Class: asn1.ClassContextSpecific, IsCompound: true, Bytes: name})
	}
	list, err := asn1.Marshal(names)
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: list}, err
}

// deepen issues a client's certificate by an intermediate.
func deepen(root *x509.Certificate, rootKey *ecdsa.PrivateKey) (tls.Certificate, error) {
	var out tls.Certificate
	issuer, issuerKey := root, rootKey
	id, err := url.Parse(webID)
	if err != nil {
		return out, err
	}
	for i, template := range []*x509.Certificate{
		{Subject: pkix.Name{CommonName: "intermediate"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign},
		{Subject: pkix.Name{CommonName: "web"}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, URIs: []*url.URL{id}},
	} {
		template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(int64(i+100)), root.NotBefore, root.NotAfter
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return out, err
		}
		der, err := x509.CreateCertificate(rand.Reader, template, issuer, &key.PublicKey, issuerKey)
		if err != nil {
			return out, err
		}
		if issuer, err = x509.ParseCertificate(der); err != nil {
			return out, err
		}
		issuerKey, out.PrivateKey = key, key
		out.Certificate = append([][]byte{der}, out.Certificate...)
	}
	return out, nil
}

// writeSecrets writes the listener's certificate and its trust as secrets of files.
func (c *certs) writeSecrets() error {
	const secret = apiType + "extensions.transport_sockets.tls.v3.Secret"
	for name, s := range map[string]map[string]any{
		"own": {"tls_certificate": map[string]any{
			"certificate_chain": map[string]any{"filename": c.file("api.crt")}, "private_key": map[string]any{"filename": c.file("api.key")}}},
		"trust": {"validation_context": map[string]any{"trusted_ca": map[string]any{"filename": c.file("ca.crt")}}},
	} {
		s["@type"], s["name"] = secret, name
		b, err := json.Marshal(map[string]any{"resources": []any{s}})
		if err != nil {
			return err
		}
		if err := os.WriteFile(c.file(name+".json"), b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// validationOf is the validation context of a chain whose transport socket is downstream's.
func validationOf(chain map[string]any) map[string]any {
	return commonOf(chain)["validation_context"].(map[string]any)
}

// commonOf is the common TLS context of such a chain.
func commonOf(chain map[string]any) map[string]any {
	socket := chain["transport_socket"].(map[string]any)["typed_config"].(map[string]any)
	return socket["common_tls_context"].(map[string]any)
}

// discovered is downstream, with certificate and trust from files of discovery.
func (c *certs) discovered() map[string]any {
	socket := c.downstream()
	common := socket["typed_config"].(map[string]any)["common_tls_context"].(map[string]any)
	secret := func(name string) map[string]any {
		return map[string]any{"name": name, "sds_config": map[string]any{"resource_api_version": "V3",
			"path_config_source": map[string]any{"path": c.file(name + ".json")}}}
	}
	own := common["validation_context"].(map[string]any)
	delete(own, "trusted_ca")
	delete(common, "validation_context")
	delete(common, "tls_certificates")
	common["tls_certificate_sds_secret_configs"] = []any{secret("own")}
	common["combined_validation_context"] = map[string]any{"default_validation_context": own, "validation_context_sds_secret_config": secret("trust")}
	return socket
}

func (c *certs) file(name string) string { return filepath.Join(c.dir, name) }

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

// socket makes of a cluster's "tls", which has fields of an UpstreamTlsContext and of its
// validation, and of its "announces", which has those of a ProxyProtocolConfig, a transport socket.
func (c *certs) socket(cluster map[string]any) {
	var socket map[string]any
	if fields, ok := cluster["tls"].(map[string]any); ok {
		validation := map[string]any{"trusted_ca": map[string]any{"filename": c.file("ca.crt")}}
		context := map[string]any{"@type": apiType + "extensions.transport_sockets.tls.v3.UpstreamTlsContext"}
		maps.Copy(context, fields)
		if own, ok := fields["validation"].(map[string]any); ok {
			maps.Copy(validation, own)
			delete(context, "validation")
		}
		common := map[string]any{"validation_context": validation}
		if name, ok := fields["own"].(string); ok {
			delete(context, "own")
			common["tls_certificates"] = []any{map[string]any{"certificate_chain": map[string]any{"filename": c.file(name + ".crt")}, "private_key": map[string]any{"filename": c.file(name + ".key")}}}
		}
		context["common_tls_context"] = common
		socket = map[string]any{"name": "tls", "typed_config": context}
	}
	if fields, ok := cluster["announces"].(map[string]any); ok {
		if socket == nil {
			socket = map[string]any{"name": "raw", "typed_config": map[string]any{"@type": apiType + "extensions.transport_sockets.raw_buffer.v3.RawBuffer"}}
		}
		socket = map[string]any{"name": "announced", "typed_config": map[string]any{
			"@type": apiType + "extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport", "config": fields, "transport_socket": socket}}
	}
	delete(cluster, "tls")
	delete(cluster, "announces")
	if socket != nil {
		cluster["transport_socket"] = socket
	}
}

// downstream is the transport socket of a listener.
func (c *certs) downstream(also ...string) map[string]any {
	var own []any
	for _, name := range append([]string{"api"}, also...) {
		own = append(own, map[string]any{"certificate_chain": map[string]any{"filename": c.file(name + ".crt")}, "private_key": map[string]any{"filename": c.file(name + ".key")}})
	}
	validation := map[string]any{"trusted_ca": map[string]any{"filename": c.file("ca.crt")},
		"match_typed_subject_alt_names": []any{map[string]any{"san_type": "URI", "matcher": map[string]any{"exact": webID}}}}
	common := map[string]any{
		"alpn_protocols":     []any{"http/1.1"},
		"tls_params":         map[string]any{"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
		"validation_context": validation,
		"tls_certificates":   own,
	}
	tlsContext := map[string]any{"@type": apiType + "extensions.transport_sockets.tls.v3.DownstreamTlsContext", "common_tls_context": common, "require_client_certificate": true}
	return map[string]any{"name": "tls", "typed_config": tlsContext}
}

package tlscontext

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"
)

// extension is one of a list or of its entries.
func extension(t *testing.T, id asn1.ObjectIdentifier, critical bool, value any) pkix.Extension {
	t.Helper()
	der, err := asn1.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: id, Critical: critical, Value: der}
}

// list is a revocation list from some time ago, valid for two hours from then, that has
// the serials and extensions.
func (a *authority) list(ago time.Duration, revoked []*issued, change func(*x509.RevocationList)) string {
	a.t.Helper()
	from := time.Now().Add(-ago)
	l := &x509.RevocationList{Number: big.NewInt(int64(-ago/time.Second) + 1e9), ThisUpdate: from, NextUpdate: from.Add(2 * time.Hour)}
	for _, r := range revoked {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: r.cert.SerialNumber, RevocationTime: from})
	}
	if change != nil {
		change(l)
	}
	der, err := x509.CreateRevocationList(rand.Reader, l, a.cert, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))
}

// TestRevocationLists: of several lists of one issuer the newest that tells of the
// certificate decides, one that is not understood tells of nobody, and a certificate of
// which no list tells is refused.
func TestRevocationLists(t *testing.T) {
	a := newAuthority(t, "ca")
	own := a.issue(&x509.Certificate{DNSNames: []string{"server"}})
	thief := a.issue(&x509.Certificate{DNSNames: []string{"thief"}, CRLDistributionPoints: []string{"http://ca.test/1.crl"}})
	all := []*issued{thief}
	type point struct {
		Name       asn1.RawValue  `asn1:"optional,tag:0"`
		Users      bool           `asn1:"optional,tag:1"`
		CAs        bool           `asn1:"optional,tag:2"`
		Reasons    asn1.BitString `asn1:"optional,tag:3"`
		Indirect   bool           `asn1:"optional,tag:4"`
		Attributes bool           `asn1:"optional,tag:5"`
	}
	with := func(x pkix.Extension) func(*x509.RevocationList) {
		return func(l *x509.RevocationList) { l.ExtraExtensions = append(l.ExtraExtensions, x) }
	}
	scoped := func(p point) func(*x509.RevocationList) {
		return with(extension(t, oidDistributionPoint, true, p))
	}
	at := func(uri string) point {
		names := append([]byte{0xa0, byte(len(uri) + 2), 0x86, byte(len(uri))}, uri...)
		return point{Name: asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: names}}
	}
	unknown := asn1.ObjectIdentifier{1, 2, 3, 4}
	const hour, minute = time.Hour, time.Minute
	for _, tc := range []struct {
		name, lists string
		// says is part of the refusal; empty where the certificate is accepted.
		says string
	}{
		{"the newest does not have it", a.list(minute, nil, nil), ""},
		{"yesterday's before today's", a.list(hour, nil, nil) + a.list(minute, all, nil), "was revoked"},
		{"today's before yesterday's", a.list(minute, all, nil) + a.list(hour, nil, nil), "was revoked"},
		{"a hold that was lifted", a.list(hour, all, nil) + a.list(minute, nil, nil), ""},
		{"two of one moment", a.list(minute, nil, nil) + a.list(minute, all, nil), "was revoked"},
		{"an old one is left over", a.list(3*hour, nil, nil) + a.list(minute, nil, nil), ""},
		{"only an old one", a.list(3*hour, nil, nil), "not valid now"},
		{"one of tomorrow has it", a.list(minute, nil, nil) + a.list(-hour, all, nil), "was revoked"},
		{"only one of tomorrow", a.list(-hour, nil, nil), "not valid now"},
		{"authorities, then users", a.list(hour, nil, scoped(point{CAs: true})) + a.list(hour, all, scoped(point{Users: true})), "was revoked"},
		{"users", a.list(hour, nil, scoped(point{Users: true})), ""},
		{"authorities alone", a.list(hour, nil, scoped(point{CAs: true})), "authorities' certificates only"},
		{"attributes alone", a.list(hour, nil, scoped(point{Attributes: true})), "attribute certificates only"},
		{"a newer one of authorities", a.list(hour, all, nil) + a.list(minute, nil, scoped(point{CAs: true})), "was revoked"},
		{"the certificate's own point", a.list(hour, nil, scoped(at("http://ca.test/1.crl"))), ""},
		{"another point", a.list(hour, nil, scoped(at("http://ca.test/2.crl"))), "distribution point"},
		{"one for some reasons", a.list(hour, nil, scoped(point{Reasons: asn1.BitString{Bytes: []byte{0x40}, BitLength: 2}})), "for some reasons"},
		{"an indirect one", a.list(hour, nil, scoped(point{Indirect: true})), "indirect"},
		{"a scope that cannot be read", a.list(hour, nil, with(extension(t, oidDistributionPoint, true, "x"))), "cannot be read"},
		{"a delta alone", a.list(hour, nil, with(extension(t, oidDelta, true, big.NewInt(1)))), "delta"},
		{"unknown and critical", a.list(hour, nil, with(extension(t, unknown, true, "x"))), "1.2.3.4"},
		{"unknown and critical, beside a good one", a.list(minute, nil, with(extension(t, unknown, true, "x"))) + a.list(hour, all, nil), "was revoked"},
		{"unknown, and not critical", a.list(hour, nil, with(extension(t, unknown, false, "x"))), ""},
		{"an entry of another issuer", a.list(hour, []*issued{own}, func(l *x509.RevocationList) {
			l.RevokedCertificateEntries[0].ExtraExtensions = []pkix.Extension{extension(t, asn1.ObjectIdentifier{2, 5, 29, 29}, true, []string{})}
		}), "critical extension 2.5.29.29"},
	} {
		c, err := NewServer(&Server{RequireClientCertificate: true, Common: Common{
			Certificates: []Certificate{own.own()}, MinVersion: tls.VersionTLS13, MaxVersion: tls.VersionTLS13,
			Validation: &Validation{CA: Source{Inline: Secret(a.pem())}, CRL: Source{Inline: Secret(tc.lists)}, LeafCRLOnly: true, MaxDepth: 100},
		}}, Options{})
		if err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		client := &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{{Certificate: [][]byte{thief.cert.Raw}, PrivateKey: thief.key}}}
		_, _, refused, _ := shake(t, c.ServerConfig(&Server{}), client)
		if (refused == nil) != (tc.says == "") || refused != nil && !strings.Contains(refused.Error(), tc.says) {
			t.Errorf("%s: %v, want %q", tc.name, refused, tc.says)
		}
	}
}

// A list of the authorities has no say in end entities' certificates, nor the other way
// round, and each certificate of a chain needs one.
func TestRevocationListOfAnAuthority(t *testing.T) {
	root := newAuthority(t, "root")
	middle := root.issue(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, Subject: pkix.Name{CommonName: "middle"}})
	below := &authority{t: t, cert: middle.cert, key: middle.key}
	leaf := below.issue(&x509.Certificate{DNSNames: []string{"leaf"}})
	only := func(users bool) func(*x509.RevocationList) {
		v := struct {
			Users bool `asn1:"optional,tag:1"`
			CAs   bool `asn1:"optional,tag:2"`
		}{users, !users}
		return func(l *x509.RevocationList) {
			l.ExtraExtensions = []pkix.Extension{extension(t, oidDistributionPoint, true, v)}
		}
	}
	for _, tc := range []struct{ name, lists, says string }{
		{"both", root.list(time.Minute, nil, only(false)) + below.list(time.Minute, nil, only(true)), ""},
		{"the authority is revoked", root.list(time.Minute, []*issued{middle}, only(false)) + below.list(time.Minute, nil, only(true)), "was revoked"},
		{"the root has one of users alone", root.list(time.Minute, nil, only(true)) + below.list(time.Minute, nil, only(true)), "end entities' certificates only"},
	} {
		v := &Validation{CA: Source{Inline: Secret(root.pem())}, CRL: Source{Inline: Secret(tc.lists)}, MaxDepth: 100}
		m, err := load(&Common{Validation: v})
		if err != nil {
			t.Fatal(err)
		}
		judge := &verifier{cfg: v, roots: m.roots, crls: m.crls, usage: x509.ExtKeyUsageAny, now: time.Now}
		by, err := judge.judge([]*x509.Certificate{leaf.cert, middle.cert}, "", false)
		if (err == nil) != (tc.says == "") || err != nil && !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.says)
		}
		if err == nil && (len(by) != 3 || !by[2].Equal(root.cert)) {
			t.Errorf("%s: accepted by %d certificates", tc.name, len(by))
		}
	}
}

// TestRevocationListsBesideAnchors: a list among the anchors is enforced as one of CRL, of the whole
// chain or the leaf alone, and a trust domain's says nothing of the peers of another.
func TestRevocationListsBesideAnchors(t *testing.T) {
	root, second := newAuthority(t, "root"), newAuthority(t, "second")
	middle := root.issue(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, Subject: pkix.Name{CommonName: "middle"}})
	below := &authority{t: t, cert: middle.cert, key: middle.key, n: 100}
	svid := func(a *authority, id string) *issued {
		return a.issue(&x509.Certificate{URIs: uri(id), KeyUsage: x509.KeyUsageDigitalSignature})
	}
	good, bad, foreign := svid(below, "spiffe://one.test/good"), svid(below, "spiffe://one.test/bad"), svid(second, "spiffe://two.test/a")
	none, list := root.list(time.Minute, nil, nil), below.list(time.Minute, []*issued{bad}, nil)
	for _, tc := range []struct {
		name, lists string
		leafOnly    bool
		leaf        *issued
		says        string
	}{
		{"no list", "", false, bad, ""},
		{"revoked", none + list, false, bad, "was revoked"},
		{"not revoked", none + list, false, good, ""},
		{"none of the root", list, false, good, "no revocation list"},
		{"none of the root, of the leaf alone", list, true, good, ""},
		{"revoked, of the leaf alone", list, true, bad, "was revoked"},
		{"none of the issuer", none, true, good, "no revocation list"},
		{"the issuer is revoked", root.list(time.Minute, []*issued{middle}, nil) + list, false, good, "was revoked"},
		{"of another domain", none + list, false, foreign, ""},
	} {
		for kind, v := range map[string]*Validation{
			"trusted_ca": {CA: Source{Inline: Secret(root.pem() + tc.lists)}},
			"bundle":     {TrustDomains: []TrustDomain{{"one.test", Source{Inline: Secret(tc.lists + root.pem())}}, {"two.test", Source{Inline: Secret(second.pem())}}}},
		} {
			if tc.leaf == foreign && kind == "trusted_ca" {
				continue
			}
			v.MaxDepth, v.LeafCRLOnly = DefaultDepth, tc.leafOnly
			m, err := load(&Common{Validation: v})
			if err != nil {
				t.Fatal(err)
			}
			judge := &verifier{cfg: v, roots: m.roots, trust: m.trust, crls: m.crls, usage: x509.ExtKeyUsageAny, now: time.Now}
			_, err = judge.judge([]*x509.Certificate{tc.leaf.cert, middle.cert}, "", false)
			if (err == nil) != (tc.says == "") || err != nil && !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%s, %s: %v, want %q", kind, tc.name, err, tc.says)
			}
		}
	}
	both := &Validation{CA: Source{Inline: Secret(root.pem() + none)}, CRL: Source{Inline: Secret(list)}}
	if m, err := load(&Common{Validation: both}); err != nil || len(m.crls) != 2 {
		t.Errorf("lists in both places: %v", err)
	}
	for what, text := range map[string]string{"cut short": none[:len(none)-30], "of another kind": strings.Replace(root.pem(), "CERTIFICATE", "X509 CRL", 2)} {
		for kind, v := range map[string]*Validation{"trusted_ca": {CA: Source{Inline: Secret(root.pem() + text)}}, "bundle": {TrustDomains: []TrustDomain{{"one.test", Source{Inline: Secret(root.pem() + text)}}}}} {
			if _, err := load(&Common{Validation: v}); err == nil || !strings.Contains(err.Error(), "revocation list") {
				t.Errorf("%s, a list that is %s: %v", kind, what, err)
			}
		}
	}
}

// TestRevokedAuthorityAmongTheAnchors: an authority that another has signed does not end a chain where lists are
// asked of all of it, so that one of its issuer's has its say, in whatever order the anchors are and
// whether or not the peer sends it too.
func TestRevokedAuthorityAmongTheAnchors(t *testing.T) {
	root := newAuthority(t, "root")
	middle := root.issue(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, Subject: pkix.Name{CommonName: "middle"}})
	below := &authority{t: t, cert: middle.cert, key: middle.key}
	leaf := below.issue(&x509.Certificate{DNSNames: []string{"leaf"}})
	none, revoked, own := root.list(time.Minute, nil, nil), root.list(time.Minute, []*issued{middle}, nil), below.list(time.Minute, nil, nil)
	for _, tc := range []struct {
		name, anchors, lists string
		leafOnly             bool
		says                 string
	}{
		{"revoked", root.pem() + middle.chain, own + revoked, false, "was revoked"},
		{"revoked, the root behind it", middle.chain + root.pem(), own + revoked, false, "was revoked"},
		{"not revoked", middle.chain + root.pem(), own + none, false, ""},
		{"no list of the root", middle.chain + root.pem(), own, false, "no revocation list"},
		{"without its root", middle.chain, own + revoked, false, "1 of the anchors are none"},
		{"without its root, not revoked", middle.chain, own + none, false, "1 of the anchors are none"},
		{"of the leaf alone", middle.chain, own + revoked, true, ""},
		{"no lists", middle.chain, "", false, ""},
	} {
		for beside, v := range map[string]*Validation{
			"crl":        {CA: Source{Inline: Secret(tc.anchors)}, CRL: Source{Inline: Secret(tc.lists)}},
			"trusted_ca": {CA: Source{Inline: Secret(tc.anchors + tc.lists)}},
		} {
			v.MaxDepth, v.LeafCRLOnly = DefaultDepth, tc.leafOnly
			c := &Context{common: &Common{Validation: v}, now: time.Now}
			m, err := load(c.common)
			if err != nil {
				t.Fatal(err)
			}
			m.validation = v
			judge := c.verifier(m, x509.ExtKeyUsageServerAuth)
			for _, sent := range [][]*x509.Certificate{{leaf.cert}, {leaf.cert, middle.cert}} {
				_, err := judge.judge(sent, "", false)
				if (err == nil) != (tc.says == "") || err != nil && !strings.Contains(err.Error(), tc.says) {
					t.Errorf("%s, lists in %s, %d certificates sent: %v, want %q", tc.name, beside, len(sent), err, tc.says)
				}
			}
		}
	}
}

// FuzzScope: what an issuer writes is read, or the list is of no use.
func FuzzScope(f *testing.F) {
	f.Add([]byte{0x30, 0x03, 0x82, 0x01, 0xff})
	f.Add([]byte{0x30, 0x0a, 0xa0, 0x08, 0xa0, 0x06, 0x86, 0x04, 'h', ':', '/', '/'})
	f.Fuzz(func(t *testing.T, der []byte) {
		s, err := parseScope(der)
		if err == nil && !s.partial && len(s.points) > 0 {
			t.Errorf("%x: points %q of no scope", der, s.points)
		}
	})
}

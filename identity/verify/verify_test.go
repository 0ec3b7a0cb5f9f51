package verify

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/identity/internal/idtest"
	"github.com/hauberk-mesh/hauberk/identity/svid"
)

const web = "spiffe://mesh.test/ns/default/dc/dc1/svc/web"

// rawExtension replaces what the library would write for an extension.
func rawExtension(t *testing.T, oid asn1.ObjectIdentifier, critical bool, value any) func(*x509.Certificate) {
	der, err := asn1.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return func(c *x509.Certificate) {
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: oid, Critical: critical, Value: der})
	}
}

func TestLeafRules(t *testing.T) {
	ca := idtest.NewSigner(t, "mesh.test")
	snapshot := idtest.Snapshot([]*idtest.Signer{ca})
	usage := func(u x509.KeyUsage) func(*x509.Certificate) { return func(c *x509.Certificate) { c.KeyUsage = u } }
	purposes := func(u ...x509.ExtKeyUsage) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.ExtKeyUsage = u }
	}
	sanNotCritical := func(c *x509.Certificate) {
		san := struct {
			URI string `asn1:"tag:6,ia5"`
		}{web}
		rawExtension(t, oidSubjectAltName, false, san)(c)
	}
	spelt := func(uri string) func(*x509.Certificate) {
		return rawExtension(t, oidSubjectAltName, true, struct {
			URI string `asn1:"tag:6,ia5"`
		}{uri})
	}
	for _, tc := range []struct {
		name   string
		id     string
		change func(*x509.Certificate)
		rule   Rule // empty when it must pass
	}{
		{"good", web, nil, ""},
		{"good with a DNS name and a subject", web, func(c *x509.Certificate) { c.DNSNames = []string{"web.test"}; c.Subject.CommonName = "web" }, ""},
		{"good without extended usage", web, purposes(), ""},
		{"no URI", web, func(c *x509.Certificate) { c.URIs = nil; c.DNSNames = []string{"web"} }, RuleOneURI},
		{"two URIs", web, func(c *x509.Certificate) { c.URIs = append(c.URIs, idtest.URL(t, web+"2")) }, RuleOneURI},
		{"a second URI of another scheme", web, func(c *x509.Certificate) { c.URIs = append(c.URIs, idtest.URL(t, "https://x.test/")) }, RuleOneURI},
		{"another scheme", "https://mesh.test/web", nil, RuleID},
		{"an escape", "spiffe://mesh.test/we%20b", nil, RuleID},
		{"a query", web + "?x=1", nil, RuleID},
		{"a port", "spiffe://mesh.test:80/web", nil, RuleID},
		{"a trailing slash", web + "/", nil, RuleID},
		{"an empty fragment", web, spelt(web + "#"), RuleID},
		{"a scheme in capitals", web, spelt("SPIFFE" + strings.TrimPrefix(web, "spiffe")), RuleID},
		{"spelt as it is", web, spelt(web), ""},
		{"the trust domain's own ID", "spiffe://mesh.test", nil, RulePath},
		{"a CA", web, func(c *x509.Certificate) { c.IsCA = true }, RuleNotCA},
		{"no key usage", web, usage(0), RuleKeyUsage},
		{"key usage not critical", web, rawExtension(t, oidKeyUsage, false, asn1.BitString{Bytes: []byte{0x80}, BitLength: 1}), RuleKeyUsage},
		{"no digitalSignature", web, usage(x509.KeyUsageKeyEncipherment), RuleLeafUsage},
		{"keyCertSign", web, usage(x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign), RuleLeafUsage},
		{"cRLSign", web, usage(x509.KeyUsageDigitalSignature | x509.KeyUsageCRLSign), RuleLeafUsage},
		{"client only", web, purposes(x509.ExtKeyUsageClientAuth), RuleExtendedUsage},
		{"server only", web, purposes(x509.ExtKeyUsageServerAuth), RuleExtendedUsage},
		{"code signing", web, purposes(x509.ExtKeyUsageCodeSigning), RuleExtendedUsage},
		{"any purpose", web, purposes(x509.ExtKeyUsageAny), RuleExtendedUsage},
		{"unknown purpose", web, func(c *x509.Certificate) {
			c.ExtKeyUsage, c.UnknownExtKeyUsage = nil, []asn1.ObjectIdentifier{{1, 2, 3}}
		}, RuleExtendedUsage},
		{"no subject, name not critical", web, sanNotCritical, RuleCriticalName},
		{"unknown critical extension", web, rawExtension(t, asn1.ObjectIdentifier{1, 2, 3, 4}, true, "x"), RuleChain},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var changes []func(*x509.Certificate)
			if tc.change != nil {
				changes = append(changes, tc.change)
			}
			leaf, _ := ca.Leaf(t, tc.id, changes...)
			id, err := Peer(snapshot, []*x509.Certificate{leaf}, time.Now())
			expect(t, err, tc.rule, tc.id)
			if tc.rule == "" && id.String() != tc.id {
				t.Fatalf("got %s", id)
			}
		})
	}
}

// expect checks the rule, and that the message names the ID where there is one.
func expect(t *testing.T, err error, rule Rule, id string) {
	t.Helper()
	if rule == "" {
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	var v *Error
	if !errors.As(err, &v) || v.Rule != rule {
		t.Fatalf("got %v, want rule %s", err, rule)
	}
	if rule != RuleOneURI && rule != RuleID && v.ID != id {
		t.Errorf("the error names %q, want %q", v.ID, id)
	}
	if !strings.Contains(err.Error(), string(rule)) || !strings.Contains(err.Error(), v.ID) {
		t.Errorf("%q does not name the rule and the ID", err)
	}
}

func TestSignerRules(t *testing.T) {
	root := idtest.NewSigner(t, "mesh.test")
	for _, tc := range []struct {
		name   string
		change func(*x509.Certificate)
		rule   Rule
	}{
		{"good", func(*x509.Certificate) {}, ""},
		{"good without an ID", func(c *x509.Certificate) { c.URIs = nil }, ""},
		{"digitalSignature too, as Consul's root", func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageDigitalSignature }, ""},
		{"any purpose", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} }, ""},
		{"no key usage", func(c *x509.Certificate) { c.KeyUsage = 0 }, RuleKeyUsage},
		{"key usage not critical", rawExtension(t, oidKeyUsage, false, asn1.BitString{Bytes: []byte{0x04}, BitLength: 6}), RuleKeyUsage},
		// The library refuses these two itself.
		{"no keyCertSign", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }, RuleChain},
		{"no CA", func(c *x509.Certificate) { c.IsCA = false }, RuleChain},
		{"a workload's ID", func(c *x509.Certificate) { c.URIs = []*url.URL{idtest.URL(t, web)} }, RuleSignerPath},
		{"another trust domain", func(c *x509.Certificate) { c.URIs = []*url.URL{idtest.URL(t, "spiffe://other.test")} }, RuleChain},
		{"two IDs", func(c *x509.Certificate) { c.URIs = append(c.URIs, idtest.URL(t, "spiffe://b.test")) }, RuleOneURI},
		{"code signing", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} }, RuleExtendedUsage},
		{"client only", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }, RuleExtendedUsage},
	} {
		t.Run(tc.name, func(t *testing.T) {
			middle := root.Intermediate(t, tc.change)
			leaf, _ := middle.Leaf(t, web)
			_, err := Peer(idtest.Snapshot([]*idtest.Signer{root}), []*x509.Certificate{leaf, middle.Cert}, time.Now())
			expect(t, err, tc.rule, web)
		})
	}
}

// As an anchor, a signer is judged by the same rules: here the library would
// pass one that is not allowed to sign.
func TestAnchorRules(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*x509.Certificate)
		rule   Rule
	}{
		{"good", func(*x509.Certificate) {}, ""},
		{"no key usage", func(c *x509.Certificate) { c.KeyUsage = 0 }, RuleSigner},
		{"a workload's ID", func(c *x509.Certificate) { c.URIs = []*url.URL{idtest.URL(t, web)} }, RuleSignerPath},
		{"another trust domain", func(c *x509.Certificate) { c.URIs = []*url.URL{idtest.URL(t, "spiffe://other.test")} }, RuleChain},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ca := idtest.NewSigner(t, "mesh.test", tc.change)
			leaf, _ := ca.Leaf(t, web)
			_, err := Peer(idtest.Snapshot([]*idtest.Signer{ca}), []*x509.Certificate{leaf}, time.Now())
			expect(t, err, tc.rule, web)
		})
	}
}

func TestSignerDoesNotAuthenticate(t *testing.T) {
	ca := idtest.NewSigner(t, "mesh.test")
	_, err := Peer(idtest.Snapshot([]*idtest.Signer{ca}), []*x509.Certificate{ca.Cert}, time.Now())
	expect(t, err, RulePath, "spiffe://mesh.test")
	// Nor with a path, and in its own bundle.
	ca = idtest.NewSigner(t, "mesh.test", func(c *x509.Certificate) {
		c.URIs = []*url.URL{idtest.URL(t, web)}
		c.KeyUsage |= x509.KeyUsageDigitalSignature
	})
	_, err = Peer(idtest.Snapshot([]*idtest.Signer{ca}), []*x509.Certificate{ca.Cert}, time.Now())
	expect(t, err, RuleNotCA, web)
}

func TestOnlyTheLeafsOwnTrustDomain(t *testing.T) {
	a, b := idtest.NewSigner(t, "mesh.test"), idtest.NewSigner(t, "b.test", func(c *x509.Certificate) { c.URIs = nil })
	both := idtest.Snapshot([]*idtest.Signer{a, b})
	now := time.Now()

	// b is trusted, for b.test; it signs an ID of mesh.test.
	forged, _ := b.Leaf(t, web)
	_, err := Peer(both, []*x509.Certificate{forged}, now)
	expect(t, err, RuleChain, web)
	if !strings.Contains(err.Error(), "not among the 1 signers") {
		t.Errorf("%q does not say what is wrong", err)
	}

	stranger, _ := idtest.NewSigner(t, "c.test").Leaf(t, "spiffe://c.test/x")
	_, err = Peer(both, []*x509.Certificate{stranger}, now)
	expect(t, err, RuleChain, "spiffe://c.test/x")
	if !strings.Contains(err.Error(), "no trust bundle for the trust domain c.test") {
		t.Errorf("%q does not say what is wrong", err)
	}

	// A trust domain that has revoked everything.
	good, _ := a.Leaf(t, web)
	both.Bundles["mesh.test"] = svid.NewAnchors(2, nil)
	_, err = Peer(both, []*x509.Certificate{good}, now)
	expect(t, err, RuleChain, web)

	// Chain is asked for one trust domain, and gets a leaf of another.
	other, _ := b.Leaf(t, "spiffe://b.test/x")
	_, err = Chain(a.TrustDomain, svid.NewAnchors(1, []*x509.Certificate{b.Cert}), []*x509.Certificate{other}, now)
	expect(t, err, RuleChain, "spiffe://b.test/x")
}

func TestTime(t *testing.T) {
	ca := idtest.NewSigner(t, "mesh.test")
	leaf, _ := ca.Leaf(t, web)
	snapshot := idtest.Snapshot([]*idtest.Signer{ca})
	for _, tc := range []struct {
		name string
		now  time.Time
		want string
		skew time.Duration
	}{
		{"early", leaf.NotBefore.Add(-3 * time.Minute), "not yet valid for another 3m0s: check the clocks", 3 * time.Minute},
		{"late", leaf.NotAfter.Add(5 * time.Minute), "expired 5m0s ago", 5 * time.Minute},
		{"signer late", ca.Cert.NotAfter.Add(time.Hour), "expired", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Peer(snapshot, []*x509.Certificate{leaf}, tc.now)
			expect(t, err, RuleChain, web)
			var at *TimeError
			if !errors.As(err, &at) {
				t.Fatalf("got %v, want a TimeError", err)
			}
			if tc.skew != 0 && at.Skew() != tc.skew {
				t.Errorf("skew %s, want %s", at.Skew(), tc.skew)
			}
			for _, want := range []string{tc.want, stamp(tc.now)} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q lacks %q", err, want)
				}
			}
		})
	}
	if _, err := Peer(snapshot, []*x509.Certificate{leaf}, leaf.NotAfter); err != nil {
		t.Errorf("the last moment: %v", err)
	}
	// A signer that expired before its leaf is named as such.
	short := idtest.NewSigner(t, "mesh.test", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	leaf, _ = short.Leaf(t, web)
	_, err := Peer(idtest.Snapshot([]*idtest.Signer{short}), []*x509.Certificate{leaf}, time.Now())
	if err == nil || !strings.Contains(err.Error(), "the signer") {
		t.Errorf("got %v", err)
	}
}

func TestChainShape(t *testing.T) {
	ca := idtest.NewSigner(t, "mesh.test")
	snapshot := idtest.Snapshot([]*idtest.Signer{ca})
	if _, err := Peer(snapshot, nil, time.Now()); err == nil {
		t.Error("an empty chain was accepted")
	}
	leaf, _ := ca.Leaf(t, web)
	long := []*x509.Certificate{leaf}
	for range maxChain {
		long = append(long, ca.Cert)
	}
	_, err := Peer(snapshot, long, time.Now())
	if err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("a long chain: %v", err)
	}
	// A control plane sends its signer, for joiners; that changes nothing.
	if _, err := Peer(snapshot, long[:2], time.Now()); err != nil {
		t.Error(err)
	}
	// A path longer than the signer allows.
	strict := idtest.NewSigner(t, "mesh.test", func(c *x509.Certificate) { c.MaxPathLenZero = true })
	middle := strict.Intermediate(t)
	leaf, _ = middle.Leaf(t, web)
	_, err = Peer(idtest.Snapshot([]*idtest.Signer{strict}), []*x509.Certificate{leaf, middle.Cert}, time.Now())
	expect(t, err, RuleChain, web)
}

// TestStrangersAreCheap: a stranger's certificates that have signed one another in every way have nobody look
// at signatures without end, and beside them those that lead to a signer are found in whatever order.
func TestStrangersAreCheap(t *testing.T) {
	root, stranger := idtest.NewSigner(t, "mesh.test"), idtest.NewSigner(t, "mesh.test")
	snapshot := idtest.Snapshot([]*idtest.Signer{root})
	var circle []*x509.Certificate
	for range maxChain - 1 {
		template := *stranger.Cert
		template.SerialNumber = idtest.Serial(t)
		template.DNSNames = []string{template.SerialNumber.Text(16) + ".test"} // or it would be the one before it
		circle = append(circle, idtest.Sign(t, &template, stranger.Cert, stranger.Cert.PublicKey, stranger.Key))
	}
	leaf, _ := stranger.Leaf(t, web)
	_, err := Peer(snapshot, append([]*x509.Certificate{leaf}, circle...), time.Now())
	expect(t, err, RuleChain, web)
	if strings.Contains(err.Error(), "limit reached") {
		t.Errorf("signatures are looked at until the library gives up: %v", err)
	}
	chain := []*x509.Certificate{}
	for by := root; len(chain) < 4; chain = append(chain, by.Cert) {
		by = by.Intermediate(t)
		leaf, _ = by.Leaf(t, web)
	}
	for range 2 {
		slices.Reverse(chain)
		sent := slices.Concat([]*x509.Certificate{leaf}, circle[:2], chain)
		if _, by, err := PeerChain(snapshot, sent, time.Now()); err != nil || len(by) != 6 {
			t.Errorf("by %d certificates: %v", len(by), err)
		}
	}
}

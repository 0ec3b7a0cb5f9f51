package trust

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"pgregory.net/rapid"

	"github.com/hauberk-mesh/hauberk/identity/internal/idtest"
)

var td = spiffeid.RequireTrustDomainFromString("mesh.test")

func signer(t testing.TB, owner string, state State) Signer {
	return NewSigner(idtest.NewSigner(t, "mesh.test").Cert, owner, state)
}

func bundle(t testing.TB, signers ...Signer) *Bundle {
	t.Helper()
	b, err := NewBundle(td, 1, signers...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestLife(t *testing.T) {
	a, b := signer(t, "cp1", Active), signer(t, "cp2", Prepared)
	first := bundle(t, a)
	two, err := first.With(b)
	if err != nil || two.Sequence != 2 || len(two.Anchors().Certificates) != 2 || two.Anchors().Sequence != 2 {
		t.Fatalf("%+v, %v", two, err)
	}
	if len(first.Signers) != 1 {
		t.Error("a bundle was changed in place")
	}
	if same, err := two.With(b); err != nil || same != two {
		t.Errorf("added twice: %v", err)
	}
	// What signs is no change of what is trusted.
	active, err := two.WithState(b.ID, Active)
	if err != nil || active.Sequence != 2 {
		t.Fatalf("%+v, %v", active, err)
	}
	gone, err := active.WithState(a.ID, Withdrawn)
	if err != nil || gone.Sequence != 3 || len(gone.Anchors().Certificates) != 1 {
		t.Fatalf("%+v, %v", gone, err)
	}
	if _, err := gone.With(a); !errors.Is(err, ErrWithdrawn) {
		t.Errorf("a withdrawn signer came back: %v", err)
	}
	if _, err := gone.WithState(a.ID, Active); err == nil {
		t.Error("a withdrawn signer became active")
	}
	if _, err := gone.WithState(b.ID, Withdrawn); !errors.Is(err, ErrEmpty) {
		t.Errorf("the bundle became empty: %v", err)
	}
	if _, err := gone.WithState("x", Active); !errors.Is(err, ErrUnknownSigner) {
		t.Errorf("got %v", err)
	}
	other := a
	other.Owner = "cp3"
	if _, err := first.With(other); err == nil || !strings.Contains(err.Error(), `"cp1" already`) {
		t.Errorf("a signer changed its owner: %v", err)
	}
	if pruned, err := gone.Prune(time.Now()); err != nil || pruned != gone {
		t.Errorf("pruned too early: %v", err)
	}
	if _, err := gone.Prune(time.Now().Add(1000 * time.Hour)); !errors.Is(err, ErrEmpty) {
		t.Errorf("pruned to nothing: %v", err)
	}
}

func TestValidate(t *testing.T) {
	good := signer(t, "cp1", Active)
	mutate := func(f func(*Signer)) Signer { s := good; f(&s); return s }
	foreign := idtest.NewSigner(t, "other.test").Cert
	leaf, _ := idtest.NewSigner(t, "mesh.test").Leaf(t, "spiffe://mesh.test/x")
	noSign := idtest.NewSigner(t, "mesh.test", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }).Cert
	path := idtest.NewSigner(t, "mesh.test", func(c *x509.Certificate) { c.URIs = []*url.URL{idtest.URL(t, "spiffe://mesh.test/x")} }).Cert
	for want, signers := range map[string][]Signer{
		"would be empty":               {},
		"would be empty.":              {mutate(func(s *Signer) { s.State = Withdrawn })},
		"unknown state":                {mutate(func(s *Signer) { s.State = "odd" })},
		"its certificate has the key":  {mutate(func(s *Signer) { s.ID = "sha256:x" })},
		"the certificate says":         {mutate(func(s *Signer) { s.NotAfter = s.NotAfter.Add(1) })},
		"no certificate":               {mutate(func(s *Signer) { s.Certificate = nil })},
		"twice":                        {good, good},
		"not for the trust domain":     {NewSigner(foreign, "cp1", Active)},
		"not a CA":                     {NewSigner(leaf, "cp1", Active)},
		"does not include keyCertSign": {NewSigner(noSign, "cp1", Active)},
		"has a path":                   {NewSigner(path, "cp1", Active)},
	} {
		_, err := NewBundle(td, 1, signers...)
		if err == nil || !strings.Contains(err.Error(), strings.TrimSuffix(want, ".")) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if _, err := NewBundle(td, 0, good); err == nil {
		t.Error("sequence 0 was accepted")
	}
	if _, err := NewBundle(spiffeid.TrustDomain{}, 1, good); err == nil {
		t.Error("no trust domain was accepted")
	}
}

func TestAccept(t *testing.T) {
	a, b := signer(t, "cp1", Active), signer(t, "cp2", Active)
	one := bundle(t, a)
	two, err := one.With(b)
	if err != nil {
		t.Fatal(err)
	}
	other, err := one.With(signer(t, "cp3", Active))
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := &Bundle{TrustDomain: spiffeid.RequireTrustDomainFromString("b.test"), Sequence: 9, Revoked: true}
	for _, tc := range []struct {
		name          string
		current, next *Bundle
		want          error
	}{
		{"first", nil, one, nil},
		{"newer", one, two, nil},
		{"same", two, two, nil},
		{"older", two, one, ErrOlder},
		{"diverged", two, other, ErrDiverged},
		{"empty by accident", one, &Bundle{TrustDomain: td, Sequence: 9}, ErrEmpty},
	} {
		if err := Accept(tc.current, tc.next); !errors.Is(err, tc.want) || (err == nil) != (tc.want == nil) {
			t.Errorf("%s: got %v", tc.name, err)
		}
	}
	if Accept(one, elsewhere) == nil {
		t.Error("a bundle of another trust domain was accepted")
	}
}

func TestMerge(t *testing.T) {
	pool := []Signer{signer(t, "a", Prepared), signer(t, "b", Prepared), signer(t, "c", Prepared)}
	states := []State{Prepared, Active, Retired, Withdrawn}
	base := signer(t, "base", Active)
	rapid.Check(t, func(r *rapid.T) {
		draw := func(label string) *Bundle {
			signers := []Signer{base}
			for _, s := range pool {
				if rapid.Bool().Draw(r, label) {
					s.State = rapid.SampledFrom(states).Draw(r, label)
					signers = append(signers, s)
				}
			}
			b, err := NewBundle(td, uint64(rapid.IntRange(1, 3).Draw(r, label)), signers...)
			if err != nil {
				r.Fatal(err)
			}
			return b
		}
		merge := func(a, b *Bundle) *Bundle {
			m, err := Merge(a, b)
			if err != nil {
				r.Fatal(err)
			}
			return m
		}
		a, b, c := draw("a"), draw("b"), draw("c")
		ab := merge(a, b)
		if !ab.Equal(merge(b, a)) {
			r.Fatal("not commutative")
		}
		if !merge(a, a).Equal(a) || !merge(ab, ab).Equal(ab) {
			r.Fatal("not idempotent")
		}
		// Signers are associative; the number may differ by the way there, and
		// must only never be one that was used for another set.
		x, y := merge(ab, c), merge(a, merge(b, c))
		if x.Sequence = y.Sequence; !x.Equal(y) {
			r.Fatal("not associative")
		}
		for _, side := range []*Bundle{a, b} {
			if ab.Sequence < side.Sequence || ab.Sequence == side.Sequence && !ab.SameAnchors(side) {
				r.Fatalf("sequence %d after %d", ab.Sequence, side.Sequence)
			}
			for _, s := range side.Signers {
				if m, ok := ab.Signer(s.ID); !ok || order[m.State] < order[s.State] {
					r.Fatalf("signer %s went back from %s to %s", s.ID, s.State, m.State)
				}
			}
		}
		// Two that exchange until nothing changes come to rest.
		for range 4 {
			a, b = merge(a, b), merge(b, a)
		}
		if !a.Equal(b) || !merge(a, b).Equal(a) {
			r.Fatal("no rest")
		}
	})
	other := pool[0]
	other.Owner = "x"
	if _, err := Merge(bundle(t, base, pool[0]), bundle(t, base, other)); err == nil {
		t.Error("two owners of one signer were merged")
	}
	if _, err := Merge(bundle(t, base), &Bundle{TrustDomain: spiffeid.RequireTrustDomainFromString("b.test")}); err == nil {
		t.Error("two trust domains were merged")
	}
}

func TestJSON(t *testing.T) {
	b := bundle(t, signer(t, "cp1", Active), signer(t, "cp2", Withdrawn))
	b.RefreshHint = 5 * time.Minute
	text, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseJSON(text)
	if err != nil || !again.Equal(b) {
		t.Fatalf("%v", err)
	}
	for want, change := range map[string]func(string) string{
		"unknown field":    func(s string) string { return strings.Replace(s, `"format":1`, `"format":1,"new":1`, 1) },
		"appears twice":    func(s string) string { return strings.Replace(s, `"format":1`, `"format":1,"sequence":9`, 1) },
		"format 2":         func(s string) string { return strings.Replace(s, `"format":1`, `"format":2`, 1) },
		"after":            func(s string) string { return s + "{}" },
		"unexpected EOF":   func(s string) string { return s[:len(s)/2] },
		"unknown state":    func(s string) string { return strings.Replace(s, `"active"`, `"odd"`, 1) },
		"empty label":      func(s string) string { return strings.Replace(s, `"mesh.test"`, `"mesh..test"`, 1) },
		"not for the":      func(s string) string { return strings.Replace(s, `"mesh.test"`, `"b.test"`, 1) },
		"would be empty":   func(string) string { return `{"format":1,"trust_domain":"mesh.test","sequence":3,"signers":[]}` },
		"marked revoked":   func(s string) string { return strings.Replace(s, `"format":1`, `"format":1,"revoked":true`, 1) },
		"the key":          func(s string) string { return strings.Replace(s, `"id":"sha256:`, `"id":"sha256:A`, 1) },
		"between":          func(s string) string { return strings.Replace(s, `_seconds":300`, `_seconds":-1`, 1) },
		"cannot unmarshal": func(s string) string { return strings.Replace(s, `"sequence":1`, `"sequence":-1`, 1) },
	} {
		in := change(string(text))
		if in == string(text) {
			t.Fatalf("%s: nothing was changed", want)
		}
		if _, err := ParseJSON([]byte(in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestJWKS(t *testing.T) {
	b := bundle(t, signer(t, "cp1", Active), signer(t, "cp2", Retired), signer(t, "cp3", Withdrawn))
	b.RefreshHint = time.Minute
	text, err := b.JWKS()
	if err != nil {
		t.Fatal(err)
	}
	// A reader that is not ours.
	foreign, err := spiffebundle.Parse(td, text)
	if err != nil {
		t.Fatal(err)
	}
	if n, _ := foreign.SequenceNumber(); n != 1 || len(foreign.X509Authorities()) != 2 {
		t.Errorf("go-spiffe read %d authorities, sequence %d", len(foreign.X509Authorities()), n)
	}
	again, err := ParseJWKS(td, text)
	if err != nil {
		t.Fatal(err)
	}
	if again.Sequence != 1 || !again.SameAnchors(b) || again.RefreshHint != time.Minute {
		t.Errorf("got %+v", again)
	}
	// And a writer that is not ours.
	text, err = foreign.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if again, err = ParseJWKS(td, text); err != nil || !again.SameAnchors(b) {
		t.Errorf("%v", err)
	}
	if bytes.Contains(text, []byte("cp1")) {
		t.Error("an owner was exported")
	}
}

func TestParseJWKS(t *testing.T) {
	b := bundle(t, signer(t, "cp1", Active))
	text, err := b.JWKS()
	if err != nil {
		t.Fatal(err)
	}
	var doc struct{ Keys []json.RawMessage }
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	key := string(doc.Keys[0])
	keys := func(elements ...string) string {
		return `{"keys":[` + strings.Join(elements, ",") + `],"spiffe_sequence":7}`
	}
	twoX5c := strings.Replace(strings.Replace(key, `"x5c":[`, `"x5c":["AAAA",`, 1), `"x5c": [`, `"x5c": ["AAAA",`, 1)
	for _, tc := range []struct {
		name, in string
		anchors  int
		want     string
	}{
		{"good", keys(key), 1, ""},
		{"one twice", keys(key, key), 1, ""},
		{"beside a JWT key", keys(key, `{"kty":"EC","use":"jwt-svid","kid":"x","crv":"P-256","x":"","y":""}`), 1, ""},
		{"beside an unknown use", keys(key, `{"kty":"EC","use":"later","x5c":17}`), 1, ""},
		{"beside an unknown type", keys(key, `{"kty":"later","use":"x509-svid","x5c":{}}`), 1, ""},
		{"beside one without use", keys(key, `{"kty":"EC"}`), 1, ""},
		{"beside one without x5c", keys(key, `{"kty":"EC","use":"x509-svid"}`), 1, ""},
		{"an unknown member", strings.Replace(keys(key), `{"keys"`, `{"later":{"a":[1]},"keys"`, 1), 1, ""},
		{"no sequence", `{"keys":[` + key + `]}`, 1, ""},
		{"empty: everything is revoked", keys(), 0, ""},
		{"nothing usable: everything is revoked", keys(`{"kty":"EC","use":"later"}`), 0, ""},
		{"no keys", `{"spiffe_sequence":7}`, 0, `no "keys" array`},
		{"keys null", `{"keys":null}`, 0, `no "keys" array`},
		{"keys twice", `{"keys":[],"keys":[` + key + `]}`, 0, "twice"},
		{"two certificates", keys(twoX5c), 0, "exactly one"},
		{"no certificate", keys(`{"kty":"EC","use":"x509-svid","x5c":["AAAA"]}`), 0, "keys[0]: x5c[0]"},
		{"no base64", keys(`{"kty":"EC","use":"x509-svid","x5c":["*"]}`), 0, "keys[0]: x5c[0]"},
		{"negative sequence", `{"keys":[],"spiffe_sequence":-1}`, 0, "cannot unmarshal"},
		{"negative hint", `{"keys":[],"spiffe_refresh_hint":-1}`, 0, "spiffe_refresh_hint"},
		{"an element that is no object", keys(`"x"`), 0, "keys[0]"},
		{"no JSON", `<html>`, 0, "invalid character"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := ParseJWKS(td, []byte(tc.in))
			if tc.want != "" {
				if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "mesh.test") {
					t.Fatalf("got %v, want %q", err, tc.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if n := len(got.Anchors().Certificates); n != tc.anchors || got.Revoked != (n == 0) {
				t.Errorf("%d anchors, revoked %v", n, got.Revoked)
			}
		})
	}
	if _, err := ParseJWKS(spiffeid.RequireTrustDomainFromString("b.test"), text); err == nil {
		t.Error("a bundle was taken for another trust domain's")
	}
}

func TestPin(t *testing.T) {
	cert := idtest.NewSigner(t, "mesh.test").Cert
	pin := PinOf(cert)
	if again, err := ParsePin(pin.String()); err != nil || again != pin {
		t.Errorf("%v", err)
	}
	if byKey, err := PinOfKey(cert.PublicKey); err != nil || byKey != pin {
		t.Errorf("%v", err)
	}
	var p Pin
	if text, _ := pin.MarshalText(); p.UnmarshalText(text) != nil || p != pin {
		t.Error("text form")
	}
	s := pin.String()
	for _, bad := range []string{"", "sha256:", s[7:], s + "=", s[:len(s)-1], s + "A", "sha1:" + s[7:], s[:20] + "\n" + s[20:], s[:len(s)-1] + "_"} {
		if _, err := ParsePin(bad); err == nil && bad != s {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func FuzzParseJSON(f *testing.F) {
	text, err := json.Marshal(bundle(f, signer(f, "cp1", Active)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, in []byte) {
		b, err := ParseJSON(in)
		if err != nil {
			return
		}
		out, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := ParseJSON(out); err != nil || !again.Equal(b) {
			t.Fatalf("%v", err)
		}
	})
}

func FuzzParseJWKS(f *testing.F) {
	text, err := bundle(f, signer(f, "cp1", Active)).JWKS()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"keys":[]}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		if b, err := ParseJWKS(td, in); err == nil && b.Validate() != nil {
			t.Fatal("an invalid bundle was accepted")
		}
	})
}

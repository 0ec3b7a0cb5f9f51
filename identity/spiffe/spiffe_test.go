package spiffe

import (
	"strings"
	"testing"

	"crypto/x509"
	"net/url"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/hauberk-mesh/hauberk/identity/internal/idtest"
)

var td = spiffeid.RequireTrustDomainFromString("mesh.test")

func TestBuildAndParse(t *testing.T) {
	for _, tc := range []struct {
		name  string
		build func() (spiffeid.ID, error)
		text  string
		want  Identity
	}{
		{"service", func() (spiffeid.ID, error) { return ForService(td, "default", "dc1", "web_2.v1-x") },
			"spiffe://mesh.test/ns/default/dc/dc1/svc/web_2.v1-x", Identity{Kind: Service, Namespace: "default", Datacenter: "dc1", Service: "web_2.v1-x"}},
		{"upper case stays", func() (spiffeid.ID, error) { return ForService(td, "default", "DC1", "Web") },
			"spiffe://mesh.test/ns/default/dc/DC1/svc/Web", Identity{Kind: Service, Namespace: "default", Datacenter: "DC1", Service: "Web"}},
		{"node", func() (spiffeid.ID, error) { return ForNode(td, "host-1.example") },
			"spiffe://mesh.test/hauberk/node/host-1.example", Identity{Kind: Node, Name: "host-1.example"}},
		{"control plane", func() (spiffeid.ID, error) { return ForControlPlane(td, "cp1") },
			"spiffe://mesh.test/hauberk/controlplane/cp1", Identity{Kind: ControlPlane, Name: "cp1"}},
		{"operator", func() (spiffeid.ID, error) { return ForOperator(td, "ada") },
			"spiffe://mesh.test/hauberk/operator/ada", Identity{Kind: Operator, Name: "ada"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			id, err := tc.build()
			if err != nil {
				t.Fatal(err)
			}
			if id.String() != tc.text {
				t.Fatalf("got %s, want %s", id, tc.text)
			}
			got, err := Parse(tc.text)
			if err != nil {
				t.Fatal(err)
			}
			tc.want.ID = id
			if got != tc.want {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
			if Reserved(id) != (tc.want.Kind != Service) {
				t.Errorf("reserved: %v", Reserved(id))
			}
		})
	}
}

func TestNamesAreRefused(t *testing.T) {
	for _, tc := range []struct{ name, want string }{
		{"", "is empty"},
		{".", "relative path"},
		{"..", "relative path"},
		{"a/b", "'/' is not allowed"},
		{"we b", "' ' is not allowed"},
		{"tilde~x", "'~' is not allowed"},
		{"uni\u00e9", "'\u00e9' is not allowed"},
		{"a%20b", "'%' is not allowed"},
		{"a*", "'*' is not allowed"},
		{"a\x00b", `'\x00' is not allowed`},
		{"bad\xff", "'\ufffd' is not allowed"},
		{strings.Repeat("x", 2048), "at most 2048"},
	} {
		for what, build := range map[string]func(string) (spiffeid.ID, error){
			"service":       func(n string) (spiffeid.ID, error) { return ForService(td, "default", "dc1", n) },
			"namespace":     func(n string) (spiffeid.ID, error) { return ForService(td, n, "dc1", "web") },
			"datacenter":    func(n string) (spiffeid.ID, error) { return ForService(td, "default", n, "web") },
			"node":          func(n string) (spiffeid.ID, error) { return ForNode(td, n) },
			"control plane": func(n string) (spiffeid.ID, error) { return ForControlPlane(td, n) },
			"operator":      func(n string) (spiffeid.ID, error) { return ForOperator(td, n) },
		} {
			_, err := build(tc.name)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s %.20q: got %v, want %q", what, tc.name, err, tc.want)
			} else if len(tc.name) < 2048 && !strings.Contains(err.Error(), what) {
				t.Errorf("%q does not say that it is a %s", err, what)
			}
		}
	}
	if err := CheckName("node", "ok-1"); err != nil {
		t.Error(err)
	}
	if err := CheckName("node", "a b"); err == nil {
		t.Error("accepted")
	}
	if _, err := ForNode(spiffeid.TrustDomain{}, "n"); err == nil {
		t.Error("no trust domain: accepted")
	}
}

func TestOf(t *testing.T) {
	for _, tc := range []struct {
		id, want string // want is empty when it is Other
	}{
		{"spiffe://mesh.test/agent/x", ""},
		{"spiffe://mesh.test/ns/default/dc/dc1/svc", ""},
		{"spiffe://mesh.test/ns/default/dc/dc1/svc/web/x", ""},
		{"spiffe://mesh.test/hauberkian/node/x", ""},
		{"spiffe://mesh.test", ""},
		{"spiffe://mesh.test/hauberk", "reserved"},
		{"spiffe://mesh.test/hauberk/node", "reserved"},
		{"spiffe://mesh.test/hauberk/node/a/b", "reserved"},
		{"spiffe://mesh.test/hauberk/future/x", "reserved"},
		{"spiffe://mesh..test/x", "empty label"},
		{"https://mesh.test/x", "scheme"},
	} {
		got, err := Parse(tc.id)
		switch {
		case tc.want == "" && (err != nil || got.Kind != Other || got.ID.String() != tc.id):
			t.Errorf("%s: got %+v, %v", tc.id, got, err)
		case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
			t.Errorf("%s: got %v, want %q", tc.id, err, tc.want)
		}
	}
	if _, err := Of(spiffeid.ID{}); err == nil {
		t.Error("the empty ID was accepted")
	}
}

func TestTrustDomain(t *testing.T) {
	for _, tc := range []struct{ name, want string }{
		{"mesh.test", ""},
		{"a", ""},
		{"10.0.0.1", ""},
		{"with-dash_and.under", ""},
		{strings.Repeat("a.", 127) + "a", ""},
		{"", "empty"},
		{"a..b", "empty label"},
		{"a.", "empty label"},
		{".a", "empty label"},
		{".", "empty label"},
		{"Mesh.test", "'M' is not allowed"},
		{"mesh:80", "':' is not allowed"},
		{"spiffe://mesh.test", "bare name"},
		{"m\u00e9sh", "'\u00e9' is not allowed"},
		{strings.Repeat("a", 256), "at most 255"},
	} {
		got, err := TrustDomain(tc.name)
		switch {
		case tc.want == "" && (err != nil || got.Name() != tc.name):
			t.Errorf("%q: %v", tc.name, err)
		case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
			t.Errorf("%q: got %v, want %q", tc.name, err, tc.want)
		}
	}
}

// The reason for refusing empty labels: no certificate with one can be read. And
// what passes can be.
func TestTrustDomainAgreesWithX509(t *testing.T) {
	ca := idtest.NewSigner(t, "mesh.test")
	read := func(host string) error {
		key := idtest.Key(t)
		template := &x509.Certificate{SerialNumber: idtest.Serial(t), URIs: []*url.URL{{Scheme: "spiffe", Host: host, Path: "/x"}}}
		der, err := x509.CreateCertificate(nil, template, ca.Cert, key.Public(), ca.Key)
		if err != nil {
			return err
		}
		_, err = x509.ParseCertificate(der)
		return err
	}
	for _, name := range []string{"mesh.test", "a", "10.0.0.1", "with-dash_and.under", "-.a", "_", strings.Repeat("x", 64), strings.Repeat("a.", 127) + "a"} {
		if _, err := TrustDomain(name); err != nil {
			t.Errorf("%q is refused: %v", name, err)
		}
		if err := read(name); err != nil {
			t.Errorf("%q is accepted and cannot be read: %v", name, err)
		}
	}
	for _, name := range []string{"a..b", "a."} {
		if read(name) == nil {
			t.Errorf("%q can be read: it need not be refused any more", name)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("spiffe://mesh.test/ns/default/dc/dc1/svc/web")
	f.Add("spiffe://mesh.test/hauberk/node/n1")
	f.Add("spiffe://a..b/hauberk/x")
	f.Fuzz(func(t *testing.T, s string) {
		got, err := Parse(s)
		if err != nil {
			return
		}
		// What was read is what is built: no ID has two readings.
		var again spiffeid.ID
		domain := got.ID.TrustDomain()
		switch got.Kind {
		case Service:
			again, err = ForService(domain, got.Namespace, got.Datacenter, got.Service)
		case Node:
			again, err = ForNode(domain, got.Name)
		case ControlPlane:
			again, err = ForControlPlane(domain, got.Name)
		case Operator:
			again, err = ForOperator(domain, got.Name)
		default:
			if Reserved(got.ID) {
				t.Fatalf("%s is reserved and has no kind", got.ID)
			}
			return
		}
		if err != nil || again != got.ID {
			t.Fatalf("%s became %s, %v", got.ID, again, err)
		}
	})
}

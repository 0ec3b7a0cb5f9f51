package sidecar

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/identity/svid"
)

// TestNameOfACertificate: people are shown the name that a certificate has.
func TestNameOfACertificate(t *testing.T) {
	san, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte("SPIFFE://td/api#")}})
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{URIs: []*url.URL{{Scheme: "spiffe", Host: "td", Path: "/api"}}, Extensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: san}}}
	if got := nameOf(leaf); got != "SPIFFE://td/api#" {
		t.Errorf("it is shown as %q", got)
	}
}

// TestWithdrawnSignerClosesConnections: those that its SVIDs opened, at both ends,
// and no others.
func TestWithdrawnSignerClosesConnections(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	for _, s := range []string{"web", "api", "db"} {
		a.issue(s)
	}
	srv := run(t, server(a, application(t), echo(t)))
	web := run(t, caller(a, "web", srv.Addrs().Listeners["in"]))
	open := func() net.Conn {
		c, err := net.Dial("tcp", web.Addrs().Listeners["db"].String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if got, err := say(c, "hello"); err != nil || got != "hello\n" {
			t.Fatalf("%q %v", got, err)
		}
		return c
	}
	bundle := func(seq uint64, certs ...*x509.Certificate) *svid.Snapshot {
		return &svid.Snapshot{Bundles: map[string]*svid.Anchors{"td": svid.NewAnchors(seq, certs)}}
	}
	for name, end := range map[string]*Sidecar{"inbound": srv, "outbound": web} {
		c := open()
		end.identityChanged(bundle(1, a.cert, other.cert), bundle(2, a.cert))
		if got, err := say(c, "still"); err != nil || got != "still\n" {
			t.Fatalf("%s: another signer was withdrawn: %q %v", name, got, err)
		}
		end.identityChanged(bundle(2, a.cert, other.cert), bundle(3, other.cert))
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		if got, err := say(c, "late"); err == nil {
			t.Errorf("%s: the connection lives: %q", name, got)
		}
	}
}

// TestWithdrawnIdentityEndsItsConnections: an own identity that is gone, and a
// trust domain that is, take their connections with them at both ends; another's
// stay.
func TestWithdrawnIdentityEndsItsConnections(t *testing.T) {
	a := newAuthority(t)
	for _, s := range []string{"web", "api", "db"} {
		a.issue(s)
	}
	srv := run(t, server(a, application(t), echo(t)))
	web := run(t, caller(a, "web", srv.Addrs().Listeners["in"]))
	own := func(ids ...string) *svid.Snapshot {
		s := &svid.Snapshot{SVIDs: map[string]*svid.SVID{}, Bundles: map[string]*svid.Anchors{}}
		for _, x := range ids {
			s.SVIDs[x] = &svid.SVID{}
		}
		return s
	}
	trusting := func(td string) *svid.Snapshot {
		return &svid.Snapshot{Bundles: map[string]*svid.Anchors{td: svid.NewAnchors(1, []*x509.Certificate{a.cert})}}
	}
	for name, c := range map[string]struct {
		end                *Sidecar
		without, withdrawn *svid.Snapshot
	}{
		"inbound identity":      {srv, own(id("other")), own(id("db"))},
		"outbound identity":     {web, own(id("other")), own(id("web"))},
		"inbound trust domain":  {srv, trusting("td2"), trusting("td")},
		"outbound trust domain": {web, trusting("td2"), trusting("td")},
	} {
		conn, err := net.Dial("tcp", web.Addrs().Listeners["db"].String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if got, err := say(conn, "hello"); err != nil || got != "hello\n" {
			t.Fatalf("%s: %q %v", name, got, err)
		}
		c.end.identityChanged(c.without, own())
		if got, err := say(conn, "still"); err != nil || got != "still\n" {
			t.Fatalf("%s: another's was withdrawn: %q %v", name, got, err)
		}
		c.end.identityChanged(c.withdrawn, own())
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		if got, err := say(conn, "late"); err == nil {
			t.Errorf("%s: the connection lives: %q", name, got)
		}
	}
}

package svid_test

import (
	"crypto/x509"
	"strings"
	"sync"
	"testing"

	"github.com/hauberk-mesh/hauberk/identity/internal/idtest"
	"github.com/hauberk-mesh/hauberk/identity/svid"
)

const web = "spiffe://mesh.test/ns/default/dc/dc1/svc/web"

func TestNew(t *testing.T) {
	ca := idtest.NewSigner(t, "mesh.test")
	leaf, key := ca.Leaf(t, web)
	two, twoKey := ca.Leaf(t, web, func(c *x509.Certificate) { c.URIs = append(c.URIs, c.URIs[0]) })
	https, httpsKey := ca.Leaf(t, "https://mesh.test/x")
	v, err := svid.New([]*x509.Certificate{leaf, ca.Cert}, key)
	if err != nil {
		t.Fatal(err)
	}
	if v.ID.String() != web || v.Leaf() != leaf || len(v.TLS.Certificate) != 2 || v.TLS.Leaf != leaf {
		t.Errorf("got %+v", v)
	}
	for name, f := range map[string]func() error{
		"no certificate":        func() error { _, err := svid.New(nil, key); return err },
		"no private key":        func() error { _, err := svid.New([]*x509.Certificate{leaf}, nil); return err },
		"does not belong":       func() error { _, err := svid.New([]*x509.Certificate{leaf}, idtest.Key(t)); return err },
		"has 2 URI names":       func() error { _, err := svid.New([]*x509.Certificate{two}, twoKey); return err },
		"is not a SPIFFE ID":    func() error { _, err := svid.New([]*x509.Certificate{https}, httpsKey); return err },
		"has 0 URI names":       func() error { c := *leaf; c.URIs = nil; _, err := svid.New([]*x509.Certificate{&c}, key); return err },
		"key does not belong t": func() error { _, err := svid.New([]*x509.Certificate{ca.Cert}, key); return err },
	} {
		if err := f(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want %q", err, name)
		}
	}
}

func TestHolder(t *testing.T) {
	h := svid.NewHolder(nil)
	if h.Snapshot() == nil {
		t.Fatal("the snapshot is nil")
	}
	ca := idtest.NewSigner(t, "mesh.test")
	snapshot := idtest.Snapshot([]*idtest.Signer{ca}, ca.SVID(t, web))
	changed := h.Changed()
	h.Set(snapshot)
	select {
	case <-changed:
	default:
		t.Error("the change was not announced")
	}
	if own, ok := h.Snapshot().Own(""); !ok || own.ID.String() != web {
		t.Error("the default is missing")
	}
	if _, ok := h.Snapshot().Own(web + "2"); ok {
		t.Error("a stranger was found")
	}
	if snapshot.Version != 0 {
		t.Error("the caller's snapshot was changed")
	}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { h.Set(snapshot) })
	}
	wg.Wait()
	if v := h.Snapshot().Version; v != 51 {
		t.Errorf("version %d, want 51", v)
	}
}

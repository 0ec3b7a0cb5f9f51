package cluster

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/internal/handshake"
	"github.com/hauberk-mesh/hauberk/internal/peercert"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// shows is a source of certificates that presents a foreign one.
type shows struct{ own *handshake.Own }

func (s shows) ClientTLS(string, string, *TLS) (*tls.Config, *handshake.Own, error) {
	return &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}, s.own, nil
}

// TestWhatIsShownToHosts: a connection knows the certificate that it presented, and its number,
// which no other has.
func TestWhatIsShownToHosts(t *testing.T) {
	if _, err := telemetry.ParseFormat("%UPSTREAM_CONNECTION_ID%"); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer srv.Close()
	own := &handshake.Own{ID: "spiffe://td/web", Certificate: peercert.Of([]*x509.Certificate{{DNSNames: []string{"web.test"}}})}
	c := mustUpdate(t, newManager(t, Options{TLS: shows{own}}), &Config{Name: "c", TLS: &TLS{}, Endpoints: hosts("c", srv.Listener.Addr().String())})
	seen := map[uint64]bool{}
	for range 3 {
		conn, err := c.hosts()[0].Acquire(withTimeout(10*time.Second), "web", nil, true, DefaultPriority, monotonic(), 0)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Release() // so that the next one is another
		i := conn.Stream.Info()
		if i.Own() != own || i.OwnID != own.ID || i.Own().Certificate.Text(peercert.DNSNames) != "web.test" {
			t.Errorf("presented %q, %q", i.OwnID, i.Own().Certificate.Text(peercert.DNSNames))
		}
		if i.Noted == nil || i.Noted.ID == 0 || seen[i.Noted.ID] {
			t.Fatalf("noted %+v, after %v", i.Noted, seen)
		}
		seen[i.Noted.ID] = true
	}
}

package hcm

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/internal/handshake"
	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
)

func certificate(t testing.TB, id string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	u, _ := url.Parse(id)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), URIs: []*url.URL{u}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// identities gives each source its own certificate, and notes who asked.
type identities struct {
	t     testing.TB
	mu    sync.Mutex
	certs map[string]tls.Certificate
	asked []string
}

func (p *identities) ClientTLS(source, _ string, c *cluster.TLS) (*tls.Config, *handshake.Own, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, source)
	cert, ok := p.certs[source]
	if !ok {
		cert = certificate(p.t, source)
		p.certs[source] = cert
	}
	return &tls.Config{
		Certificates: []tls.Certificate{cert}, ServerName: c.SNI, InsecureSkipVerify: true, DynamicRecordSizingDisabled: true,
		VerifyConnection: func(st tls.ConnectionState) error {
			if id := st.PeerCertificates[0].URIs[0].String(); !slices.Contains(c.PeerIDs, id) {
				return errors.New("peer is " + id)
			}
			return nil
		},
	}, &handshake.Own{ID: source}, nil
}

// twoHops is a client's sidecar and a server's, with mTLS between.
func twoHops(t testing.TB, origin string, peers ...string) (front, back *bed, ids *identities) {
	back = quiet(newBed(t, origin))
	back.tls = &tls.Config{
		Certificates: []tls.Certificate{certificate(t, apiID)}, ClientAuth: tls.RequireAnyClientCert,
		SessionTicketsDisabled: true, DynamicRecordSizingDisabled: true,
	}
	back.cfg.ForwardClientCert, back.cfg.ClientCert.URI = SanitizeSet, true
	back.start()
	front = quiet(newBed(t))
	ids = &identities{t: t, certs: map[string]tls.Certificate{}}
	_ = front.clusters.Close()
	front.clusters = cluster.NewManager(cluster.Options{Metrics: front.metrics, TLS: ids})
	err := front.clusters.Update(&cluster.Config{Name: "origin", Endpoints: endpoints("origin", back.addr), TLS: &cluster.TLS{SNI: "api.internal", PeerIDs: peers}})
	if err != nil {
		t.Fatal(err)
	}
	return front, back, ids
}

func TestTwoHops(t *testing.T) {
	front, back, ids := twoHops(t, httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Seen-Cert", r.Header.Get("X-Forwarded-Client-Cert"))
		echo(w, r)
	}), apiID)
	front.start()
	c := front.dial()
	for range 3 {
		resp, body := c.do("POST /p HTTP/1.1\r\nHost: h\r\nX-Forwarded-Client-Cert: forged\r\nContent-Length: 2\r\n\r\nhi")
		cert := resp.Header.Get("X-Seen-Cert")
		if body != "POST|2|hi" || !strings.HasPrefix(cert, "By="+apiID+";Hash=") || !strings.HasSuffix(cert, ";URI="+webID) {
			t.Fatalf("%q %q", body, cert)
		}
	}
	big := strings.Repeat("z", 200<<10)
	if _, body := c.do("POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n32000\r\n" + big + "\r\n0\r\n\r\n"); len(body) != len(big)+len("POST|204800|") {
		t.Fatalf("%d bytes", len(body))
	}
	back.mu.Lock()
	n := len(back.conns)
	back.mu.Unlock()
	if n != 1 || !slices.Equal(ids.asked, []string{webID}) {
		t.Errorf("%d connections, certificates asked for %v", n, ids.asked)
	}
}

// TestWrongPeer: a server with another identity gets no byte of the request.
func TestWrongPeer(t *testing.T) {
	front, _, _ := twoHops(t, httpOrigin(t, func(http.ResponseWriter, *http.Request) { t.Error("the request arrived") }), webID)
	front.start()
	if resp, _ := front.dial().do(simpleGet); resp.StatusCode != 503 {
		t.Error(resp.StatusCode)
	}
}

// TestTwoHopAllocations: crypto/tls allocates for each record it reads; we add
// nothing.
func TestTwoHopAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	front, _, _ := twoHops(t, benchOrigin(t), apiID)
	front.start()
	c, err := net.Dial("tcp", front.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	req, buf := []byte(benchRequest), make([]byte, 4096)
	run := func(n int) {
		for range n {
			if _, err := roundTrip(c, req, buf); err != nil {
				t.Fatal(err)
			}
		}
	}
	run(200)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	run(2000)
	runtime.ReadMemStats(&after)
	// Two ends of one TLS connection: at most two each.
	if per := float64(after.Mallocs-before.Mallocs) / 2000; per > 4.05 {
		t.Errorf("%.2f allocations a request over both hops", per)
	} else {
		t.Logf("%.2f allocations a request over both hops", per)
	}
}

func BenchmarkTwoHops(b *testing.B) {
	front, _, _ := twoHops(b, benchOrigin(b), apiID)
	bench(b, front.start().addr, 64)
}

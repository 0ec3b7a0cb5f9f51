package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	grpchealth "google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	"github.com/hauberk-mesh/hauberk/internal/handshake"
	"github.com/hauberk-mesh/hauberk/sidecar/http2"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// http2Hosts answers HTTP/2 health checks over pipes.
type http2Hosts struct {
	*checkedHosts
	bodies map[string]string
}

func (s *http2Hosts) open(_ context.Context, p *pool, _ *settings, want protocol) (stream.Stream, Kind, error) {
	addr := p.host.target.Load().address
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dials[addr]++
	here, there := net.Pipe()
	s.wg.Go(func() {
		if want == protocolHTTP2 {
			_ = http2.NewServer(pipe{there}, http2.Default(), h2Handler{s, addr}).Serve(context.Background())
		}
	})
	return pipe{here}, 0, nil
}

type h2Handler struct {
	s    *http2Hosts
	addr string
}

func (h h2Handler) ServeStream(st *http2.Stream) {
	r := st.Request()
	var body strings.Builder
	for last := r.Body == nil; !last; {
		var chunk []byte
		var err error
		if chunk, last, err = st.Next(); err != nil {
			return
		}
		body.Write(chunk)
	}
	h.s.mu.Lock()
	answer := h.s.answer[h.addr]
	within, _ := r.Fields.ByID(message.GRPCTimeout)
	h.s.heads[h.addr] = r.Method + " " + r.Scheme + " " + r.Authority + r.Path + within
	h.s.bodies[h.addr] = body.String()
	h.s.mu.Unlock()
	var resp message.Response
	resp.Status, resp.ContentLength = 200, message.UnknownLength
	resp.Fields.Add("content-type", "application/grpc")
	var trailers message.Fields
	switch answer {
	case "hang":
		time.Sleep(5 * time.Second) // on the bubble's clock
		return
	case "500":
		resp.Status = 500
		_ = st.WriteHead(&resp, true)
	case "unimplemented":
		resp.Fields.Add("grpc-status", "12")
		_ = st.WriteHead(&resp, true)
	case "degraded":
		resp.Fields.Add("x-envoy-degraded", "1")
		_ = st.WriteHead(&resp, true)
	case "text":
		_ = st.WriteHead(&resp, false)
		_ = st.WriteData([]byte("hello"), true)
	default:
		_ = st.WriteHead(&resp, false)
		_ = st.WriteData([]byte(answer), false)
		trailers.Add("grpc-status", "0")
		_ = st.WriteTrailers(&trailers)
	}
	_ = st.Flush()
}

// inHTTP2Bubble has one host, which gives this answer from its first check on: that
// is made as soon as the cluster is there.
func inHTTP2Bubble(t *testing.T, check *HealthCheck, answer string, test func(c *Cluster, s *http2Hosts)) {
	inBubble(t, func(t *testing.T, m *Manager, s *checkedHosts) {
		h := &http2Hosts{s, map[string]string{}}
		m.openCheck = h.open
		h.say("10.0.0.1:80", answer)
		test(used(t, m, &Config{Name: "c", HealthCheck: check, Endpoints: hosts("c", "10.0.0.1")}), h)
	})
}

func TestGRPCCheck(t *testing.T) {
	for answer, want := range map[string]string{
		"\x00\x00\x00\x00\x02\x08\x01": "passing", "\x00\x00\x00\x00\x02\x08\x02": "failing", "\x00\x00\x00\x00\x00": "failing",
		"\x01\x00\x00\x00\x02\x08\x01": "failing", "": "failing", "500": "failing", "unimplemented": "failing", "hang": "timeout",
		"\x00\x00\x00\x00\x06\x12\x02ab\x08\x01": "passing", "text": "failing",
	} {
		check := every(nil)
		check.GRPC = &GRPCCheck{Service: "echo", Authority: "api"}
		inHTTP2Bubble(t, check, answer, func(c *Cluster, s *http2Hosts) {
			wait(11 * time.Second)
			if got := c.Stats()[0]; got.Check != want {
				t.Errorf("%q: %s: %s", answer, got.Check, got.CheckError)
			}
			if got := s.heads["10.0.0.1:80"]; got != "POST http api/grpc.health.v1.Health/Check1000m" {
				t.Errorf("asked %q", got)
			}
			if got := s.bodies["10.0.0.1:80"]; got != "\x00\x00\x00\x00\x06\x0a\x04echo" {
				t.Errorf("sent %q", got)
			}
			if answer != "hang" && s.dials["10.0.0.1:80"] != 1 {
				t.Errorf("%q: %d connections", answer, s.dials["10.0.0.1:80"])
			}
		})
	}
}

func TestHTTP2Check(t *testing.T) {
	for answer, want := range map[string]string{"text": "passing", "500": "failing", "hang": "timeout", "degraded": "failing"} {
		inHTTP2Bubble(t, every(&HTTPCheck{Path: "/p", HTTP2: true, Method: "POST", Body: []byte("hi"), Receive: [][]byte{[]byte("ell")}}), answer, func(c *Cluster, s *http2Hosts) {
			wait(6 * time.Second)
			if got := c.Stats()[0]; got.Check != want || s.bodies["10.0.0.1:80"] != "hi" {
				t.Errorf("%q: %s: %s", answer, got.Check, got.CheckError)
			}
		})
	}
	inHTTP2Bubble(t, every(&HTTPCheck{Path: "/p", HTTP2: true}), "degraded", func(c *Cluster, s *http2Hosts) {
		if wait(time.Second); c.Stats()[0].Check != "degraded" {
			t.Errorf("%+v", c.Stats()[0])
		}
	})
}

func FuzzHealthResponse(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00\x02\x08\x01"))
	f.Add([]byte("\x00\x00\x00\x00\x06\x12\x02ab\x08\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		status, err := healthResponse(b)
		var want healthpb.HealthCheckResponse
		if err == nil && len(b) >= 5 {
			if e := proto.Unmarshal(b[5:], &want); e == nil && status <= 1<<31-1 && uint64(want.GetStatus()) != status {
				t.Errorf("read %d, protobuf %d of %q", status, want.GetStatus(), b)
			}
		}
	})
}

// pooled is a source of certificates that trusts a server.
type pooled struct{ cfg *tls.Config }

func (p pooled) ClientTLS(_, _ string, t *TLS) (*tls.Config, *handshake.Own, error) {
	cfg := p.cfg.Clone()
	cfg.NextProtos, cfg.ServerName = t.ALPN, t.SNI
	return cfg, &handshake.Own{ID: "spiffe://td/web"}, nil
}

// TestChecksOverTLS asks a real server, over the path that requests take.
func TestChecksOverTLS(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Proto+strings.Repeat(" ", maxCheckBody)) // however long, it is an answer
	}))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	m := newManager(t, Options{TLS: pooled{&tls.Config{RootCAs: roots}}})
	for _, protocol := range []Protocol{SpeakHTTP1, SpeakAuto} {
		for proto, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
			check := every(&HTTPCheck{Host: "api", Path: "/", HTTP2: http2, Receive: [][]byte{[]byte(proto)}})
			check.Timeout = 20 * time.Second
			c := mustUpdate(t, m, &Config{Name: proto, TLS: &TLS{SNI: "example.com"}, HTTP: HTTP{Protocol: protocol}, HealthCheck: check, Endpoints: hosts("c", srv.Listener.Addr().String())})
			waitFor(t, func() bool { return c.Stats()[0].CheckAttempts > 0 })
			if got := c.Stats()[0]; got.Check != "passing" {
				t.Errorf("%s: %s %s", proto, got.Check, got.CheckError)
			}
			m.Remove(proto)
		}
	}
}

// TestChecksUseTheEndpointsName: where requests ask for it as the server's name, checks do.
func TestChecksUseTheEndpointsName(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer srv.Close()
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	at := hosts("c", srv.Listener.Addr().String())
	at.Localities[0].Endpoints[0].Hostname = "example.com"
	c := mustUpdate(t, newManager(t, Options{TLS: pooled{&tls.Config{RootCAs: roots}}}), &Config{
		Name: "c", TLS: &TLS{AutoHostSNI: true}, HealthCheck: every(&HTTPCheck{Path: "/"}), Endpoints: at,
	})
	waitFor(t, func() bool { return c.Stats()[0].CheckAttempts > 0 })
	if got := c.Stats()[0]; got.Check != "passing" {
		t.Errorf("%s %s", got.Check, got.CheckError)
	}
}

// TestGRPCServer asks gRPC's own implementation.
func TestGRPCServer(t *testing.T) {
	tlsSource := httptest.NewUnstartedServer(nil)
	tlsSource.StartTLS()
	defer tlsSource.Close()
	roots := x509.NewCertPool()
	roots.AddCert(tlsSource.Certificate())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: tlsSource.TLS.Certificates, NextProtos: []string{"h2"}})))
	health := grpchealth.NewServer()
	health.SetServingStatus("down", healthpb.HealthCheckResponse_NOT_SERVING)
	healthpb.RegisterHealthServer(srv, health)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	defer func() { srv.Stop(); <-done }()
	m := newManager(t, Options{TLS: pooled{&tls.Config{RootCAs: roots}}})
	for service, want := range map[string]string{"": "", "down": "the service's health is 2", "unknown": `gRPC status "5"`} {
		check := every(nil)
		check.GRPC = &GRPCCheck{Service: service}
		c := mustUpdate(t, m, &Config{Name: "c", TLS: &TLS{SNI: "example.com"}, HealthCheck: check, HTTP: HTTP{Protocol: SpeakHTTP2}, Endpoints: hosts("c", l.Addr().String())})
		waitFor(t, func() bool { return c.Stats()[0].CheckAttempts > 0 })
		if got := c.Stats()[0].CheckError; !strings.HasPrefix(got, want) || (got == "") != (want == "") {
			t.Errorf("%q: %s", service, got)
		}
		m.Remove("c")
	}
}

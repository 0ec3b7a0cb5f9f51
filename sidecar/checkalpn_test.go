package sidecar

import (
	"bufio"
	"crypto/tls"
	"encoding/pem"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/tlscontext"
)

// TestChecksChooseTheirALPN: over a foreign TLS context too, checks offer what they speak or are
// told to, and not what requests offer.
func TestChecksChooseTheirALPN(t *testing.T) {
	for name, c := range map[string]struct {
		context, options, server []string
		protocol                 cluster.Protocol
		http2                    bool
		want                     string // that the server finds agreed on
	}{
		"of a context without any":          {nil, nil, []string{"h2", "http/1.1"}, cluster.SpeakHTTP1, false, "http/1.1"},
		"where requests agree on theirs":    {nil, nil, []string{"h2", "http/1.1"}, cluster.SpeakAuto, false, "http/1.1"},
		"HTTP/2 where requests agree":       {nil, nil, []string{"http/1.1", "h2"}, cluster.SpeakAuto, true, "h2"},
		"of a context for HTTP/2":           {[]string{"h2"}, nil, []string{"h2", "http/1.1"}, cluster.SpeakHTTP2, false, "http/1.1"},
		"told to, of a context for HTTP/2":  {[]string{"h2"}, []string{"http/1.1"}, []string{"h2", "http/1.1"}, cluster.SpeakHTTP2, false, "http/1.1"},
		"told another name":                 {[]string{"h2"}, []string{"probe"}, []string{"h2", "probe"}, cluster.SpeakHTTP2, false, "probe"},
		"of a context for another protocol": {[]string{"mesh"}, nil, []string{"mesh"}, cluster.SpeakHTTP1, false, "mesh"},
	} {
		t.Run(name, func(t *testing.T) {
			agreed := make(chan string, 100)
			srv := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { agreed <- r.TLS.NegotiatedProtocol }))
			srv.Config.ErrorLog = log.New(io.Discard, "", 0)
			if srv.EnableHTTP2 = c.http2; !c.http2 {
				srv.Config.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){"mesh": answerOnce, "probe": answerOnce}
			}
			srv.TLS = &tls.Config{NextProtos: c.server}
			srv.StartTLS()
			defer srv.Close()
			provider := newTLSProvider(t.Context(), nil, nil, slog.New(slog.DiscardHandler))
			m := cluster.NewManager(cluster.Options{TLS: provider, Log: slog.New(slog.DiscardHandler)})
			defer m.Close()
			err := m.Update(&cluster.Config{
				Name: "c", HTTP: cluster.HTTP{Protocol: c.protocol},
				TLS:       &cluster.TLS{ALPN: c.context, Context: trusting(srv, c.context)},
				Endpoints: endpointOf(t, srv),
				HealthCheck: &cluster.HealthCheck{
					Timeout: 5 * time.Second, Interval: time.Hour, NoTraffic: time.Hour, NoTrafficHealthy: time.Hour, Unhealthy: time.Hour,
					UnhealthyEdge: time.Hour, HealthyEdge: time.Hour, UnhealthyThreshold: 1, HealthyThreshold: 1,
					HTTP: &cluster.HTTPCheck{Host: "api", Path: "/", HTTP2: c.http2}, ALPN: c.options,
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			host := func() cluster.HostStats { return m.Get("c").Stats()[0] }
			eventually(t, "the first check", func() bool { return host().CheckAttempts > 0 })
			if got := host(); got.Check != "passing" {
				t.Fatalf("%s: %s", got.Check, got.CheckError)
			}
			if got := <-agreed; got != c.want {
				t.Errorf("agreed on %q, not %q", got, c.want)
			}
		})
	}
}

// answerOnce has net/http answer on a connection of a protocol that it does not know.
func answerOnce(_ *http.Server, conn *tls.Conn, h http.Handler) {
	r, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		return
	}
	state := conn.ConnectionState()
	r.TLS = &state
	h.ServeHTTP(nil, r)
	_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
}

// trusting is a foreign context that trusts a server.
func trusting(srv *httptest.Server, alpn []string) *tlscontext.Client {
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	return &tlscontext.Client{SNI: "example.com", Common: tlscontext.Common{
		ALPN: alpn, Validation: &tlscontext.Validation{CA: tlscontext.Source{Inline: tlscontext.Secret(ca)}},
	}}
}

func endpointOf(t *testing.T, srv *httptest.Server) *cluster.Assignment {
	host, port, err := net.SplitHostPort(srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	n, _ := strconv.Atoi(port)
	return &cluster.Assignment{Localities: []cluster.Locality{{Weight: 1, Endpoints: []cluster.Endpoint{{Host: host, Port: n}}}}}
}

//go:build e2e

package differential

import (
	"bytes"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// heard is a host that keeps what the first connection to it says until it was asked twice, or closed.
func heard(t *testing.T) (port int, what chan string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	what = make(chan string, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				var all []byte
				buf := make([]byte, 1024)
				for answered := 0; ; {
					n, err := c.Read(buf)
					all = append(all, buf[:n]...)
					for ; answered < bytes.Count(all, []byte("PING\n")); answered++ {
						_, _ = c.Write([]byte("PONG\n"))
					}
					if err != nil || answered > 1 {
						break
					}
				}
				select {
				case what <- string(all):
				default:
				}
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port, what
}

// TestTCPChecksBesideEnvoy compares what checks over TCP say that announce themselves.
func TestTCPChecksBesideEnvoy(t *testing.T) {
	envoy, hauberk, certs := programs(t)
	ping := map[string]any{"send": map[string]any{"text": "50494e470a"}, "receive": []any{map[string]any{"text": "504f4e47"}}}
	ports := regexp.MustCompile(`\d+ \d+\r\n`)
	for _, k := range []struct {
		name string
		tcp  map[string]any
		want string // where nothing is asked
	}{
		{name: "version 1", tcp: map[string]any{"proxy_protocol_config": map[string]any{"version": "V1"}}, want: "PROXY TCP4 127.0.0.1 127.0.0.1 PORTS\r\n"},
		{name: "version 2", tcp: map[string]any{"proxy_protocol_config": map[string]any{"version": "V2"}}, want: "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"},
		{name: "version 1 and a question", tcp: map[string]any{"proxy_protocol_config": map[string]any{"version": "V1"}, "send": ping["send"], "receive": ping["receive"]}},
		{name: "version 2 and a question", tcp: map[string]any{"proxy_protocol_config": map[string]any{"version": "V2"}, "send": ping["send"], "receive": ping["receive"]}},
	} {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for i, command := range []func(string) []string{envoy, hauberk} {
				port, what := heard(t)
				host := map[string]any{"endpoint": map[string]any{"address": socketAddress(port)}}
				g := &Group{Name: "tcpchecks", About: "checks", Configs: []Config{{Name: "all", Routes: []map[string]any{{"match": map[string]any{"prefix": "/"}, "route": map[string]any{"cluster": "origin"}}}}},
					Clusters: []map[string]any{{
						"name":            "checked",
						"load_assignment": map[string]any{"cluster_name": "x", "endpoints": []any{map[string]any{"lb_endpoints": []any{host}}}},
						"health_checks": []any{map[string]any{"tcp_health_check": k.tcp, "timeout": "3s", "interval": "0.05s", "no_traffic_interval": "0.05s",
							"unhealthy_threshold": 1, "healthy_threshold": 1}},
					}}}
				p, err := g.start([]string{"envoy", "hauberk"}[i], t.TempDir(), certs, command, freePort)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(p.stop)
				select {
				case said := <-what:
					got = append(got, ports.ReplaceAllString(said, "PORTS\r\n"))
				case <-time.After(10 * time.Second):
					t.Fatalf("nothing is checked: %s", p.log.String())
				}
			}
			// Envoy closes what asks nothing before it has said anything, and says its header again before
			// each question of a connection, where it would be taken for one.
			first, _, asks := strings.Cut(got[0], "PING\n")
			want := first + "PING\nPING\n"
			if !asks {
				want = k.want
			}
			if got[1] != want {
				t.Errorf("%q and %q", got[0], got[1])
			}
		})
	}
}

// TestChecksByALPN compares which version of HTTP checks speak that settle it by ALPN.
func TestChecksByALPN(t *testing.T) {
	envoy, hauberk, certs := programs(t)
	for _, k := range []struct {
		name           string
		offers, server []string
		codec          string
	}{
		{"both", []string{"h2", "http/1.1"}, []string{"h2", "http/1.1"}, "HTTP1"},
		{"HTTP/1.1", []string{"h2", "http/1.1"}, []string{"http/1.1"}, "HTTP2"},
		{"nothing offered", nil, []string{"h2"}, "HTTP1"},
	} {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for i, command := range []func(string) []string{envoy, hauberk} {
				asked := make(chan string, 1)
				s := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					select {
					case asked <- r.Proto:
					default:
					}
				}))
				s.TLS = &tls.Config{Certificates: []tls.Certificate{certs.named["api"]}, NextProtos: k.server}
				s.EnableHTTP2 = slices.Contains(k.server, "h2")
				s.StartTLS()
				t.Cleanup(s.Close)
				host := map[string]any{"endpoint": map[string]any{"address": socketAddress(s.Listener.Addr().(*net.TCPAddr).Port)}}
				g := &Group{Name: "alpnchecks", About: "checks", Configs: []Config{{Name: "all", Routes: []map[string]any{{"match": map[string]any{"prefix": "/"}, "route": map[string]any{"cluster": "origin"}}}}},
					Clusters: []map[string]any{{
						"name":            "checked",
						"load_assignment": map[string]any{"cluster_name": "x", "endpoints": []any{map[string]any{"lb_endpoints": []any{host}}}},
						"transport_socket": map[string]any{"name": "tls", "typed_config": map[string]any{"@type": apiType + "extensions.transport_sockets.tls.v3.UpstreamTlsContext",
							"common_tls_context": map[string]any{"alpn_protocols": k.offers, "tls_params": map[string]any{"tls_maximum_protocol_version": "TLSv1_3"},
								"validation_context": map[string]any{"trusted_ca": map[string]any{"filename": certs.file("ca.crt")}}}}},
						"health_checks": []any{map[string]any{"http_health_check": map[string]any{"path": "/", "use_alpn_protocol": true, "codec_client_type": k.codec},
							"timeout": "3s", "interval": "0.05s", "no_traffic_interval": "0.05s", "unhealthy_threshold": 1, "healthy_threshold": 1}},
					}}}
				p, err := g.start([]string{"envoy", "hauberk"}[i], t.TempDir(), certs, command, freePort)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(p.stop)
				select {
				case proto := <-asked:
					got = append(got, proto)
				case <-time.After(10 * time.Second):
					t.Fatalf("nothing is checked: %s", p.log.String())
				}
			}
			if got[0] != got[1] {
				t.Errorf("%s and %s", got[0], got[1])
			}
		})
	}
}

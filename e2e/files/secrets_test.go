//go:build e2e

package files

import (
	"crypto/tls"
	"maps"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"
)

// secretListener shows the certificates of some secrets, at a port.
func secretListener(at string, secrets ...string) string {
	var list []string
	for _, s := range secrets {
		list = append(list, `{name: `+s+`, sds_config: {path_config_source: {path: DIR/`+s+`.yaml}}}`)
	}
	return `- {TYPE listener.v3.Listener, name: at-` + at + `, address: {socket_address: {address: 127.0.0.1, port_value: ` + at + `}}, filter_chains: [{filters: [{name: tcp, typed_config: {
    "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: in, cluster: a}}], transport_socket: {name: tls, typed_config: {
    "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, common_tls_context: {tls_certificate_sds_secret_configs: [` + strings.Join(list, ", ") + `]}}}}]}
`
}

func pairSecret(secret, crt, key string) string {
	return strings.NewReplacer("name: own", "name: "+secret, crt+".key", key+".key").Replace(ownSecret(crt))
}

// shows is whose certificate a listener shows to who asks for a name.
func (p *program) shows(port int, name string) string {
	c, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(port))
	if err != nil {
		return "refused"
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	s := tls.Client(c, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err := s.Handshake(); err != nil {
		return "closed"
	}
	return s.ConnectionState().PeerCertificates[0].Subject.CommonName
}

// TestFaultySecretsBesideEnvoy: the last good secret is for all who name it, and for each of them
// by itself (docs/bootstrap.md, "Discovered secrets").
func TestFaultySecretsBesideEnvoy(t *testing.T) {
	t.Parallel()
	ca := newPKI(t)
	files := map[string]string{"cds.yaml": clusters("a"), "a.yaml": endpoints("a", "ONE")}
	for _, n := range []string{"web", "api", "new"} {
		files[n+".crt"], files[n+".key"] = ca.issue(t, n)
		files[n+".yaml"] = pairSecret(n, n, n)
	}
	files["lds.yaml"] = "resources:\n" + secretListener("FIRST", "web", "api")
	for _, name := range []string{"hauberk", "envoy"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, name, [2]int{1, 1}, maps.Clone(files))
			step := func(what string, want [3]string) {
				t.Helper()
				var got [3]string
				for until := time.Now().Add(10 * time.Second); time.Now().Before(until); time.Sleep(50 * time.Millisecond) {
					if got = [3]string{p.shows(p.ports[0], "web"), p.shows(p.ports[0], "api"), p.shows(p.ports[1], "web")}; got == want {
						return
					}
				}
				t.Errorf("%s: %q, want %q", what, got, want)
			}
			of := func(hauberk, envoy string) string { return map[string]string{"hauberk": hauberk, "envoy": envoy}[name] }
			step("the start", [3]string{"web", "api", "refused"})
			p.write(t, "web.yaml", pairSecret("web", "web", "api"))
			time.Sleep(time.Second) // in which order two that change at once are read is chance, and what Envoy shows then
			p.write(t, "api.yaml", pairSecret("api", "new", "new"))
			time.Sleep(time.Second)
			step("one with another's key, beside another", [3]string{"web", of("web", "api"), "refused"})
			p.write(t, "lds.yaml", "resources:\n"+secretListener("FIRST", "web", "api")+secretListener("SECOND", "web"))
			time.Sleep(time.Second)
			step("one that comes to name it", [3]string{"web", of("web", "api"), of("web", "refused")})
			p.write(t, "web.yaml", pairSecret("web", "web", "web"))
			step("it is good again", [3]string{"web", "web", of("web", "refused")})
		})
	}
}

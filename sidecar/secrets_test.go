package sidecar

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/config"
	"github.com/hauberk-mesh/hauberk/sidecar/secrets"
	"github.com/hauberk-mesh/hauberk/sidecar/tlscontext"
	"github.com/hauberk-mesh/hauberk/xds/sdstest"
)

// discovered makes a bootstrap of server or caller take from a source what it takes from
// files. NAME in the source is the secret's.
func discovered(a *authority, bootstrap, source string) string {
	of := func(name string) string { return strings.ReplaceAll(source, "NAME", name) }
	for _, who := range []string{"api", "db", "web"} {
		bootstrap = strings.ReplaceAll(bootstrap,
			"tls_certificates: [{certificate_chain: {filename: "+a.dir+"/"+who+".crt}, private_key: {filename: "+a.dir+"/"+who+".key}}]",
			"tls_certificate_sds_secret_configs: [{name: "+who+", sds_config: "+of(who)+"}]")
	}
	bootstrap = strings.ReplaceAll(bootstrap, "validation_context: {trusted_ca: {filename: "+a.dir+"/ca.crt}}",
		"validation_context_sds_secret_config: {name: ROOTCA, sds_config: "+of("ROOTCA")+"}")
	bootstrap = strings.ReplaceAll(bootstrap, "          validation_context:\n            trusted_ca: {filename: "+a.dir+"/ca.crt}\n            match",
		"          combined_validation_context:\n            validation_context_sds_secret_config: {name: ROOTCA, sds_config: "+of("ROOTCA")+"}\n            default_validation_context:\n              match")
	return bootstrap
}

const fromService = `{resource_api_version: V3, api_config_source: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: keeper}}]}}`

// withKeeper adds the cluster of a service.
func withKeeper(bootstrap, socket string) string {
	return bootstrap + `
  - name: keeper
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment: {cluster_name: keeper, endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: "` + socket + `"}}}}]}]}
node: {id: n1, cluster: c}
`
}

// secret is what a service or file has of a name: the certificate of a service, or
// the anchors.
func (a *authority) secret(name string) *tlsv3.Secret {
	a.t.Helper()
	read := func(file string) *corev3.DataSource {
		b, err := os.ReadFile(filepath.Join(a.dir, file))
		if err != nil {
			a.t.Fatal(err)
		}
		return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: b}}
	}
	s := &tlsv3.Secret{Name: name}
	if name == "ROOTCA" {
		s.Type = &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{TrustedCa: read("ca.crt")}}
	} else {
		s.Type = &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{CertificateChain: read(name + ".crt"), PrivateKey: read(name + ".key")}}
	}
	return s
}

func marshal(t *testing.T, m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for until := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("never: " + what)
		}
	}
}

// presented is the serial number of the certificate that a listener shows.
func presented(t *testing.T, a *authority, to net.Addr) string {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(a.dir+"/web.crt", a.dir+"/web.key")
	if err != nil {
		t.Fatal(err)
	}
	c, err := tls.Dial("tcp", to.String(), &tls.Config{ServerName: "api", InsecureSkipVerify: true, Certificates: []tls.Certificate{cert}}) // looks, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

func TestSecretsOfAService(t *testing.T) {
	a := newAuthority(t)
	for _, who := range []string{"api", "db", "web"} {
		a.issue(who)
	}
	keeper := sdstest.New(t)
	in := run(t, withKeeper(discovered(a, server(a, application(t), echo(t)), fromService), keeper.Socket))

	// Nothing is served before all have come, and who asks is told what is missing.
	for _, name := range []string{"api", "ROOTCA"} {
		keeper.Put(name, marshal(t, a.secret(name)))
	}
	eventually(t, "it is said what has not come", func() bool {
		_, why := in.Ready()
		return strings.Contains(why, `secret "db" of cluster "keeper" has not come yet`) && !strings.Contains(why, `"api"`)
	})
	if len(in.Addrs().Listeners) > 0 {
		t.Fatal("a listener without its certificate")
	}
	keeper.Put("db", marshal(t, a.secret("db")))
	eventually(t, "the listener", func() bool { return in.Addrs().Listeners["in"] != nil })
	eventually(t, "ready", func() bool { ok, _ := in.Ready(); return ok })
	to := in.Addrs().Listeners["in"]

	keeper.Put("web", marshal(t, a.secret("web")))
	out := run(t, withKeeper(discovered(a, caller(a, "web", to), fromService), keeper.Socket))
	eventually(t, "the caller", func() bool { return out.Addrs().Listeners["api"] != nil })
	ask := func() (int, string) { return call(t, "GET", out.Addrs().Listeners["api"], "/x", "") }
	if code, text := ask(); code != 200 || !strings.Contains(text, "cert=By="+id("api")) || !strings.Contains(text, "URI="+id("web")) {
		t.Fatalf("%d %s", code, text)
	}
	if r := keeper.Requests()[0]; r.GetNode().GetId() != "n1" || len(r.GetResourceNames()) != 1 {
		t.Errorf("asked for by %v", r)
	}

	// Another certificate is for handshakes from then on.
	before := presented(t, a, to)
	a.issue("api")
	keeper.Put("api", marshal(t, a.secret("api")))
	eventually(t, "the next certificate", func() bool { return presented(t, a, to) != before })

	// What cannot be used is refused, without a word of the key, and changes nothing.
	bad := a.secret("api")
	bad.GetTlsCertificate().PrivateKey = &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"}}
	now := presented(t, a, to)
	keeper.Put("api", marshal(t, bad))
	eventually(t, "the refusal", func() bool { return len(keeper.Refusals()) == 1 })
	if got := keeper.Refusals()[0]; strings.Contains(got, "c2VjcmV0") || !strings.Contains(got, "private key") {
		t.Errorf("refused with %q", got)
	}
	keeper.Put("db", marshal(t, &tlsv3.Secret{Name: "-----BEGIN c2VjcmV0"})) // under another's name
	eventually(t, "the second refusal", func() bool { return len(keeper.Refusals()) == 2 })
	if got := keeper.Refusals()[1]; strings.Contains(got, "c2VjcmV0") || !strings.Contains(got, "another secret") {
		t.Errorf("refused with %q", got)
	}
	ofTheOtherKind := a.secret("ROOTCA")
	ofTheOtherKind.Name = "db"
	keeper.Put("db", marshal(t, ofTheOtherKind))
	eventually(t, "the third refusal", func() bool { return len(keeper.Refusals()) == 3 })
	if got := keeper.Refusals()[2]; !strings.Contains(got, "is no tls_certificate") {
		t.Errorf("refused with %q", got)
	}
	unverified := a.secret("ROOTCA")
	unverified.GetValidationContext().TrustChainVerification = tlsv3.CertificateValidationContext_ACCEPT_UNTRUSTED
	keeper.Put("ROOTCA", marshal(t, unverified))
	eventually(t, "both refuse to verify nobody", func() bool { return len(keeper.Refusals()) == 5 })
	keeper.Stop()
	if presented(t, a, to) != now {
		t.Error("another certificate than the last good one")
	}
	if code, text := ask(); code != 200 {
		t.Errorf("without the service: %d %s", code, text)
	}

	// Trust that is withdrawn is withdrawn from new connections.
	other := newAuthority(t)
	keeper.Put("ROOTCA", marshal(t, other.secret("ROOTCA")))
	keeper.Start(t)
	eventually(t, "nobody is trusted", func() bool {
		c, err := tls.Dial("tcp", to.String(), &tls.Config{ServerName: "api", InsecureSkipVerify: true, Certificates: []tls.Certificate{pair(t, a, "web")}})
		if err != nil {
			return true
		}
		defer c.Close()
		_, _ = fmt.Fprint(c, "GET / HTTP/1.1\r\nhost: x\r\n\r\n")
		_, err = c.Read(make([]byte, 1))
		return err != nil
	})
}

func pair(t *testing.T, a *authority, who string) tls.Certificate {
	t.Helper()
	c, err := tls.LoadX509KeyPair(a.dir+"/"+who+".crt", a.dir+"/"+who+".key")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// files writes secrets as files of discovery, each of its name.
func (a *authority) files(dir string, names ...string) {
	a.t.Helper()
	for _, name := range names {
		b, err := protojson.Marshal(a.secret(name))
		if err != nil {
			a.t.Fatal(err)
		}
		text := `{"resources": [{"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret", ` + string(b[1:]) + `]}`
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
}

func TestSecretsOfAFile(t *testing.T) {
	a := newAuthority(t)
	for _, who := range []string{"api", "db", "web"} {
		a.issue(who)
	}
	dir := t.TempDir()
	put := func() { a.files(dir, "api", "db", "web", "ROOTCA") }
	put()
	source := `{resource_api_version: V3, path_config_source: {path: "` + dir + `/NAME"}}`
	in := run(t, discovered(a, server(a, application(t), echo(t)), source))
	to := in.Addrs().Listeners["in"]
	if to == nil {
		t.Fatal("the listener waits for what is there")
	}
	out := run(t, discovered(a, caller(a, "web", to), `{resource_api_version: V3, path: "`+dir+`/NAME"}`))
	if code, text := call(t, "GET", out.Addrs().Listeners["api"], "/x", ""); code != 200 || !strings.Contains(text, "URI="+id("web")) {
		t.Fatalf("%d %s", code, text)
	}
	before := presented(t, a, to)
	a.issue("api")
	put()
	in.secrets.Refresh()
	now := presented(t, a, to)
	if now == before {
		t.Error("the file's next certificate is not shown")
	}
	for _, damage := range []string{"", "resources: [", `{"resources": []}`, `{"resources": [{"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret", "name": "api", "tls_certificate": {}}]}`} {
		if err := os.WriteFile(filepath.Join(dir, "api"), []byte(damage), 0o600); err != nil {
			t.Fatal(err)
		}
		in.secrets.Refresh()
		if presented(t, a, to) != now {
			t.Errorf("%q took away the last good one", damage)
		}
	}
	if err := os.Remove(filepath.Join(dir, "ROOTCA")); err != nil {
		t.Fatal(err)
	}
	in.secrets.Refresh()
	if age := time.Since(in.tls.ages()[`secret "ROOTCA" of `+dir+"/ROOTCA"]); age <= 0 || age > time.Minute {
		t.Errorf("the age of trust that is not in its file any more is %v", age)
	}
	put()
	a.issue("api")
	put()
	in.secrets.Refresh()
	if presented(t, a, to) == now {
		t.Error("the file is not read again once it is whole")
	}
}

// A cluster waits for its secrets, and the one in whose place it comes goes on; but no
// longer than anything waits.
func TestClusterWaitsForItsSecrets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		store := secrets.New(secrets.Options{Sockets: map[string]string{"keeper": "/nowhere"}, Offline: true, Log: slog.New(slog.DiscardHandler)})
		defer store.Close()
		ctx, cancel := context.WithCancel(t.Context())
		provider := newTLSProvider(ctx, nil, store, slog.New(slog.DiscardHandler))
		defer provider.wait()
		defer cancel()
		clusters := cluster.NewManager(cluster.Options{TLS: provider, Metrics: r.metrics, Log: slog.New(slog.DiscardHandler)})
		defer clusters.Close()
		r.secrets, r.clusters = store, clusters
		put := func(c *cluster.Config) {
			r.mu.Lock()
			defer r.mu.Unlock()
			if err := r.setCluster(c); err != nil {
				t.Fatal(err)
			}
		}
		before := &cluster.Config{Name: "c", Type: cluster.Static}
		put(before)
		ref := &tlscontext.SecretRef{Name: "web", Cluster: "keeper"}
		after := &cluster.Config{Name: "c", Type: cluster.Static, TLS: &cluster.TLS{Context: &tlscontext.Client{
			Common: tlscontext.Common{Certificates: []tlscontext.Certificate{{Secret: ref}}, Validation: &tlscontext.Validation{SystemRoots: true}}}}}
		put(after)
		time.Sleep(9 * time.Second)
		synctest.Wait()
		if r.clusterConfigs["c"] != before {
			t.Error("the cluster is in force before its secret")
		}
		if got := strings.Join(r.pending(), "; "); got != `cluster c waits for secrets; secret "web" of cluster "keeper" has not come yet` {
			t.Errorf("it is said that %s", got)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if r.clusterConfigs["c"] != after {
			t.Error("the cluster waits for ever")
		}
		put(before)
		r.mu.Lock()
		r.sweep()
		r.mu.Unlock()
		if got := r.pending(); len(got) > 0 {
			t.Errorf("a secret that nothing names is followed on: %v", got)
		}
	})
}

func TestSecretsThatCannotCome(t *testing.T) {
	a := newAuthority(t)
	a.issue("web")
	text := caller(a, "web", echo(t))
	for _, c := range []struct{ source, want string }{
		{`{resource_api_version: V3, ads: {}}`, "private keys never cross the network"},
		{strings.ReplaceAll(fromService, "GRPC,", "DELTA_GRPC,"), "api_type: is DELTA_GRPC; use GRPC"},
		{fromService, `of cluster "keeper": private keys never cross the network: secrets come from a file, or from a static cluster whose only endpoint is a Unix socket`},
		{strings.ReplaceAll(fromService, "keeper", "api"), `of cluster "api": private keys never cross the network`},
		{`{resource_api_version: V3, path_config_source: {path: /nowhere/secrets.yaml}}`, "/nowhere/secrets.yaml: no such file"},
		{`{path_config_source: {path: /x}, resource_api_version: V2}`, "resource_api_version: is V2; only V3 is supported"},
	} {
		b, err := config.ParseBootstrap([]byte(discovered(a, text, c.source)))
		if err == nil && strings.Contains(c.source, "/nowhere/") {
			err = Check(b) // which looks for files
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.source, err)
		}
	}
}

package config

import (
	"strings"
	"testing"
)

// olderFields is a bootstrap of one TCP listener with further fields of it and of its chain.
func olderFields(listener, chain string) []byte {
	return []byte(`
static_resources:
  listeners:
  - name: l
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    listener_filters:
    - {name: tls_inspector, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}
    ` + listener + `
    filter_chains:
    - {` + chain + `filters: [{name: tcp, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: c}}]}
  clusters: [{name: c, load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 1}}}}]}]}}]
`)
}

// What older fields ask for comes after the filters that are written, the original
// destination first, as in Envoy: who is told of by a header is seen last.
func TestFiltersOfOlderFields(t *testing.T) {
	b, err := ParseBootstrap(olderFields("use_original_dst: true", "use_proxy_proto: true, "))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range b.Listeners[0].Filters {
		switch {
		case f.TLSInspector:
			got = append(got, "tls")
		case f.OriginalDst:
			got = append(got, "destination")
		case f.ProxyProtocol != nil:
			got = append(got, "proxy")
		}
	}
	if s := strings.Join(got, " "); s != "tls destination proxy" {
		t.Errorf("filters: %s", s)
	}
}

// Either spelling binds a listener or leaves it to others, and shares its port or does not;
// of the two of sharing the newer decides.
func TestOlderFieldsOfSockets(t *testing.T) {
	for fields, want := range map[string]struct{ unbound, shared bool }{
		"":                                     {false, false},
		"deprecated_v1: {bind_to_port: false}": {true, false},
		"deprecated_v1: {bind_to_port: true}":  {false, false},
		"bind_to_port: false":                  {true, false},
		"reuse_port: true":                     {false, true},
		"enable_reuse_port: true":              {false, true},
		"reuse_port: true\n    enable_reuse_port: false": {false, false},
	} {
		b, err := ParseBootstrap(olderFields(fields, ""))
		if err != nil {
			t.Fatal(err)
		}
		l := b.Listeners[0]
		if l.Unbound != want.unbound || l.Socket.ReusePort != want.shared {
			t.Errorf("%q: unbound %t, shared %t", fields, l.Unbound, l.Socket.ReusePort)
		}
	}
}

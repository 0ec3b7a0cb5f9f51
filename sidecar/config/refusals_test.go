package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

const refusedTwice = `
static_resources:
  clusters:
  - name: app
    preconnect_policy: {}
    queuing_policies: {}
  listeners:
  - name: in
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          http_filters:
          - name: lua
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua}
          - name: rbac
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC, rules: {audit_logging_options: {}}}
          route_config:
            vhds: {config_source: {ads: {}}}
            virtual_hosts:
            - name: all
              domains: ["*"]
              typed_per_filter_config:
                lua: {"@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.LuaPerRoute}
`

// Whoever brings a bootstrap from an Envoy is told of everything at once, by the paths of
// the file as it is.
func TestAllRefusals(t *testing.T) {
	_, err := ParseBootstrap([]byte(refusedTwice))
	if err == nil {
		t.Fatal("it was taken")
	}
	const manager = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config."
	lines := strings.Split(err.Error(), "\n")
	if lines[0] != "refused in 6 places:" {
		t.Error(lines[0])
	}
	for _, want := range []string{
		"  static_resources.clusters[0].preconnect_policy: unsupported; remove the field",
		"  static_resources.clusters[0].queuing_policies: unsupported; remove the field",
		"  " + manager + `http_filters[0]: unsupported extension "lua" (type envoy.extensions.filters.http.lua.v3.Lua)`,
		"  " + manager + "http_filters[1].typed_config.rules.audit_logging_options: unsupported",
		"  " + manager + "route_config.vhds: unsupported",
		"  " + manager + `route_config.virtual_hosts[0].typed_per_filter_config.lua: unsupported extension type "envoy.extensions.filters.http.lua.v3.LuaPerRoute"`,
	} {
		if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, want) }) {
			t.Errorf("no line begins with %q:\n%v", want, err)
		}
	}
	if one := new(FieldError); !errors.As(err, &one) {
		t.Errorf("%T holds no FieldError", err)
	}
}

// What is wrong with the values of one cluster or listener hides nothing of the others.
func TestRefusalsOfSeveralResources(t *testing.T) {
	_, err := ParseBootstrap([]byte(`
static_resources:
  clusters:
  - {name: one, type: LOGICAL_DNS}
  - {name: two, load_assignment: {cluster_name: two}}
  - {name: three, lb_policy: LOAD_BALANCING_POLICY_CONFIG, load_assignment: {cluster_name: three}}
  listeners:
  - {name: in}
`))
	if err == nil {
		t.Fatal("it was taken")
	}
	want := "refused in 3 places:\n" +
		`  static_resources.clusters[0] ("one"): load_assignment: a logical DNS cluster has exactly one locality with one endpoint` + "\n" +
		`  static_resources.clusters[2] ("three"): lb_policy: is LOAD_BALANCING_POLICY_CONFIG; use load_balancing_policy, or another one` + "\n" +
		`  static_resources.listeners[0] ("in"): address: a socket_address is needed`
	if err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// A text of any length is cut, and says so.
func TestManyRefusals(t *testing.T) {
	var b strings.Builder
	b.WriteString("static_resources:\n  clusters:\n")
	for i := range 100 {
		fmt.Fprintf(&b, "  - {name: c%d, preconnect_policy: {}}\n", i)
	}
	_, err := ParseBootstrap([]byte(b.String()))
	if err == nil || !strings.HasPrefix(err.Error(), "refused in 100 places:\n") || !strings.HasSuffix(err.Error(), "\n  and 70 more") || strings.Count(err.Error(), "\n") != 31 {
		t.Error(err)
	}
}

// The rules that come with Envoy's API name fields as Go does; an error has the names of the file.
func TestViolations(t *testing.T) {
	for _, c := range []struct{ cluster, want string }{
		{"{name: c, connect_timeout: -1s}", "static_resources.clusters[0].connect_timeout: value must be greater than 0s"},
		{"{name: c, outlier_detection: {enforcing_consecutive_5xx: 101}}", "static_resources.clusters[0].outlier_detection.enforcing_consecutive_5xx: value must be less than or equal to 100"},
		{"{name: c, connect_timeout: -1s, dns_refresh_rate: 0s}", "refused in 2 places:\n  static_resources.clusters[0].connect_timeout: value must be greater than 0s\n  static_resources.clusters[0].dns_refresh_rate: value must be greater than 1ms"},
	} {
		if _, err := ParseBootstrap([]byte("static_resources: {clusters: [" + c.cluster + "]}")); err == nil || err.Error() != c.want {
			t.Errorf("%s:\ngot  %v\nwant %s", c.cluster, err, c.want)
		}
	}
}

// TestNotANumber: what is compared with its limits is within them all, and is refused by its path.
func TestNotANumber(t *testing.T) {
	const (
		managed = `{name: h, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: s, route_config: {}, %s}}`
		router  = `{name: r, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}`
		rbac    = `{name: b, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC, rules: {policies: {p: {principals: [{any: true}],
			permissions: [{metadata: {filter: f, path: [{key: k}], value: {double_match: %s}}}]}}}}}`
		rule = ".typed_config.http_filters[0].typed_config.rules.policies[\"p\"].permissions[0].metadata.value.double_match"
	)
	for _, c := range []struct{ filter, path string }{
		{fmt.Sprintf(managed, "http_filters: ["+router+"], tracing: {client_sampling: {value: NaN}}"), ".typed_config.tracing.client_sampling.value"},
		{fmt.Sprintf(managed, "http_filters: ["+fmt.Sprintf(rbac, "{exact: NaN}")+", "+router+"]"), rule + ".exact"},
		{fmt.Sprintf(managed, "http_filters: ["+fmt.Sprintf(rbac, "{range: {end: NaN}}")+", "+router+"]"), rule + ".range.end"},
		{fmt.Sprintf(managed, `http_filters: [{name: c, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck,
			pass_through_mode: false, cluster_min_healthy_percentages: {c: {value: NaN}}}}, `+router+"]"),
			".typed_config.http_filters[0].typed_config.cluster_min_healthy_percentages[\"c\"].value"},
		{`{name: t, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: s, cluster: c,
			max_downstream_connection_duration: 1s, max_downstream_connection_duration_jitter_percentage: {value: NaN}}}`,
			".typed_config.max_downstream_connection_duration_jitter_percentage.value"},
	} {
		_, err := ParseBootstrap([]byte(`static_resources: {listeners: [{name: l, address: {socket_address: {address: 127.0.0.1, port_value: 1}},
  filter_chains: [{filters: [` + strings.ReplaceAll(c.filter, "\t", " ") + `]}]}]}`))
		if want := "static_resources.listeners[0].filter_chains[0].filters[0]" + c.path + ": is not a number"; err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

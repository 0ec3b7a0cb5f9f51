package config

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// routedListener has a router with the fields.
func routedListener(fields string) []byte {
	return []byte(`static_resources:
  listeners:
  - name: in
    address: {socket_address: {address: 127.0.0.1, port_value: 8000}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: http
          route_config: {}
          ` + strings.ReplaceAll(fields, "\n", "\n          ") + "\n")
}

// TestDocumentedAttempts reads the example of docs/access-logs.md.
func TestDocumentedAttempts(t *testing.T) {
	page, err := os.ReadFile("../../docs/access-logs.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(page), "```yaml\nhttp_filters:\n")
	text, _, found := strings.Cut(text, "```")
	b, err := ParseBootstrap(routedListener("http_filters:\n" + text))
	if err != nil || !found {
		t.Fatalf("%v\n%s", err, text)
	}
	if u := b.Listeners[0].Chains[0].HTTP.UpstreamLog; u == nil || len(u.Logs) != 1 || u.Logs[0].Filter == nil || !u.OnStream || u.Interval != time.Minute {
		t.Errorf("%+v", u)
	}
}

// TestUpstreamLog: a log of attempts is read as others are, and refused by its path.
func TestUpstreamLog(t *testing.T) {
	const (
		router = `http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router, `
		file   = `upstream_log: [{name: a, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: /tmp/x`
		at     = `http_filters[0].typed_config.upstream_log`
	)
	for fields, want := range map[string]string{
		file + `}}]`:                   ``,
		file + `, format: "%NOPE%"}}]`: at + `[0].typed_config.format: `,
		file + `}, filter: {}}]`:       at + `[0].filter.filter_specifier: value is required`,
		`upstream_log: [{name: a}]`:    at + `[0]: access log "a" has no typed_config`,
		file + `, log_format: {text_format: "%DYNAMIC_METADATA(a:b)%"}}}]`: at + `[0].typed_config.log_format: `,
		`upstream_log_options: {upstream_log_flush_interval: 0.0005s}`:     at + `_options.upstream_log_flush_interval: value must be greater than or equal to 1ms`,
		`upstream_log_options: {upstream_log_flush_interval: 1s}`:          ``, // of no log
	} {
		b, err := ParseBootstrap(routedListener(router + fields + `}}]`))
		switch {
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)), want == "" && err != nil:
			t.Errorf("%s: %v", fields, err)
		case want == "":
			if logs := b.Listeners[0].Chains[0].HTTP.UpstreamLog != nil; logs != strings.HasPrefix(fields, file) {
				t.Errorf("%s: logged: %v", fields, logs)
			}
		}
	}
}

// TestCollectorOfAttempts: the cluster of a collector is named by the listener.
func TestCollectorOfAttempts(t *testing.T) {
	b, err := ParseBootstrap([]byte(string(routedListener(`http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router, upstream_log: [{name: a, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig, grpc_service: {envoy_grpc: {cluster_name: c}}}}]}}]`)) +
		"  clusters: [{name: c}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if refs := ListenerRefs(b.Listeners[0]); !slices.Equal(refs.Collectors, []string{"c"}) {
		t.Errorf("%+v", refs)
	}
}

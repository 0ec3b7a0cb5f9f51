package config

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

const loggedListener = `
static_resources:
  clusters: [{name: c, type: STATIC, load_assignment: {cluster_name: c}}]
  listeners:
  - name: l
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: tcp
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: t
          cluster: c
          access_log: [{name: a, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: /tmp/x, %s}}]
`

// TestFileAccessLog: the deprecated forms of a format are what log_format is.
func TestFileAccessLog(t *testing.T) {
	const fields = `{number: 5, code: "%RESPONSE_CODE%", o: {l: ["x%ROUTE_NAME%", true]}}`
	for _, format := range []string{"json_format: " + fields, "typed_json_format: " + fields, "log_format: {json_format: " + fields + "}"} {
		b, err := ParseBootstrap(fmt.Appendf(nil, loggedListener, format))
		if err != nil {
			t.Fatal(err)
		}
		l := b.Listeners[0].Chains[0].TCP.AccessLog[0]
		if got := fmt.Sprint(l.Fields); !l.JSON || l.Format != "" || got != "map[code:%RESPONSE_CODE% number:5 o:map[l:[x%ROUTE_NAME% true]]]" {
			t.Errorf("%s: %+v", format, l)
		}
	}
	// An empty text in the deprecated field is none, as in Envoy.
	if b, err := ParseBootstrap(fmt.Appendf(nil, loggedListener, `format: ""`)); err != nil || b.Listeners[0].Chains[0].TCP.AccessLog[0].Format != envoyFormat {
		t.Error(err)
	}
	b, err := ParseBootstrap(fmt.Appendf(nil, loggedListener, `format: "%BYTES_SENT%\n"`))
	if err != nil || b.Listeners[0].Chains[0].TCP.AccessLog[0].Format != "%BYTES_SENT%\n" {
		t.Error(err)
	}
}

// TestFormatters: those whose operators are there anyway are taken.
func TestFormatters(t *testing.T) {
	const named = `log_format: {text_format: "%REQ_WITHOUT_QUERY(:PATH)% %METADATA(ROUTE:a:b)%", formatters: [{name: x, typed_config: {"@type": type.googleapis.com/envoy.extensions.`
	if _, err := ParseBootstrap(fmt.Appendf(nil, loggedListener, named+`formatter.req_without_query.v3.ReqWithoutQuery}}, {name: z, typed_config: {"@type": type.googleapis.com/envoy.extensions.formatter.metadata.v3.Metadata}}]}`)); err != nil {
		t.Error(err)
	}
	_, err := ParseBootstrap(fmt.Appendf(nil, loggedListener, named+`http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig}}]}`))
	if err == nil || !strings.Contains(err.Error(), "log_format.formatters[0].typed_config: is that of neither req_without_query nor metadata") {
		t.Error(err)
	}
}

func TestFileAccessLogRefuses(t *testing.T) {
	const here = "filter_chains[0].filters[0].typed_config.access_log[0].typed_config."
	for format, want := range map[string]string{
		`format: "%NOPE%"`:                         here + "format: access log format, byte 1: operator %NOPE%",
		`json_format: {a: {b: "%NOPE%"}}`:          here + "json_format: a: b: access log format",
		`typed_json_format: {a: "%NOPE%"}`:         here + "typed_json_format: a: access log format",
		`json_format: {}`:                          here + "json_format: is empty",
		`log_format: {json_format: {a: "%NOPE%"}}`: here + "log_format.json_format: a: access log format",
		`log_format: {text_format: x, formatters: [{name: x, typed_config: {"@type": type.googleapis.com/google.protobuf.Struct}}]}`: here + "log_format.formatters",
		`format: "%DYNAMIC_METADATA(a)%"`:                                                "only envoy.filters.http.rbac:KEY",
		`format: "x", json_format: {a: b}`:                                               "json_format",
		`log_format: {text_format_source: {filename: /no/such/file}}`:                    here + "log_format.text_format_source.filename: open /no/such/file: no such file",
		`log_format: {text_format: ""}`:                                                  here + "log_format: is empty",
		`log_format: {text_format_source: {inline_string: ""}}`:                          here + "log_format: is empty",
		`log_format: {text_format_source: {environment_variable: HAUBERK_TEST_NO_SUCH}}`: here + "log_format.text_format_source.environment_variable: HAUBERK_TEST_NO_SUCH is not set",
	} {
		if _, err := ParseBootstrap(fmt.Appendf(nil, loggedListener, format)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", format, err)
		}
	}
}

// TestTextsInFiles: formats, and bodies of local replies, may be in files of the host, which are
// read for its own configuration only: a control plane must not have them told to others.
func TestTextsInFiles(t *testing.T) {
	name := filepath.Join(t.TempDir(), "format")
	if err := os.WriteFile(name, []byte("%BYTES_SENT% of\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := ParseBootstrap(fmt.Appendf(nil, loggedListener, "log_format: {text_format_source: {filename: "+name+"}}"))
	if err != nil || b.Listeners[0].Chains[0].TCP.AccessLog[0].Format != "%BYTES_SENT% of\n" {
		t.Error(err)
	}
	b, err = ParseBootstrap([]byte("admin: {access_log: [{name: a, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: /tmp/a, log_format: {text_format_source: {filename: " + name + "}}}}]}"))
	if err != nil || b.AdminLog[0].Format != "%BYTES_SENT% of\n" {
		t.Error(err)
	}
	for field, replaced := range map[string][2]string{
		"log_format.text_format_source.filename":  {`text_format: "LOG"`, "text_format_source: {filename: " + name + "}"},
		"body_format.text_format_source.filename": {"MANAGER", "local_reply_config: {body_format: {text_format_source: {filename: " + name + "}}}"},
		"mappers[0].body.filename": {"MANAGER", "local_reply_config: {mappers: [{body: {filename: " + name +
			"}, filter: {status_code_filter: {comparison: {op: GE, value: {default_value: 400, runtime_key: k}}}}}]}"},
	} {
		text := strings.NewReplacer(replaced[0], replaced[1], "MANAGER", "", "ROUTE", "direct_response: {status: 200}", "LOG", "x").Replace(readingListener)
		b, err := ParseBootstrap([]byte("static_resources:\n  listeners:\n  -" + strings.ReplaceAll(text, "\n", "\n    ")))
		if err != nil {
			t.Errorf("%s in a bootstrap: %v", field, err)
		} else if got, _ := json.Marshal(b.Listeners[0].Chains[0].HTTP); !strings.Contains(string(got), "%BYTES_SENT% of") {
			t.Errorf("%s in a bootstrap: %s", field, got)
		}
		if _, err := Listener(asListener(t, text)); err == nil || !strings.Contains(err.Error(), field+": files are read for a bootstrap only") {
			t.Errorf("%s by discovery: %v", field, err)
		}
	}
}

// TestAdminLogs: access_log and the deprecated access_log_path both count, as in Envoy.
func TestAdminLogs(t *testing.T) {
	const admin = `admin: {access_log_path: /tmp/b, access_log: [{name: a, filter: {status_code_filter: {comparison: {op: GE, value: {default_value: 400, runtime_key: k}}}}, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: /tmp/a, format: "%s"}}]}`
	b, err := ParseBootstrap(fmt.Appendf(nil, admin, "%RESPONSE_CODE%"))
	if err != nil {
		t.Fatal(err)
	}
	if l := b.AdminLog; len(l) != 2 || l[0].Path != "/tmp/a" || l[0].Format != "%RESPONSE_CODE%" || l[0].Filter == nil || l[1].Path != "/tmp/b" || l[1].Format != envoyFormat {
		t.Errorf("%+v", b.AdminLog)
	}
	if _, err := ParseBootstrap(fmt.Appendf(nil, admin, "%NOPE%")); err == nil || !strings.Contains(err.Error(), "admin.access_log[0].typed_config.format: access log format") {
		t.Error(err)
	}
}

// example is the first one of a page of docs.
func example(t *testing.T, page string) string { return exampleOf(t, page, 0) }

// exampleOf is one of several.
func exampleOf(t *testing.T, page string, n int) string {
	t.Helper()
	b, err := os.ReadFile("../../docs/" + page)
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Split(string(b), "```yaml\n")
	if len(all) < n+2 {
		t.Fatal(page, "has no example", n)
	}
	text, _, ok := strings.Cut(all[n+1], "```")
	if !ok {
		t.Fatal(page, "has no end of example", n)
	}
	return text
}

// TestMetadataFilter: a filter that nothing here could decide is refused by its path.
func TestMetadataFilter(t *testing.T) {
	const text, at = `path: /tmp/x, format: x}, filter: {metadata_filter: %s}`, "access_log[0].filter.metadata_filter."
	for filter, want := range map[string]string{
		`{matcher: {filter: envoy.filters.http.rbac, path: [{key: shadow_engine_result}], value: {string_match: {exact: denied}}}}`:   ``,
		`{matcher: {filter: envoy.filters.http.rbac, path: [{key: k}], value: {present_match: true}}, match_if_key_not_found: false}`: ``,
		`{matcher: {filter: envoy.common, path: [{key: access_log_hint}], value: {bool_match: true}}}`:                                ``,
		`{matcher: {filter: own, path: [{key: k}], value: {present_match: true}}}`:                                                    ``, // of a connection
		`{}`: `matcher: is missing`,
		`{matcher: {filter: envoy.filters.http.rbac, path: [{key: a}, {key: b}], value: {present_match: true}}}`:                                              `matcher.path: has 2 keys`,
		`{matcher: {filter: envoy.filters.http.jwt_authn, path: [{key: a}], value: {present_match: true}}}`:                                                   `matcher.filter: "envoy.filters.http.jwt_authn" says nothing here`,
		`{matcher: {filter: envoy.common, path: [{key: other}], value: {present_match: true}}}`:                                                               `matcher.filter: "envoy.common" says nothing here`,
		`{matcher: {filter: envoy.common, path: [{key: access_log_hint}], value: {string_match: {exact: "true"}}}}`:                                           `matcher.value.string_match: the value is true or false`,
		`{matcher: {filter: envoy.filters.http.rbac, path: [{key: a}], value: {bool_match: true}}}`:                                                           `matcher.value.bool_match: the value is a text`,
		`{matcher: {filter: envoy.filters.http.rbac, path: [{key: a}], value: {present_match: false}}}`:                                                       `matcher.value.present_match: false takes no record`,
		`{matcher: {filter: envoy.filters.http.rbac, path: [{key: a}], value: {null_match: {}}}}`:                                                             `matcher.value: metadata that a log can ask for`,
		`{matcher: {filter: envoy.filters.http.rbac, path: [{key: a}], value: {double_match: {exact: 1}}}}`:                                                   `matcher.value: metadata that a log can ask for`,
		`{matcher: {filter: envoy.filters.http.rbac, path: [{key: a}], value: {or_match: {value_matchers: [{present_match: true}, {present_match: true}]}}}}`: `matcher.value.or_match: use or_filter`,
		`{matcher: {filter: envoy.filters.http.rbac, path: [{key: a}], value: {present_match: true}, invert: true}}`:                                          `matcher.invert: Envoy's filter of logs does not heed it`,
		`{matcher: {filter: envoy.filters.http.rbac, path: [{key: a}], value: {string_match: {safe_regex: {regex: "("}}}}}`:                                   `matcher.value.string_match.safe_regex`,
		`{matcher: {filter: envoy.filters.http.rbac, path: [{key: a}]}}`:                                                                                      `matcher.value: value is required`,
		`{matcher: {filter: envoy.filters.http.rbac, path: [], value: {present_match: true}}}`:                                                                `matcher.path: value must contain at least 1`,
	} {
		b, err := ParseBootstrap([]byte(strings.Replace(loggedListener, "path: /tmp/x, %s}", fmt.Sprintf(text, filter), 1)))
		switch {
		case want == "" && err != nil, want != "" && (err == nil || !strings.Contains(err.Error(), at+want)):
			t.Errorf("%s: %v", filter, err)
		case want == "":
			if f := b.Listeners[0].Chains[0].TCP.AccessLog[0].Filter.(route.MetadataFilter); f.Missing == strings.Contains(filter, "false") {
				t.Errorf("%s: %+v", filter, f)
			}
		}
	}
	if telemetry.Wanted()&telemetry.WantMetadata == 0 {
		t.Error("nobody keeps metadata")
	}
}

// TestDocumentedAccessLog reads the example of docs/access-logs.md.
func TestDocumentedAccessLog(t *testing.T) {
	const at = "          access_log: ["
	before, _, _ := strings.Cut(loggedListener, at)
	b, err := ParseBootstrap([]byte(before + "          " + strings.ReplaceAll(example(t, "access-logs.md"), "\n", "\n          ")))
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/access-logs.md")
	if err != nil {
		t.Fatal(err)
	}
	_, filter, found := strings.Cut(string(page), "```yaml\nfilter:\n")
	filter, _, _ = strings.Cut(filter, "```")
	log := "          access_log:\n          - name: a\n            typed_config: {\"@type\": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: /tmp/x}\n            filter:\n            "
	if _, err := ParseBootstrap([]byte(before + log + strings.ReplaceAll(filter, "\n", "\n            "))); err != nil || !found {
		t.Errorf("%v\n%s", err, filter)
	}
	if l := b.Listeners[0].Chains[0].TCP.AccessLog; len(l) != 2 || !l[0].JSON || !l[0].OmitEmpty || l[0].Filter == nil || l[1].Path != "/dev/stdout" {
		t.Errorf("%+v", l)
	}
}

// TestDocumentedExport reads the second one.
func TestDocumentedExport(t *testing.T) {
	before, _, _ := strings.Cut(loggedListener, "          access_log: [")
	b, err := ParseBootstrap([]byte(before + "          " + strings.ReplaceAll(exampleOf(t, "access-logs.md", 1), "\n", "\n          ")))
	if err != nil {
		t.Fatal(err)
	}
	if l := b.Listeners[0].Chains[0].TCP.AccessLog; len(l) != 1 || l[0].Export == nil || l[0].Filter == nil {
		t.Errorf("%+v", l)
	}
}

// TestDocumentedTracing reads the example of docs/tracing.md.
func TestDocumentedTracing(t *testing.T) {
	b, err := ParseBootstrap([]byte(example(t, "tracing.md")))
	if err != nil {
		t.Fatal(err)
	}
	h := b.Listeners[0].Chains[0].HTTP
	if c := h.Tracing; c.Provider.Collector.Cluster != "collector" || !c.SpawnUpstream || c.Random.N != 100 || h.Routes.VirtualHosts[0].Routes[0].Tracing == nil {
		t.Errorf("%+v", c)
	}
}

// TestStartChildSpan: the router's older name for a span of each attempt.
func TestStartChildSpan(t *testing.T) {
	text := strings.Replace(example(t, "tracing.md"), "spawn_upstream_span: true", "verbose: true", 1)
	for child, want := range map[string]bool{"": false, ", start_child_span: true": true} {
		b, err := ParseBootstrap([]byte(strings.Replace(text, "v3.Router}", "v3.Router"+child+"}", 1)))
		if err != nil {
			t.Fatal(err)
		}
		if c := b.Listeners[0].Chains[0].HTTP.Tracing; c.SpawnUpstream != want {
			t.Errorf("%q: %v", child, c.SpawnUpstream)
		}
	}
}

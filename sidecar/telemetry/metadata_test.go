package telemetry

import (
	"strings"
	"testing"
)

func TestMetadata(t *testing.T) {
	var none *Metadata
	if _, ok := none.Get(MetadataRBAC, "a"); ok {
		t.Error("nothing has a value")
	}
	m := &Metadata{}
	m.Set(MetadataRBAC, "", "a", "1")
	m.Set(MetadataRBAC, "p_", "a", "2")
	m.Set(MetadataRBAC, "", "a", `3"`)
	m.SetFlag(MetadataCommon, LogHint, false)
	for key, want := range map[string]string{"a": `3"`, "p_a": "2", "p_b": "", "p_": "", "": "", LogHint: ""} {
		if got, ok := m.Get(MetadataRBAC, key); got != want || ok != (want != "") {
			t.Errorf("%s: %q %v", key, got, ok)
		}
	}
	if v, _ := m.Get(MetadataCommon, LogHint); v != "false" {
		t.Error(v)
	}
	f, err := ParseFormat("%DYNAMIC_METADATA(envoy.filters.http.rbac:a)% %DYNAMIC_METADATA(envoy.filters.http.rbac:p_a):1% %DYNAMIC_METADATA(envoy.filters.http.rbac:b)%")
	if err != nil {
		t.Fatal(err)
	}
	if Wanted()&WantMetadata == 0 {
		t.Error("nobody keeps metadata")
	}
	for want, r := range map[string]*Record{`3\" 2 -`: {Metadata: m}, "- - -": {}} {
		if got := string(f.Append(nil, r)); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	said := &Metadata{}
	said.Set("envoy.filters.listener.proxy_protocol", "", "a", "1")
	said.Set("own", "", "a", "2")
	const shown = "%DYNAMIC_METADATA(envoy.filters.listener.proxy_protocol:a)% %DYNAMIC_METADATA(own:a)% %METADATA(DYNAMIC:own:b)%"
	for c, want := range map[*AccessLogConfig]string{
		{Format: shown}: "1 2 -\n", {JSON: true, Fields: map[string]any{"k": []any{shown}}}: `{"k":["1 2 -"]}` + "\n",
	} {
		if _, err := CompileAccessLog(*c); err == nil || !strings.Contains(err.Error(), "only envoy.filters.http.rbac:KEY has values here") {
			t.Errorf("of requests: %v", err)
		}
		c.Connections = true
		if f, err = CompileAccessLog(*c); err != nil {
			t.Fatal(err)
		}
		if got := string(f.Append(nil, &Record{Metadata: said})); got != want {
			t.Errorf("%q", got)
		}
	}
	if _, err := ParseFormat("%DYNAMIC_METADATA(own:a)%"); err == nil || !strings.Contains(err.Error(), "only envoy.filters.http.rbac:KEY has values here") {
		t.Errorf("of requests: %v", err)
	}
	for _, argument := range []string{"envoy.filters.http.rbac", "envoy.filters.http.rbac:a:b", "envoy.common:access_log_hint", "envoy.filters.http.ext_authz:a"} {
		if _, err := ParseFormat("%DYNAMIC_METADATA(" + argument + ")%"); err == nil || !strings.Contains(err.Error(), "only envoy.filters.http.rbac:KEY") {
			t.Errorf("%s: %v", argument, err)
		}
	}
	for text, want := range map[string]string{
		"%DYNAMIC_METADATA(envoy.filters.http.rbac:)%": "is empty", "%DYNAMIC_METADATA(:a)%": "is empty", "%METADATA(CLUSTER)%": "is empty", "%METADATA(ROUTE:a::b)%": "is empty",
		"%METADATA(HOST:a:b)%": `"HOST" is none of DYNAMIC, CLUSTER`, "%METADATA(DYNAMIC:envoy.a:b)%": "only envoy.filters.http.rbac:KEY",
		"%CLUSTER_METADATA(a:b):3%": "takes no length", "%UPSTREAM_METADATA(a:b):3%": "takes no length", "%UPSTREAM_METADATA%": "needs an argument",
		`%UPSTREAM_METADATA(["envoy.lb", "name"])%`: "write envoy.lb:name", `%UPSTREAM_METADATA(["a"])%`: "write a", `%UPSTREAM_METADATA([a)%`: "is a list",
		"%CLUSTER_METADATA(hauberk:a)%": "the mesh's own", "%METADATA(ROUTE:hauberk)%": "the mesh's own",
	} {
		if _, err := ParseFormat(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

type configuredParts map[Part]map[string]map[string]any

func (c configuredParts) ConfiguredMetadata(p Part) map[string]map[string]any { return c[p] }

// TestConfiguredMetadata: a text is a text, all else JSON, which keeps its type where it stands alone.
func TestConfiguredMetadata(t *testing.T) {
	object := map[string]any{"b": []any{1.5, "x<\n", nil, true}, "a": map[string]any{"k": 1e21, "s": 1e-7}, "n": nil, "e": "", "t": `q"`, "f": 12345678.0}
	r := &Record{Configured: configuredParts{PartCluster: {"ns": object}, PartChain: {"ns": {"k": "chain"}}}}
	for operator, want := range map[string][2]string{ // in text, and as JSON
		"CLUSTER_METADATA(ns:a)":                      {`{\"k\":1e+21,\"s\":1e-7}`, `{"k":1e+21,"s":1e-7}`},
		"CLUSTER_METADATA(ns:b)":                      {`[1.5,\"x<\\n\",null,true]`, `[1.5,"x<\n",null,true]`},
		"CLUSTER_METADATA(ns:a:k)":                    {"1e+21", "1e+21"},
		"METADATA(CLUSTER:ns:f)":                      {"12345678", "12345678"},
		"METADATA(CLUSTER:ns:f):3":                    {"123", "12345678"},
		"METADATA(CLUSTER:ns:t):1":                    {"q", `"q\""`},
		"CLUSTER_METADATA(ns:e)":                      {"", `""`},
		"CLUSTER_METADATA(ns:n)":                      {"-", "null"},
		"CLUSTER_METADATA(ns:t:x)":                    {"-", "null"},
		"CLUSTER_METADATA(ns:none)":                   {"-", "null"},
		"CLUSTER_METADATA(other)":                     {"-", "null"},
		"UPSTREAM_METADATA(ns)":                       {"-", "null"},
		"METADATA(LISTENER_FILTER_CHAIN:ns:k)":        {"chain", `"chain"`},
		"METADATA(VIRTUAL_HOST:ns:k)":                 {"-", "null"},
		"METADATA(DYNAMIC:envoy.filters.http.rbac:k)": {"-", "null"},
	} {
		f, err := ParseFormat("%" + operator + "%")
		if err != nil {
			t.Fatal(err)
		}
		if got := string(f.Append(nil, r)); got != want[0] {
			t.Errorf("%s: %s, want %s", operator, got, want[0])
		}
		for _, omit := range []bool{false, true} {
			j, err := CompileAccessLog(AccessLogConfig{JSON: true, Fields: map[string]any{"x": "%" + operator + "%"}, OmitEmpty: omit})
			if err != nil {
				t.Fatal(err)
			}
			whole := `{"x":` + want[1] + "}\n"
			if omit && want[1] == "null" {
				whole = "{}\n"
			}
			if got := string(j.Append(nil, r)); got != whole {
				t.Errorf("%s: %s, want %s", operator, got, whole)
			}
		}
		if got := string(f.Append(nil, &Record{})); got != "-" {
			t.Errorf("%s of nothing: %s", operator, got)
		}
	}
	if Wanted()&WantConfigured == 0 {
		t.Error("nobody tells of metadata")
	}
}

// TestCloseTypes: what is not known of a host is not there, and of a client it is as in Envoy.
func TestCloseTypes(t *testing.T) {
	f, err := ParseFormat("%DOWNSTREAM_DETECTED_CLOSE_TYPE% %UPSTREAM_DETECTED_CLOSE_TYPE% %DOWNSTREAM_LOCAL_CLOSE_REASON% %UPSTREAM_WIRE_BYTES_SENT%")
	if err != nil {
		t.Fatal(err)
	}
	for want, r := range map[string]*Record{
		"Normal - - 0":               {},
		"LocalReset RemoteReset - 0": {DownstreamClose: CloseLocalReset, UpstreamClose: CloseRemoteReset},
		"RemoteReset Normal why 0":   {DownstreamClose: CloseRemoteReset, UpstreamClose: CloseNormal, LocalClose: "why"},
	} {
		if got := string(f.Append(nil, r)); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

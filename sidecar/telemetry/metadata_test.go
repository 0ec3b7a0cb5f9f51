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
	f, err = ParseFormat("%DYNAMIC_METADATA(envoy.filters.listener.proxy_protocol:a)% %DYNAMIC_METADATA(own:a)% %DYNAMIC_METADATA(own:b)%")
	if err != nil {
		t.Fatal(err)
	}
	if got := string(f.Append(nil, &Record{Metadata: said})); got != "1 2 -" {
		t.Errorf("%q", got)
	}
	for _, argument := range []string{"envoy.filters.http.rbac", "envoy.filters.http.rbac:", "envoy.filters.http.rbac:a:b", "envoy.common:access_log_hint", "envoy.filters.http.ext_authz:a", ":a"} {
		if _, err := ParseFormat("%DYNAMIC_METADATA(" + argument + ")%"); err == nil || !strings.Contains(err.Error(), "only envoy.filters.http.rbac:KEY") {
			t.Errorf("%s: %v", argument, err)
		}
	}
}

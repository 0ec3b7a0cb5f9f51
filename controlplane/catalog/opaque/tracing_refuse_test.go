package opaque

import "testing"

// What a sidecar would refuse takes its listener along, so it is refused here.
func TestTracingRefusesWhatASidecarCannotParse(t *testing.T) {
	collector := func(key, value string) map[string]any {
		c := map[string]any{"address": "otel.example:4318"}
		c[key] = value
		return map[string]any{"otlp": c}
	}
	good := []map[string]any{
		collector("address", "192.0.2.1:4318"), collector("address", "[2001:db8::1]:4318"),
		collector("address", "otel_1.example.:4318"), collector("path", "/v1/traces"),
	}
	for _, v := range good {
		if _, err := readTracing(v); err != nil {
			t.Errorf("%v: %v", v, err)
		}
	}
	bad := []map[string]any{
		collector("address", "${X}:4318"), collector("address", "[a:b]:4318"), collector("address", "[fe80::1%eth0]:4318"),
		collector("address", "a..b:4318"), collector("path", "/v1/%traces"), collector("path", "/v1/%74races"),
		collector("path", "v1"), collector("path", "/a?b"),
		{"tags": map[string]any{"": "x"}},
	}
	for _, v := range bad {
		if _, err := readTracing(v); err == nil {
			t.Errorf("%v was accepted", v)
		}
	}
}

func TestAnotherCollectorInheritsNothing(t *testing.T) {
	layer := func(c map[string]any) map[string]any {
		return map[string]any{"tracing": map[string]any{"otlp": c}}
	}
	p, _ := ReadProxy(Merge(layer(map[string]any{"address": "a:4317", "insecure": true}), layer(map[string]any{"address": "b:4317"})))
	if p.Tracing.OTLP.Insecure || p.Tracing.OTLP.Host != "b" {
		t.Errorf("%+v", p.Tracing.OTLP)
	}
}

package tracing

import (
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// TestDefaultOfATag: what stands in where an operator has no value.
func TestDefaultOfATag(t *testing.T) {
	tags, err := CompileTags([]Tag{
		{Name: "absent", Value: "%METADATA(ROUTE:a:k)%", Default: "none"}, {Name: "left out", Value: "%METADATA(ROUTE:a:k)%"},
		{Name: "there", Value: "%RESPONSE_CODE%", Default: "none"},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	tags.Each(&telemetry.Record{Code: 200}, nil, func(name string, value []byte) { got[name] = string(value) })
	if len(got) != 2 || got["absent"] != "none" || got["there"] != "200" {
		t.Errorf("%q", got)
	}
}

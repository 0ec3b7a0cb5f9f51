package tracing

import (
	"maps"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// everywhere are metadata of each part.
type everywhere map[string]map[string]any

func (e everywhere) ConfiguredMetadata(telemetry.Part) map[string]map[string]any { return e }

// TestDefaultOfATag: what stands in where an operator has no value.
func TestDefaultOfATag(t *testing.T) {
	tags, err := CompileTags([]Tag{
		{Name: "absent", Value: "%METADATA(ROUTE:a:k)%", Default: "none"}, {Name: "left out", Value: "%METADATA(ROUTE:a:k)%"},
		{Name: "there", Value: "%RESPONSE_CODE%", Default: "none"},
		{Name: "text", Value: "%METADATA(ROUTE:r:text)%", Default: "none", Metadata: true}, {Name: "empty", Value: "%METADATA(ROUTE:r:empty)%", Metadata: true},
		{Name: "not default", Value: "%METADATA(ROUTE:r:empty)%", Default: "none", Metadata: true}, {Name: "default", Value: "%METADATA(ROUTE:r:no)%", Default: "none", Metadata: true},
		{Name: "nothing", Value: "%METADATA(ROUTE:r:no)%", Metadata: true}, {Name: "no header", Header: "x-empty"},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	r := &telemetry.Record{Code: 200, RequestHeaders: request("x-empty", ""), Configured: everywhere{"r": {"text": "a\nb", "empty": ""}}}
	tags.Each(r, nil, func(name string, value []byte) { got[name] = string(value) })
	want := map[string]string{"absent": "none", "there": "200", "text": `a\x0ab`, "empty": "", "not default": "", "default": "none"}
	if !maps.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

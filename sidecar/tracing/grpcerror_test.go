package tracing

import (
	"encoding/json"
	"testing"
)

// TestFailedCallsAreErrors: Zipkin has no status: a gRPC call that answers 200 and failed at the
// host is known by its tag, and one that the client got wrong is none, as in Envoy.
func TestFailedCallsAreErrors(t *testing.T) {
	for status, want := range map[string]any{"0": nil, "1": nil, "5": nil, "7": nil, "16": nil, "2": "true", "8": "true", "13": "true", "14": "true", "x": nil} {
		c := everything()
		c.Provider.Zipkin = &Zipkin{}
		tr, p := full(t, c)
		p.record.Code, p.record.ResponseTrailers = 200, &request("grpc-status", status).Fields
		var out struct{ Tags map[string]any }
		if err := json.Unmarshal(appendZipkin(nil, p, tr), &out); err != nil {
			t.Fatal(err)
		}
		if got := out.Tags["error"]; got != want {
			t.Errorf("status %s: error %v, want %v", status, got, want)
		}
	}
}

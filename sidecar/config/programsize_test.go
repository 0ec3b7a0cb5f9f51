package config

//lint:file-ignore SA1019 the field is deprecated, and acts

import (
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// TestProgramSize: nothing that Envoy takes is refused, and nothing taken that is clearly larger. The sizes are RE2's,
// as Envoy 1.40 tells them.
func TestProgramSize(t *testing.T) {
	for regex, size := range map[string]uint32{
		"a": 5, "abc": 7, ".*": 6, "/api/v[0-9]+/.*": 15, "(foo|bar|baz)+": 14, "[a-z]{10}": 14, "(?i)hello": 9,
		`^/users/([^/]+)/posts/(\d+)$`: 20, `\w+@\w+\.com`: 17, "(a|b|c|d|e)": 7, "x{0,50}": 104, "é+": 7, "[^/]+": 7, `\pL+`: 12,
	} {
		at := func(most uint32) error {
			engine := &matcherv3.RegexMatcher_GoogleRe2{GoogleRe2: &matcherv3.RegexMatcher_GoogleRE2{MaxProgramSize: wrapperspb.UInt32(most)}}
			return programSize(&matcherv3.RegexMatcher{Regex: regex, EngineType: engine}, "safe_regex")
		}
		if err := at(size); err != nil {
			t.Errorf("%s: %v", regex, err)
		}
		if at(size/4) == nil {
			t.Errorf("%s is taken with %d, where it has %d", regex, size/4, size)
		}
	}
}

// TestLargeProgramIsRefused: wherever there is an expression.
func TestLargeProgramIsRefused(t *testing.T) {
	const large = `{"regex": "abcdefgh", "google_re2": {"max_program_size": 5}}`
	for match, want := range map[string]string{
		`"safe_regex": ` + large: "virtual_hosts[0].routes[0].match.safe_regex.google_re2.max_program_size: ",
		`"prefix": "/", "headers": [{"name": "a", "string_match": {"safe_regex": ` + large + `}}]`: "match.headers[0].string_match.safe_regex.google_re2.max_program_size: ",
	} {
		m := &routev3.RouteConfiguration{}
		if err := protojson.Unmarshal([]byte(`{"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [{"direct_response": {"status": 200}, "match": {`+match+`}}]}]}`), m); err != nil {
			t.Fatal(err)
		}
		body, _ := proto.Marshal(m)
		if _, err := Route(body); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

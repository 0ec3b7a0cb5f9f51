package authz

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// tells is a Metadata of what it has.
type tells struct {
	said   map[string]any
	route  map[string]any
	routed bool
	// ignores: the route's path was compared without parameters.
	ignores bool
}

func (t tells) Said(namespace, key string) (any, bool) {
	v, ok := t.said[namespace+"/"+key]
	return v, ok
}

func (t tells) OfRoute(namespace string) (map[string]any, bool) {
	if namespace != "app" {
		return nil, t.routed
	}
	return t.route, t.routed
}

func (t tells) IgnoresParameters() bool { return t.ignores }

func of[T any](v T) *T { return &v }

func decideOn(t *testing.T, r MetadataRule, m Metadata) bool {
	t.Helper()
	e := compile(t, Exchange, HTTPFilter{Rules: &Rules{Policies: []Policy{{
		Name: "p", Permissions: []Permission{{Metadata: &r}}, Principals: []Principal{{Any: true}},
	}}}})
	var d Decision
	return e.Next(0, &Peer{Info: &stream.Info{}}, &message.Request{Method: "GET", Path: "/"}, m, &d)
}

func TestValuesOfMetadata(t *testing.T) {
	has := map[string]any{
		"text": "abc", "flag": true, "number": 2.0, "null": nil,
		"list": []any{"a", 3.0, nil}, "deep": map[string]any{"er": map[string]any{"x": "y"}},
	}
	abc, y, a := &route.StringMatch{Exact: of("abc")}, &route.StringMatch{Exact: of("y")}, &route.StringMatch{Exact: of("a")}
	for _, c := range []struct {
		path  string
		value ValueMatch
		want  bool
	}{
		{"text", ValueMatch{Text: abc}, true},
		{"text", ValueMatch{Text: y}, false},
		{"text", ValueMatch{Bool: of(true)}, false},
		{"flag", ValueMatch{Bool: of(true)}, true},
		{"flag", ValueMatch{Bool: of(false)}, false},
		{"flag", ValueMatch{Text: &route.StringMatch{Exact: of("true")}}, false},
		{"number", ValueMatch{Number: &NumberMatch{Exact: of(2.0)}}, true},
		{"number", ValueMatch{Number: &NumberMatch{Exact: of(2.5)}}, false},
		{"number", ValueMatch{Number: &NumberMatch{Low: 2, High: 3}}, true},
		{"number", ValueMatch{Number: &NumberMatch{Low: 1, High: 2}}, false},
		{"null", ValueMatch{Null: true}, true},
		{"null", ValueMatch{Present: of(true)}, true},
		{"text", ValueMatch{Null: true}, false},
		{"absent", ValueMatch{Null: true}, false},
		{"absent", ValueMatch{Present: of(true)}, false},
		{"absent", ValueMatch{Present: of(false)}, false},
		{"text", ValueMatch{Present: of(false)}, false},
		{"deep", ValueMatch{Present: of(true)}, true},
		{"deep/er/x", ValueMatch{Text: y}, true},
		{"deep/er/z", ValueMatch{Present: of(true)}, false},
		{"text/x", ValueMatch{Present: of(true)}, false},
		{"list", ValueMatch{OneOf: &ValueMatch{Text: a}}, true},
		{"list", ValueMatch{OneOf: &ValueMatch{Null: true}}, true},
		{"list", ValueMatch{OneOf: &ValueMatch{Text: y}}, false},
		{"text", ValueMatch{OneOf: &ValueMatch{Text: abc}}, false},
		{"text", ValueMatch{Or: []ValueMatch{{Null: true}, {Text: abc}}}, true},
		{"absent", ValueMatch{Or: []ValueMatch{{Null: true}, {Text: abc}}}, false},
	} {
		for _, invert := range []bool{false, true} {
			r := MetadataRule{OfRoute: true, Namespace: "app", Path: strings.Split(c.path, "/"), Value: c.value, Invert: invert}
			if got := decideOn(t, r, tells{route: has, routed: true}); got != (c.want != invert) {
				t.Errorf("%s %+v, inverted %v: %v", c.path, c.value, invert, got)
			}
		}
	}
}

// Without a route a rule on its metadata does not hold, whichever way it is asked; nor does what a
// request says count for a route's, or the other way round.
func TestWhoseMetadata(t *testing.T) {
	value := ValueMatch{Present: of(true)}
	both := tells{said: map[string]any{"app/said": "x"}, route: map[string]any{"route": "x"}, routed: true}
	for _, c := range []struct {
		what   string
		rule   MetadataRule
		in     Metadata
		passes bool
	}{
		{"no route", MetadataRule{OfRoute: true, Namespace: "app", Path: []string{"x"}, Value: value}, tells{}, false},
		{"no route, inverted", MetadataRule{OfRoute: true, Namespace: "app", Path: []string{"x"}, Value: value, Invert: true}, tells{}, false},
		{"nobody who tells, inverted", MetadataRule{OfRoute: true, Namespace: "app", Path: []string{"x"}, Value: value, Invert: true}, nil, false},
		{"a route's", MetadataRule{OfRoute: true, Namespace: "app", Path: []string{"route"}, Value: value}, both, true},
		{"a route's, of what was said", MetadataRule{OfRoute: true, Namespace: "app", Path: []string{"said"}, Value: value}, both, false},
		{"another namespace", MetadataRule{OfRoute: true, Namespace: "other", Path: []string{"route"}, Value: value}, both, false},
		{"said", MetadataRule{Namespace: "app", Path: []string{"said"}, Value: value}, both, true},
		{"said, of a route", MetadataRule{Namespace: "app", Path: []string{"route"}, Value: value}, both, false},
		{"members of what was said", MetadataRule{Namespace: "app", Path: []string{"said", "x"}, Value: value}, both, false},
	} {
		if got := decideOn(t, c.rule, c.in); got != c.passes {
			t.Errorf("%s: %v", c.what, got)
		}
	}
}

// Whether a peer is denied whatever it asks for cannot be told by rules on metadata.
func TestMetadataLeaveItOpenWhoIsDenied(t *testing.T) {
	for _, action := range []Action{Allow, Deny} {
		for _, invert := range []bool{false, true} {
			e := compile(t, Exchange, HTTPFilter{Rules: &Rules{Action: action, Policies: []Policy{{
				Name: "p", Principals: []Principal{{Any: true}},
				Permissions: []Permission{{Metadata: &MetadataRule{OfRoute: true, Namespace: "app", Path: []string{"x"}, Value: ValueMatch{Present: of(true)}, Invert: invert}}},
			}}}})
			if rule, denied := e.DeniesAll(0, &Peer{Info: &stream.Info{}}, false); denied {
				t.Errorf("action %d, inverted %v: denied by %s", action, invert, rule)
			}
		}
	}
}

func TestBadMetadataRules(t *testing.T) {
	ok := ValueMatch{Present: of(true)}
	for _, c := range []struct {
		level Level
		rule  MetadataRule
		want  string
	}{
		{Exchange, MetadataRule{Path: []string{"x"}, Value: ok}, "a namespace and a path"},
		{Exchange, MetadataRule{Namespace: "a", Value: ok}, "a namespace and a path"},
		{Exchange, MetadataRule{Namespace: "a", Path: []string{"x"}}, "exactly one field"},
		{Exchange, MetadataRule{Namespace: "a", Path: []string{"x"}, Value: ValueMatch{Or: []ValueMatch{{}}}}, "exactly one field"},
		{Connection, MetadataRule{OfRoute: true, Namespace: "a", Path: []string{"x"}, Value: ok}, "has no route"},
	} {
		_, err := Compile([]NetworkFilter{{Rules: &Rules{Policies: []Policy{{
			Name: "p", Permissions: []Permission{{Any: true}}, Principals: []Principal{{Metadata: &c.rule}},
		}}}}}, c.level, nil)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.rule, err)
		}
	}
}

// TestBoundsForPeople: a range that has no end can be shown, though JSON has no infinity.
func TestBoundsForPeople(t *testing.T) {
	b, err := json.Marshal(&ValueMatch{Number: &NumberMatch{Low: 1.5, High: math.Inf(1)}})
	if err != nil || !strings.Contains(string(b), `{"Exact":null,"Low":1.5,"High":"+Inf"}`) {
		t.Errorf("%s, %v", b, err)
	}
}

package cors

import (
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/filter/filtertest"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

func ptr[T any](v T) *T { return &v }

func exactly(s string) []route.StringMatch { return []route.StringMatch{{Exact: &s}} }

func fields(f *message.Fields) map[string]string {
	out := map[string]string{}
	for i := range f.Slots() {
		if name, value, ok := f.At(i); ok {
			out[name] = value
		}
	}
	return out
}

func same(t *testing.T, name string, got, want map[string]string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %v, want %v", name, got, want)
		return
	}
	for k, v := range want {
		if got[k] != v {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

func TestPreflight(t *testing.T) {
	asks := []string{"Origin", "https://a", "Access-Control-Request-Method", "PUT", "Access-Control-Request-Headers", "x-a", "Access-Control-Request-Private-Network", "true"}
	for _, c := range []struct {
		name     string
		policies []any
		method   string
		headers  []string
		want     map[string]string // nil: not answered
	}{
		{"no policy", nil, "OPTIONS", asks, nil},
		{"all", []any{&Policy{Origins: exactly("https://a"), Methods: "GET,PUT", Headers: "x-a", MaxAge: "60", Credentials: ptr(true), PrivateNetwork: ptr(true)}}, "OPTIONS", asks, map[string]string{
			"access-control-allow-origin": "https://a", "access-control-allow-credentials": "true", "access-control-allow-methods": "GET,PUT",
			"access-control-allow-headers": "x-a", "access-control-max-age": "60", "access-control-allow-private-network": "true",
		}},
		{"asterisks", []any{&Policy{Origins: exactly("*"), Methods: "*", Headers: "*"}}, "OPTIONS", asks, map[string]string{
			"access-control-allow-origin": "https://a", "access-control-allow-methods": "PUT", "access-control-allow-headers": "x-a",
		}},
		{"less specific fills in", []any{&Policy{Origins: exactly("https://a")}, &Policy{Origins: exactly("https://b"), MaxAge: "1"}}, "OPTIONS", asks, map[string]string{
			"access-control-allow-origin": "https://a", "access-control-max-age": "1",
		}},
		{"deprecated alone", []any{&Policy{Origins: exactly("https://a"), Deprecated: true}, &Policy{Methods: "PUT", Deprecated: true}}, "OPTIONS", asks, map[string]string{
			"access-control-allow-origin": "https://a", "access-control-allow-methods": "PUT",
		}},
		{"deprecated beside", []any{&Policy{Origins: exactly("https://b"), MaxAge: "2", Deprecated: true}, &Policy{Origins: exactly("https://a"), MaxAge: "1"}}, "OPTIONS", asks, map[string]string{
			"access-control-allow-origin": "https://a", "access-control-max-age": "1",
		}},
		{"deprecated is of no account", []any{&Policy{Origins: exactly("https://a"), Deprecated: true}, &Policy{Origins: exactly("https://b")}}, "OPTIONS", asks, nil},
		{"no headers asked for", []any{&Policy{Origins: exactly("*"), Headers: "*"}}, "OPTIONS", asks[:4], map[string]string{
			"access-control-allow-origin": "https://a", "access-control-allow-headers": "",
		}},
		{"other origin is forwarded", []any{&Policy{Origins: exactly("https://b")}}, "OPTIONS", asks, nil},
		{"other origin is answered", []any{&Policy{Origins: exactly("https://b"), MaxAge: "1", ForwardUnmatched: ptr(false)}}, "OPTIONS", asks, map[string]string{"access-control-max-age": "1"}},
		{"not OPTIONS", []any{&Policy{Origins: exactly("*")}}, "GET", asks, nil},
		{"no method asked", []any{&Policy{Origins: exactly("*")}}, "OPTIONS", asks[:2], nil},
		{"no origin", []any{&Policy{Origins: exactly("*")}}, "OPTIONS", asks[2:], nil},
		{"switched off", []any{&Policy{Origins: exactly("*"), Enabled: ptr(route.Share(0))}}, "OPTIONS", asks, nil},
		{"shadow", []any{&Policy{Origins: exactly("*"), Shadow: ptr(route.All)}}, "OPTIONS", asks, nil},
		{"enabled and shadow", []any{&Policy{Origins: exactly("*"), Shadow: ptr(route.All), Enabled: ptr(route.All)}}, "OPTIONS", asks, map[string]string{"access-control-allow-origin": "https://a"}},
	} {
		f := New(nil)
		x := filtertest.New(c.method, "/", c.headers...)
		if err := x.With(f, c.policies...); err != nil {
			t.Fatal(err)
		}
		r := f.Request(&x.Context).Reply()
		if (r != nil) != (c.want != nil) {
			t.Errorf("%s: answered %v", c.name, r)
			continue
		}
		if r != nil {
			// The answer outlives the request's memory.
			x.Request.Reset()
			x.Request.Fields.Load([]byte("-------------------------------------------------------------------"))
			x.Response = &message.Response{}
			r.Headers(&x.Context)
			same(t, c.name, fields(&x.Response.Fields), c.want)
		}
	}
}

func TestResponse(t *testing.T) {
	policy := &Policy{Origins: exactly("https://a"), Expose: "x-b", Credentials: ptr(true), Methods: "GET"}
	for _, c := range []struct {
		name    string
		headers []string
		want    map[string]string
	}{
		{"allowed", []string{"Origin", "https://a"}, map[string]string{
			"access-control-allow-origin": "https://a", "access-control-allow-credentials": "true", "access-control-expose-headers": "x-b",
		}},
		{"other origin", []string{"Origin", "https://evil"}, map[string]string{}},
		{"no origin", nil, map[string]string{}},
	} {
		f := New(nil)
		x := filtertest.New("GET", "/", c.headers...)
		_ = x.With(f, policy)
		if !f.Request(&x.Context).Continues() {
			t.Errorf("%s: not forwarded", c.name)
		}
		same(t, c.name, fields(&x.Answered(f, 200).Fields), c.want)
	}
}

func TestNotForRedirects(t *testing.T) {
	f := New(nil)
	x := filtertest.New("OPTIONS", "/", "Origin", "https://a", "Access-Control-Request-Method", "PUT")
	_ = x.With(f, &Policy{Origins: exactly("*")})
	x.Selected.Route = &route.Route{Redirect: &route.Redirect{}}
	if !f.Request(&x.Context).Continues() {
		t.Error("a redirect was answered for")
	}
	if _, err := f.Override("x"); err == nil {
		t.Error("a text was taken for a policy")
	}
}

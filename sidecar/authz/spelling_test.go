package authz

import (
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// TestSpellings: a rule on a path holds for it however the digits of its escapes are written,
// where normalising wrote all of them in capitals.
func TestSpellings(t *testing.T) {
	small := "/a%2fb%c3"
	template, err := route.NewTemplate("/a%2fb%c3/*")
	if err != nil {
		t.Fatal(err)
	}
	re, err := route.Regex("/a%2[e-f]b.*")
	if err != nil {
		t.Fatal(err)
	}
	header := func(invert bool) Permission {
		return Permission{Header: &route.HeaderMatch{Name: ":path", Value: &route.StringMatch{Prefix: &small}, Invert: invert}}
	}
	for name, p := range map[string]Permission{
		"text": {URLPath: &route.StringMatch{Prefix: &small}}, "expression": {URLPath: &route.StringMatch{Regex: re}}, "template": {Template: template},
		"field": header(false), "inverted": {Not: ptr(header(true))}, "not": {Not: &Permission{Not: &Permission{URLPath: &route.StringMatch{Prefix: &small}}}},
	} {
		f := NetworkFilter{Rules: rules(Deny, Policy{Name: "p", Permissions: []Permission{p}, Principals: []Principal{{Any: true}}})}
		for path, want := range map[string]bool{"/a%2fb%c3/x": false, "/a%2Fb%C3/x": false, "/a%2Fb%C3/%": false, "/x?/a%2Fb%C3/x": true, "/A%2Fb%C3/x": true} {
			if got := compile(t, Exchange, f).OfNormalized(true).CheckRequest(peerOf(web), request{":path": path}).Allowed; got != want {
				t.Errorf("%s: %s: allowed %v, want %v", name, path, got, want)
			}
		}
		if !compile(t, Exchange, f).CheckRequest(peerOf(web), request{":path": "/a%2Fb%C3/x"}).Allowed {
			t.Errorf("%s: denied by another spelling where paths are as they came", name)
		}
	}
	line := inOrder(ptr(then("rest", Allow)), Case{line(":path", "/a%2fb?%2F"), then("p", Deny)})
	if compile(t, Exchange, line).OfNormalized(true).CheckRequest(peerOf(web), request{":path": "/a%2Fb?%2F"}).Allowed {
		t.Error("a matcher lets pass what it denies")
	}
}

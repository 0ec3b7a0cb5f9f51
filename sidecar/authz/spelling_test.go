package authz

import (
	"fmt"
	"strings"
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

// TestMixedSpellings: what a rule says of a path is the same however each digit is written, and of
// a query only as it is written.
func TestMixedSpellings(t *testing.T) {
	text := func(m route.StringMatch) Permission { return Permission{URLPath: &m} }
	line := func(m route.StringMatch) Permission {
		return Permission{Header: &route.HeaderMatch{Name: ":path", Value: &m}}
	}
	template := func(s string) Permission {
		tmpl, err := route.NewTemplate(s)
		if err != nil {
			t.Fatal(err)
		}
		return Permission{Template: tmpl}
	}
	for _, c := range []struct {
		name string
		p    Permission
		path string
		held bool
	}{
		{"exact", text(route.StringMatch{Exact: ptr("/a%2fb%C3")}), "/a%2Fb%C3", true},
		{"exact of a pair", text(route.StringMatch{Exact: ptr("/a%cF")}), "/a%CF", true},
		{"exact, no escape", text(route.StringMatch{Exact: ptr("/a%fz")}), "/a%Fz", false},
		{"exact, a letter behind it", text(route.StringMatch{Exact: ptr("/%2fb")}), "/%2FB", false},
		{"prefix", text(route.StringMatch{Prefix: ptr("/a%2fb%C3")}), "/a%2Fb%C3x", true},
		{"prefix that cuts an escape", text(route.StringMatch{Prefix: ptr("/a%2Fb%c")}), "/a%2Fb%C3", true},
		{"prefix that cuts none", text(route.StringMatch{Prefix: ptr("/a%c")}), "/a%Cz", false},
		{"suffix", text(route.StringMatch{Suffix: ptr("a%2fb%C3")}), "/a%2Fb%C3", true},
		{"suffix that cuts an escape", text(route.StringMatch{Suffix: ptr("fb%C3")}), "/a%2Fb%C3", true},
		{"suffix of a letter", text(route.StringMatch{Suffix: ptr("fb")}), "/a%2F/Fb", false},
		{"contains", text(route.StringMatch{Contains: ptr("%2fb%C3")}), "/a%2Fb%C3/", true},
		{"contains cut escapes", text(route.StringMatch{Contains: ptr("2fb%c")}), "/a%2Fb%C3/", true},
		{"contains a pair", text(route.StringMatch{Contains: ptr("fc")}), "/aFC/%FC/", true},
		{"contains letters", text(route.StringMatch{Contains: ptr("fc")}), "/aFC/%2FC/", false},
		{"without case", text(route.StringMatch{Contains: ptr("%2fB%c3"), IgnoreCase: true}), "/a%2Fb%C3", true},
		{"template", template("/a%2fb%C3/*"), "/a%2Fb%C3/x", true},
		{"template with a cut escape", template("/{x}fb%C3"), "/a%2Fb%C3", true},
		{"template with an escape cut at its end", template("/a%2fb%c{x}"), "/a%2Fb%C3", true},
		{"line", line(route.StringMatch{Prefix: ptr("/a%2fb?%2f")}), "/a%2Fb?%2f", true},
		{"line and its query", line(route.StringMatch{Prefix: ptr("/a%2fb?%2f")}), "/a%2Fb?%2F", false},
		{"end of a line", line(route.StringMatch{Suffix: ptr("%2fb?x=%2f")}), "/a%2Fb?x=%2f", true},
		{"end of a query", line(route.StringMatch{Suffix: ptr("%2f?%2f")}), "/a?%2F?%2f", false},
		{"in a query", line(route.StringMatch{Contains: ptr("%2f")}), "/a?%2F", false},
		{"in a query as it is", line(route.StringMatch{Contains: ptr("%2f")}), "/a?%2f", true},
		{"in a path before it", line(route.StringMatch{Contains: ptr("%2f")}), "/%2F?%2F", true},
	} {
		f := NetworkFilter{Rules: rules(Allow, Policy{Name: "p", Permissions: []Permission{c.p}, Principals: anyone})}
		if got := compile(t, Exchange, f).OfNormalized(true).CheckRequest(peerOf(web), request{":path": c.path}).Allowed; got != c.held {
			t.Errorf("%s: %s: held %v, want %v", c.name, c.path, got, c.held)
		}
	}
}

// many rules of each kind of text and template, none of which holds, and expressions if wanted.
func manySpelled(t testing.TB, expressions bool) *Evaluator {
	var all []Permission
	for i := range 25 {
		s := fmt.Sprintf("/%d%%2fb%%C3", i)
		tmpl, err := route.NewTemplate(s + "/*")
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, Permission{URLPath: &route.StringMatch{Prefix: &s}}, Permission{URLPath: &route.StringMatch{Contains: &s}},
			Permission{Header: &route.HeaderMatch{Name: ":path", Value: &route.StringMatch{Suffix: &s}}}, Permission{Template: tmpl})
		if expressions {
			re, err := route.Regex(s)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, Permission{URLPath: &route.StringMatch{Regex: re}})
		}
	}
	e, err := Compile([]NetworkFilter{{Rules: rules(Deny, Policy{"p", all, anyone})}}, Exchange, nil)
	if err != nil {
		t.Fatal(err)
	}
	return e.OfNormalized(true)
}

func BenchmarkSpellings(b *testing.B) {
	for name, path := range map[string]string{"plain": "/plain/path", "escapes": "/" + strings.Repeat("%2F", 20000)} {
		for _, expressions := range []bool{false, true} {
			b.Run(fmt.Sprint(name, " with expressions ", expressions), func(b *testing.B) {
				e, p := manySpelled(b, expressions), peerOf(web)
				var r Request = request{":path": path}
				b.ReportAllocs()
				for b.Loop() {
					e.CheckRequest(p, r)
				}
			})
		}
	}
}

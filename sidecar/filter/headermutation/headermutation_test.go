package headermutation

import (
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/filter/filtertest"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

func set(v string) []route.HeaderMutation {
	return []route.HeaderMutation{{Add: &route.HeaderAdd{Name: "x-a", Value: v}}}
}

func TestOrder(t *testing.T) {
	for _, c := range []struct {
		mostSpecific bool
		want         string
	}{{false, "own,route,host"}, {true, "own,host,route"}} {
		f, err := New(&Config{Request: set("own"), Response: set("own"), MostSpecificWins: c.mostSpecific})
		if err != nil {
			t.Fatal(err)
		}
		x := filtertest.New("GET", "/")
		if err := x.With(f, &Config{Request: set("route"), Response: set("route")}, &Config{Request: set("host"), Response: set("host")}); err != nil {
			t.Fatal(err)
		}
		f.Request(&x.Context)
		if v, _ := x.Request.Header("x-a"); v != c.want {
			t.Errorf("request: %q, want %q", v, c.want)
		}
		if v, _ := x.Answered(f, 200).Header("x-a"); v != c.want {
			t.Errorf("response: %q, want %q", v, c.want)
		}
	}
}

func TestQuery(t *testing.T) {
	for _, c := range []struct {
		name     string
		q        []QueryMutation
		in, want string
	}{
		{"add", []QueryMutation{{Key: "b", Value: "2"}}, "/?a=1", "/?a=1&b=2"},
		{"add to none", []QueryMutation{{Key: "b", Value: "%REQ(x-v)%"}}, "/", "/?b=v%20%26"},
		{"values of the request", []QueryMutation{{Key: "b", Value: "%REQ(:method)%"}, {Key: "a", Value: "%REQ(:path)%"}, {Key: "c", Value: "%REQ(x-v)%"}}, "/", "/?a=%2F&b=GET&c=v%20%26"},
		{"append", []QueryMutation{{Key: "a", Value: "2"}}, "/?a=1", "/?a=1&a=2"},
		{"if absent", []QueryMutation{{Key: "a", Value: "2", Action: route.AddIfAbsent}, {Key: "b", Value: "2", Action: route.AddIfAbsent}}, "/?a=1", "/?a=1&b=2"},
		{"overwrite", []QueryMutation{{Key: "a", Value: "3", Action: route.OverwriteIfExists}}, "/?a=1&b=2&%61=4", "/?a=3&b=2"},
		{"overwrite none", []QueryMutation{{Key: "a", Value: "3", Action: route.OverwriteIfExists}}, "/?b", "/?b="},
		{"overwrite or add", []QueryMutation{{Key: "a", Value: "3", Action: route.OverwriteIfExistsOrAdd}}, "/?b=1", "/?a=3&b=1"},
		{"remove", []QueryMutation{{Remove: "a"}}, "/x?a=1&b=%20&a", "/x?b=%20"},
		{"remove what is written otherwise", []QueryMutation{{Remove: "a b"}}, "/x?a%20b=1&a+b=2&%61%20b", "/x?a+b=2"},
		{"order", []QueryMutation{{Key: "m n", Value: "+"}}, "/x?z=1&%6d=%26&z=0&B", "/x?B=&%6d=%26&m%20n=%2B&z=1&z=0"},
		{"remove all", []QueryMutation{{Remove: "a"}}, "/x?a=1", "/x"},
	} {
		f, err := New(&Config{Query: c.q})
		if err != nil {
			t.Fatal(err)
		}
		x := filtertest.New("GET", c.in, "x-v", "v &")
		f.Request(&x.Context)
		if x.Request.Path != c.want {
			t.Errorf("%s: %q, want %q", c.name, x.Request.Path, c.want)
		}
	}
}

func TestRefuses(t *testing.T) {
	bad := &Config{Query: []QueryMutation{{Key: "a", Value: "%NOSUCH%"}}}
	if _, err := New(bad); err == nil {
		t.Error("an unknown operator was taken")
	}
	f, _ := New(&Config{})
	for _, o := range []any{bad, 1, &Config{Request: set("%NOSUCH%")}, &Config{Response: set("%NOSUCH%")}} {
		if _, err := f.Override(o); err == nil {
			t.Errorf("%v was taken", o)
		}
	}
}

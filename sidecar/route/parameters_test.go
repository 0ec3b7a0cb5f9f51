package route

import "testing"

func TestWithoutParameters(t *testing.T) {
	for in, want := range map[string]string{
		"/a/b":         "/a/b",
		"/a;x":         "/a",
		"/a;x/b;y/c":   "/a/b/c",
		"/a;x=1;y=2/b": "/a/b",
		"/;/;":         "//",
		";":            "",
	} {
		if got := WithoutParameters(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// Each value of a repeated field is compared by itself.
func TestHeaderMatchRepeated(t *testing.T) {
	exact := func(v string) HeaderMatch { return HeaderMatch{Name: "x-a", Value: &StringMatch{Exact: &v}} }
	not := func(m HeaderMatch) HeaderMatch { m.Invert = true; return m }
	number := HeaderMatch{Name: "x-a", Range: &[2]int64{1, 5}}
	for _, c := range []struct {
		name   string
		m      HeaderMatch
		values []string
		want   bool
	}{
		{"the first", exact("a"), []string{"a", "b"}, true},
		{"the last", exact("b"), []string{"a", "b"}, true},
		{"not joined", exact("a,b"), []string{"a", "b"}, false},
		{"inverted, one is", not(exact("b")), []string{"a", "b"}, false},
		{"inverted, none is", not(exact("c")), []string{"a", "b"}, true},
		{"range", number, []string{"9", "3"}, true},
		{"no range", number, []string{"9", "x"}, false},
	} {
		var fields []string
		for _, v := range c.values {
			fields = append(fields, "x-a", v)
		}
		if got := c.m.Match(request("GET", "h", "/", fields...)); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

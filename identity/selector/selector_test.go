package selector

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for s, want := range map[string]Selector{
		"uid=0":                 {Kind: UID},
		"uid=1001":              {Kind: UID, Number: 1001},
		"gid=4294967294":        {Kind: GID, Number: 4294967294},
		"unit=web.service":      {Kind: Unit, Name: "web.service"},
		`unit=a\x2db@1.service`: {Kind: Unit, Name: `a\x2db@1.service`},
		"unit=session-3.scope":  {Kind: Unit, Name: "session-3.scope"},
	} {
		got, err := Parse(s)
		if err != nil || got != want || got.String() != s {
			t.Errorf("%q: %+v %q %v", s, got, got, err)
		}
	}
	for s, want := range map[string]string{
		"":                         `kind ""`,
		"uid":                      "number",
		"uid=":                     "number",
		"uid=web":                  "number",
		"uid=01":                   "number",
		"uid=+1":                   "number",
		"uid=-1":                   "number",
		"uid=4294967295":           "number",
		"uid=4294967296":           "number",
		"uid=65534":                "tells nobody apart",
		"gid=65534":                "tells nobody apart",
		"unit=":                    "systemd",
		"unit=.service":            "systemd",
		"unit=web":                 "systemd",
		"unit=web.slice":           "systemd",
		"unit=a/web.service":       "systemd",
		"unit=web service.service": "systemd",
		"unit=web\n.service":       "systemd",
		"exe=/bin/web":             `kind "exe" is not known`,
		"UID=1":                    `kind "UID" is not known`,
		" uid=1":                   `kind " uid" is not known`,
		"unit=" + strings.Repeat("a", 250) + ".service": "systemd",
	} {
		if got, err := Parse(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v %v, want %q", s, got, err, want)
		}
	}
}

func TestSet(t *testing.T) {
	for _, c := range []struct {
		set  []string
		f    Facts
		want bool
	}{
		{nil, Facts{}, false},
		{nil, Facts{UID: 1, Unit: "web.service"}, false},
		{[]string{"uid=0"}, Facts{}, true},
		{[]string{"uid=1"}, Facts{UID: 1}, true},
		{[]string{"uid=1"}, Facts{GID: 1}, false},
		{[]string{"uid=1", "gid=2"}, Facts{UID: 1, GID: 2}, true},
		{[]string{"uid=1", "gid=2"}, Facts{UID: 1, GID: 3}, false},
		{[]string{"uid=1", "unit=web.service"}, Facts{UID: 1}, false},
		{[]string{"uid=1", "unit=web.service"}, Facts{UID: 1, Unit: "web.service"}, true},
		{[]string{"unit=web.service"}, Facts{Unit: "web.service.d"}, false},
	} {
		set, err := ParseSet(c.set)
		if err != nil {
			t.Fatal(err)
		}
		if got := set.Matches(c.f); got != c.want {
			t.Errorf("%v %+v: %v", c.set, c.f, got)
		}
	}
	if (Set{{}}).Matches(Facts{}) {
		t.Error("a selector without a kind matched")
	}
	if _, err := ParseSet([]string{"uid=1", "uid=2"}); err == nil || !strings.Contains(err.Error(), "an entry for each") {
		t.Errorf("two users that must both hold: %v", err)
	}
	if set, err := ParseSet([]string{"uid=1", "uid=1"}); err != nil || len(set) != 1 {
		t.Errorf("a repeated selector: %v %v", set, err)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"uid=1", "gid=65534", "unit=web.service", "unit=_x.scope", "=", "uid=00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := Parse(s)
		if err != nil {
			return
		}
		if got.String() != s {
			t.Errorf("%q became %q: there must be one way to write it", s, got)
		}
		if got.Kind == Unit && (got.Name == "" || strings.ContainsAny(got.Name, "/\n\x00 ")) {
			t.Errorf("%q is no unit", got.Name)
		}
		if got.Matches(Facts{UID: ^got.Number, GID: ^got.Number}) {
			t.Errorf("%q matches what it is not", s)
		}
	})
}

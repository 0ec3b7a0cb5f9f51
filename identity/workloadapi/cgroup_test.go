package workloadapi

import (
	"os"
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/identity/selector"
)

func TestUnitOf(t *testing.T) {
	for name, c := range map[string]struct{ file, want string }{
		"version 2":                      {"0::/system.slice/web.service\n", "web.service"},
		"version 2, below the unit":      {"0::/system.slice/web.service/worker/1\n", "web.service"},
		"version 2, an instance":         {"0::/system.slice/system-web.slice/web@1.service\n", "web@1.service"},
		"version 2, a scope":             {"0::/user.slice/user-1000.slice/session-3.scope\n", "session-3.scope"},
		"version 2, the root":            {"0::/\n", ""},
		"version 2, init":                {"0::/init.scope\n", "init.scope"},
		"version 1":                      {"12:pids:/a\n9:name=systemd:/system.slice/web.service\n1:cpu:/system.slice/db.service\n", "web.service"},
		"version 1, other controllers":   {"12:pids:/system.slice/web.service\n9:name=systemd:/\n0::/\n", ""},
		"version 1, another name":        {"3:name=other:/system.slice/web.service\n", ""},
		"both":                           {"1:name=systemd:/system.slice/web.service\n0::/system.slice/web.service\n", "web.service"},
		"both, the first in one of them": {"1:name=systemd:/system.slice/web.service\n0::/\n", "web.service"},
		"both, which differ":             {"1:name=systemd:/system.slice/web.service\n0::/system.slice/db.service\n", ""},
		// What a user's own manager calls web.service is that user's session.
		"a user's own unit":            {"0::/user.slice/user-1000.slice/user@1000.service/app.slice/web.service\n", "user@1000.service"},
		"made by a delegated unit":     {"0::/system.slice/ci.service/system.slice/web.service\n", "ci.service"},
		"below something foreign":      {"0::/docker/0123/system.slice/web.service\n", ""},
		"outside the namespace":        {"0::/../system.slice/web.service\n", ""},
		"outside, further":             {"0::/system.slice/../web.service\n", ""},
		"deleted":                      {"0::/system.slice/web.service (deleted)\n", ""},
		"a socket unit":                {"0::/system.slice/web.socket\n", ""},
		"a relative path":              {"0::system.slice/web.service\n", ""},
		"no path":                      {"0::\n", ""},
		"a slice only":                 {"0::/system.slice\n", ""},
		"escaped by systemd":           {"0::/system.slice/_memory.service\n", "memory.service"},
		"a name with an escape":        {"0::/system.slice/a\\x2db.service\n", `a\x2db.service`},
		"a path with colons":           {"0::/system.slice/a:b.service\n", "a:b.service"},
		"an empty component":           {"0:://system.slice/web.service\n", ""},
		"a hierarchy that is no 0":     {"1::/system.slice/web.service\n", ""},
		"a controller in version 2":    {"0:cpu:/system.slice/web.service\n", ""},
		"a suffix alone":               {"0::/system.slice/.service\n", ""},
		"nothing":                      {"", ""},
		"no line":                      {"garbage", ""},
		"no newline at the end":        {"0::/system.slice/web.service", "web.service"},
		"a name that is much too long": {"0::/system.slice/" + strings.Repeat("a", 300) + ".service\n", ""},
	} {
		if got := unitOf([]byte(c.file)); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func FuzzUnitOf(f *testing.F) {
	f.Add([]byte("0::/system.slice/web.service\n"))
	f.Add([]byte("9:name=systemd:/user.slice/user-1000.slice/user@1000.service/app.slice/web.service\n0::/\n"))
	f.Add([]byte("0::/../x.scope (deleted)"))
	f.Fuzz(func(t *testing.T, file []byte) {
		unit := unitOf(file)
		if unit == "" {
			return
		}
		// What it says can be written as a selector, and is a component of the
		// file that nothing but slices is above.
		if _, err := selector.Parse("unit=" + unit); err != nil {
			t.Errorf("%q: %v", file, err)
		}
		if !strings.Contains(string(file), "/"+unit) && !strings.Contains(string(file), "/_"+unit) {
			t.Errorf("%q is not in %q", unit, file)
		}
	})
}

func TestParseStart(t *testing.T) {
	tail := strings.Repeat(" 1", 18) + " 4242 99\n"
	for stat, want := range map[string]string{
		"7 (web) S" + tail:      "42.42s",
		"7 (a) b (c)) S" + tail: "42.42s",
		"7 (web) S 1 2 3":       "",
		"7 web S" + tail:        "",
		"7 (web) S" + strings.Repeat(" 1", 18) + " x 1": "",
		"": "",
	} {
		got, err := parseStart([]byte(stat))
		if (err != nil) != (want == "") || err == nil && got.String() != want {
			t.Errorf("%q: %v %v", stat, got, err)
		}
	}
	// This process has started, and not in the future.
	got, err := startTime(int32(os.Getpid()))
	if err != nil || got <= 0 || got > now() {
		t.Errorf("own start %v of %v: %v", got, now(), err)
	}
}

func FuzzParseStart(f *testing.F) {
	f.Add([]byte("7 (a) b) S" + strings.Repeat(" 1", 30)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if d, err := parseStart(b); err == nil && d < 0 {
			t.Errorf("%q: %v", b, d)
		}
	})
}

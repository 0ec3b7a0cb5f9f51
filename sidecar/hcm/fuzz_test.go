package hcm

import (
	"net/url"
	"regexp"
	"strings"
	"testing"
)

// FuzzLocation: where a redirect leads is where it leads for net/url, a user is none, and read
// again it is the same.
func FuzzLocation(f *testing.F) {
	for _, uri := range []string{
		"http://h/p?q#f", "HTTPS://H:443", "http://h?q", "http://[::1]:80/", "http://u@h/", "http://h/%zz", "ftp://h/", "/p", "//h/p", "http:///p",
		"http://h\\p", "http://h/a b", "http://h:80:80/", "https://h/%2e%2e/a", "http://h#", "http://",
	} {
		f.Add(uri)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		l, ok := parseLocation(uri)
		if !ok {
			return
		}
		if again, ok := parseLocation(l.scheme + "://" + l.authority + l.target); !ok || again != l {
			t.Errorf("%q: %+v, read again %+v %v", uri, l, again, ok)
		}
		u, err := url.Parse(uri)
		if err != nil {
			return // of an escape that is none, or a port of letters: the host may know it
		}
		if u.Scheme != l.scheme || u.User != nil || !strings.EqualFold(u.Host, l.authority) {
			t.Errorf("%q: %+v, net/url has %q %q", uri, l, u.Scheme, u.Host)
		}
		if target, err := url.ParseRequestURI(l.target); err != nil || target.RawQuery != u.RawQuery || target.Path != u.Path && u.Path != "" {
			t.Errorf("%q: %+v, net/url has %q %q", uri, l, u.Path, u.RawQuery)
		}
	})
}

// FuzzSniff: a connection begins with HTTP/2's preface or not, and what was decided of its first
// bytes stays so with more of them.
func FuzzSniff(f *testing.F) {
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	for _, s := range []string{preface, preface + "\x00\x00\x00\x04", preface[:23], "PRI * HTTP/1.1\r\n", "GET / HTTP/1.1\r\n\r\n", "", "P", strings.ToLower(preface)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		decided := false
		for i := range len(b) + 1 {
			switch yes, known := sniff(b[:i]); {
			case yes != strings.HasPrefix(string(b[:i]), preface) || yes && !known:
				t.Fatalf("%q: %v %v", b[:i], yes, known)
			case decided && !known:
				t.Fatalf("%q is decided no longer", b[:i])
			case known == strings.HasPrefix(preface, string(b[:i])) && i != len(preface):
				t.Fatalf("%q: known %v", b[:i], known)
			default:
				decided = known
			}
		}
	})
}

// closed are values of x-forwarded-client-cert behind which an element may begin.
var closed = regexp.MustCompile(`(?s)\A(?:[^"\\]|\\.|"(?:[^"\\]|\\.)*")*\z`)

// FuzzInheritedClientCert: what a client sends takes in nothing that is put behind it.
func FuzzInheritedClientCert(f *testing.F) {
	for _, v := range []string{
		"", "By=a;Hash=b", `By=a;Subject="CN=a";URI=b`, `By=a;Subject="CN=a\"b,c";URI=b`, `By=a;Subject="CN=a\\",By=b`, `By=a;Subject="`,
		`By=a;Subject="CN=\"`, `Subject="a";Cert="b\\\"`, `By=a\`, `By=a\\`, `By=\"a`,
	} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, v string) {
		v = strings.ToValidUTF8(v, "?") // the expression reads characters, for which a byte would be two
		if got := unclosed(v); got == closed.MatchString(v) {
			t.Errorf("%q: %v", v, got)
		}
	})
}

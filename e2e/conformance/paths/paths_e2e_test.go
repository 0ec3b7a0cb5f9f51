//go:build e2e

package paths

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"path"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/e2e/conformance/bed"
	"github.com/hauberk-mesh/hauberk/sidecar/percent"
)

// rule is a deny rule as the sidecar is told it, and what it means for the path and
// query that an origin receives.
type rule struct {
	rbac  string
	means func(target string) bool
}

func pathOnly(target string) string { p, _, _ := strings.Cut(target, "?"); return p }

var rules = []rule{
	{`{url_path: {path: {prefix: /admin}}}`, func(s string) bool { return strings.HasPrefix(pathOnly(s), "/admin") }},
	{`{url_path: {path: {exact: /admin}}}`, func(s string) bool { return pathOnly(s) == "/admin" }},
	{`{url_path: {path: {suffix: .php}}}`, func(s string) bool { return strings.HasSuffix(pathOnly(s), ".php") }},
	{`{url_path: {path: {contains: secret}}}`, func(s string) bool { return strings.Contains(pathOnly(s), "secret") }},
	{`{url_path: {path: {prefix: /Admin, ignore_case: true}}}`, func(s string) bool { return strings.HasPrefix(strings.ToLower(pathOnly(s)), "/admin") }},
	{`{url_path: {path: {safe_regex: {regex: "/a[^/]*/b.*"}}}}`, regexp.MustCompile(`^(?:/a[^/]*/b[^?]*)(?:\?|$)`).MatchString},
	{`{header: {name: ":path", string_match: {contains: admin}}}`, func(s string) bool { return strings.Contains(s, "admin") }},
}

// options are the ways to treat paths; clean says that what an origin receives names
// one resource for whoever resolves it by RFC 3986.
var options = []struct {
	name, text string
	clean      bool
}{
	{"as sent", "", false},
	{"the mesh's", bed.Mesh, false},
	{"the mesh's, slashes merged", bed.Mesh + ", merge_slashes: true", true},
	{"escaped slashes undone", "normalize_path: true, merge_slashes: true, path_with_escaped_slashes_action: UNESCAPE_AND_FORWARD", true},
	{"escaped slashes undone by the client", "normalize_path: true, merge_slashes: true, path_with_escaped_slashes_action: UNESCAPE_AND_REDIRECT", true},
	{"slashes merged only", "merge_slashes: true", false},
}

// table are ways past path rules that were found in the field.
var table = []string{
	"/admin", "/admin/", "/admin/x", "/admin?x", "/admin;x", "/admin/.", "/admin/./x", "/./admin", "/.//admin", "//admin", "///admin//x",
	"/public/../admin", "/public/..//admin", "/public/%2e%2e/admin", "/public/%2E%2e/admin", "/public/.%2e/admin", "/public/%2e./admin",
	"/public/..%2fadmin", "/public%2f..%2fadmin", "/public/..%5cadmin", "/public\\..\\admin", "/public/..\\admin", "\\admin", "/\\admin",
	"/public/..;/admin", "/public/..;x=y/admin", "/;/admin", "/;x/admin", "/.;/admin", "/admin%3bx", "/admin%2f", "/admin%2F..%2fx",
	"/%61dmin", "/%41dmin", "/%2561dmin", "/ADMIN", "/Admin", "/aDmIn/x", "/admin%00", "/admin%00.html", "/%00/admin", "/admin%20", "/admin%09", "/admin%0a", "/admin%0d%0ax",
	"/%c0%ae%c0%ae/admin", "/..%c0%afadmin", "/%e0%80%ae/admin", "/%uff0e%uff0e/admin", "/%%32%65/admin", "/%252e%252e/admin", "/..%252fadmin",
	"/admin#x", "/x?/../admin", "/x?y=/admin", "/admin%3fx", "/admin%23x", "/x/../../../admin", "/x/y/../../admin/../admin", "/../admin", "/..", "/.", "/...", "/..a/admin",
	"/a%2fb/b", "/ab/b", "/a//b", "/index.php", "/index.php/x", "/index.php;x", "/index.%70hp", "/x/secret", "/x/se%63ret", "/x/%73%65%63%72%65%74", "/~admin", "/%7eadmin", "/%7Eadmin",
	"/%%61dmin", "/%/../admin", "/x%/..%/admin", "/%2/%2e%2e/%2/../admin", "/{x}/../admin", "/\"/../admin", "/<x>|^`/%2e%2e/admin", "/admin{", "/{admin", "/admin\"x", "/x?\"{<admin",
	"http://h/admin", "http://h/../admin", "http://h//admin", "http://h/%61dmin", "http://h?/admin", "http://h", "*", "/*", "/admin*",
}

// parts are what generated paths are put together from.
var parts = strings.Fields(`/ / / / // . .. ... admin admin Admin secret a b x .php ; ;x ? \ % %2 %2e %2E %2f %2F %5c %5C %61dmin %41 %00 %25 %252e %252f %c0%ae %7e ~ %3b %20 : @ & = ! + * { " < ^ %% %%32`)

func generated(n int) []string {
	r := rand.New(rand.NewPCG(1, 2))
	out := make([]string, n)
	for i := range out {
		var b strings.Builder
		b.WriteString("/")
		for range 1 + r.IntN(8) {
			b.WriteString(parts[r.IntN(len(parts))])
		}
		out[i] = b.String()
	}
	return out
}

// small writes the escapes of a path with small digits; a query is not normalised.
func small(target string) string {
	path, query, _ := strings.Cut(target, "?")
	return escapes.ReplaceAllStringFunc(path, strings.ToLower) + target[len(path):len(target)-len(query)] + query
}

var escapes = regexp.MustCompile("%[0-9A-Fa-f]{2}")

// TestAuthorizationSeesTheForwardedPath sends each path through two listeners that
// differ in RBAC alone. What the one without rules forwards is what the one with rules
// has to decide upon, and to forward unchanged when it allows it.
func TestAuthorizationSeesTheForwardedPath(t *testing.T) {
	origin := recordingOrigin(t)
	var deny []string
	for _, r := range rules {
		deny = append(deny, r.rbac)
	}
	rbac := fmt.Sprintf(`{action: DENY, policies: {p: {permissions: [{or_rules: {rules: [%s]}}], principals: [{any: true}]}}}`, strings.Join(deny, ", "))
	var listeners []bed.Listener
	for _, o := range options {
		listeners = append(listeners, bed.Listener{Addr: bed.Addr(t), Options: o.text}, bed.Listener{Addr: bed.Addr(t), Options: o.text, RBAC: rbac})
	}
	s := bed.Start(t, origin, listeners...)
	targets := append(append([]string{}, table...), generated(1500)...)
	for i, o := range options {
		t.Run(o.name, func(t *testing.T) {
			free, ruled := &client{addr: listeners[2*i].Addr}, &client{addr: listeners[2*i+1].Addr}
			denied, allowed := 0, 0
			for _, target := range targets {
				status, forwarded, err := free.get(target)
				status2, forwarded2, err2 := ruled.get(target)
				if err != nil || err2 != nil {
					t.Fatalf("%q: %v, %v", target, err, err2)
				}
				// An escape is the same in capital digits and in small ones (RFC 3986 6.2.2.1): where paths are
				// normalised, what was written with small ones has capitals, and a rule holds for both.
				normalised := strings.Contains(o.text, "normalize_path: true")
				hit := status == 200 && (matches(forwarded) || normalised && matches(small(forwarded)))
				switch {
				case hit && status2 != 403:
					t.Errorf("%q is forwarded as %q, which a rule denies, and gets %d", target, forwarded, status2)
				case !hit && (status2 != status || forwarded2 != forwarded):
					t.Errorf("%q: %d %q without rules, %d %q with rules that do not concern it", target, status, forwarded, status2, forwarded2)
				case hit:
					denied++
				case status == 200:
					allowed++
					if o.clean {
						unambiguous(t, target, forwarded)
					}
				}
				if t.Failed() {
					s.Alive()
				}
			}
			if denied < 100 || allowed < 100 {
				t.Errorf("%d denied and %d allowed of %d: too few to prove anything", denied, allowed, len(targets))
			}
			t.Logf("%d denied, %d allowed, %d refused of %d", denied, allowed, len(targets)-denied-allowed, len(targets))
		})
	}
}

func matches(target string) bool {
	for _, r := range rules {
		if r.means(target) {
			return true
		}
	}
	return false
}

// unambiguous fails when an origin that decodes and resolves the path once more would
// come to a resource that a rule denies.
func unambiguous(t *testing.T, target, forwarded string) {
	t.Helper()
	if forwarded == "*" {
		return
	}
	// A percent sign that begins no escape stands for itself, as it does for servers that
	// take it at all.
	decoded := string(percent.Append(nil, pathOnly(forwarded)))
	resolved := path.Clean(decoded)
	if strings.HasSuffix(decoded, "/") && resolved != "/" {
		resolved += "/" // another resource than the one without
	}
	if matches(resolved) && !strings.ContainsAny(decoded, "?\x00") {
		t.Errorf("%q is allowed and forwarded as %q, which an origin may take for %q", target, forwarded, resolved)
	}
}

// client sends requests one after another on a connection, and dials anew when it was
// closed.
type client struct {
	addr string
	nc   net.Conn
	r    *bufio.Reader
}

// get returns the status and the target that the origin saw, which it sends back.
func (c *client) get(target string) (status int, forwarded string, err error) {
	if c.nc == nil {
		if c.nc, err = net.Dial("tcp", c.addr); err != nil {
			return 0, "", err
		}
		c.r = bufio.NewReader(c.nc)
	}
	_ = c.nc.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := fmt.Fprintf(c.nc, "GET %s HTTP/1.1\r\nHost: h\r\n\r\n", target); err != nil {
		return 0, "", err
	}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return 0, "", err
	}
	body, err := io.ReadAll(resp.Body)
	if resp.Close {
		_ = c.nc.Close()
		c.nc = nil
	}
	if resp.StatusCode != 200 {
		body = []byte(resp.Header.Get("Location"))
	}
	return resp.StatusCode, string(body), err
}

// recordingOrigin answers with the request target as it stands in the request line.
func recordingOrigin(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go answer(c)
		}
	}()
	return l.Addr().String()
}

func answer(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	target := ""
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		switch {
		case target == "":
			_, rest, _ := strings.Cut(line, " ")
			target = strings.TrimSuffix(rest, " HTTP/1.1\r\n")
		case line == "\r\n":
			if _, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(target), target); err != nil {
				return
			}
			target = ""
		}
	}
}

package route

import (
	"math/bits"
	"net/netip"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
)

func TestHash(t *testing.T) {
	h := xxhash.Sum64String
	seeded := func(values ...string) (hash uint64) {
		for _, v := range values {
			d := xxhash.NewWithSeed(hash)
			_, _ = d.WriteString(v)
			hash = d.Sum64()
		}
		return hash
	}
	combine := func(a, b uint64) uint64 { return bits.RotateLeft64(a, 1) ^ b }
	client := &Client{
		Addr: netip.MustParseAddr("10.0.0.1"), Remote: netip.MustParseAddrPort("10.0.0.1:1234"), Local: netip.MustParseAddrPort("10.0.0.2:80"),
	}
	session := &CookieHash{Name: "none", TTL: ptr(time.Duration(0))}
	made := client.cookie()
	for _, c := range []struct {
		name    string
		p       []HashPolicy
		want    uint64
		ok      bool
		cookies int
	}{
		{"nothing", nil, 0, false, 0},
		{"header", []HashPolicy{{Header: "x-a"}}, h("1"), true, 0},
		{"header missing", []HashPolicy{{Header: "x-none"}}, 0, false, 0},
		{"values in sorted order", []HashPolicy{{Header: "x-many"}}, seeded("a", "b", "c"), true, 0},
		{"pseudo-header", []HashPolicy{{Header: ":path"}}, h("/p?q=v&r"), true, 0},
		{"rewritten", []HashPolicy{{Header: "x-b", HeaderRewrite: substitution(t, "^(.).*", `\1`)}}, h("t"), true, 0},
		{"query", []HashPolicy{{Query: "q"}}, h("v"), true, 0},
		{"query without value", []HashPolicy{{Query: "r"}}, h(""), true, 0},
		{"query missing", []HashPolicy{{Query: "s"}}, 0, false, 0},
		{"cookie", []HashPolicy{{Cookie: &CookieHash{Name: "s", TTL: ptr(time.Hour)}}}, h("id"), true, 0},
		{"cookie missing", []HashPolicy{{Cookie: &CookieHash{Name: "none"}}}, 0, false, 0},
		{"cookie made", []HashPolicy{{Cookie: session}}, h(string(made[:])), true, 1},
		{"source", []HashPolicy{{SourceIP: true}}, h("10.0.0.1"), true, 0},
		{"combined", []HashPolicy{{Header: "x-a"}, {Header: "x-none"}, {SourceIP: true}}, combine(h("1"), h("10.0.0.1")), true, 0},
		{"twice the same", []HashPolicy{{Header: "x-a"}, {Header: "x-a"}}, combine(h("1"), h("1")), true, 0},
		{"terminal", []HashPolicy{{Header: "x-a", Terminal: true}, {SourceIP: true}}, h("1"), true, 0},
		{"terminal without a hash", []HashPolicy{{Header: "x-none", Terminal: true}, {SourceIP: true}}, h("10.0.0.1"), true, 0},
		{"terminal after one", []HashPolicy{{Header: "x-a"}, {Header: "x-none", Terminal: true}, {SourceIP: true}}, h("1"), true, 0},
	} {
		req := request("GET", "h", "/p?q=v&r", "x-a", "1", "x-b", "two", "x-many", "b", "x-many", "c", "X-Many", "a", "cookie", "s=id")
		f := Forward{Hash: c.p}
		got, ok, cookies := Hash64(f.Hash, req, client, nil)
		if got != c.want || ok != c.ok || len(cookies) != c.cookies {
			t.Errorf("%s: %x %v with %d cookies, want %x %v with %d", c.name, got, ok, len(cookies), c.want, c.ok, c.cookies)
		}
	}
	f := Forward{Hash: []HashPolicy{{Cookie: session}, {SourceIP: true}}}
	if _, ok, cookies := Hash64(f.Hash, request("GET", "h", "/"), nil, nil); ok || len(cookies) > 0 {
		t.Error("an unknown client has a hash")
	}
}

// XXH64 with seed 0, as Envoy uses it: one value of the algorithm's own tests.
func TestHashIsXXH64(t *testing.T) {
	f := Forward{Hash: []HashPolicy{{Header: "x"}}}
	if got, _, _ := Hash64(f.Hash, request("GET", "h", "/", "x", "a"), nil, nil); got != 0xd24ec4f1a98c6e5b {
		t.Errorf("%x", got)
	}
}

func TestSetCookie(t *testing.T) {
	client := &Client{Remote: netip.MustParseAddrPort("10.0.0.1:1234"), Local: netip.MustParseAddrPort("10.0.0.2:80")}
	value := client.cookie()
	for _, c := range []struct {
		c    CookieHash
		want string
	}{
		{CookieHash{Name: "s", TTL: ptr(time.Duration(0))}, `s="` + string(value[:]) + `"; HttpOnly`},
		{CookieHash{Name: "s", Path: "/x", TTL: ptr(90 * time.Second), Attributes: []CookieAttribute{{"SameSite", "Strict"}, {"Secure", ""}}},
			`s="` + string(value[:]) + `"; Max-Age=90; Path=/x; SameSite=Strict; Secure; HttpOnly`},
	} {
		if got := string(c.c.AppendSetCookie(nil, client)); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
}

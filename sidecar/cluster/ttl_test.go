package cluster

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// goodFor is a resolver whose answers are good for so long.
type goodFor struct {
	ttl   time.Duration
	asked int
}

func (g *goodFor) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	g.asked++
	return []netip.Addr{netip.MustParseAddr("10.0.0.1")}, nil
}

func (g *goodFor) LookupTTL(ctx context.Context, network, host string, _ DNSFamily) ([]netip.Addr, time.Duration, error) {
	addrs, err := g.LookupNetIP(ctx, network, host)
	return addrs, g.ttl, err
}

// TestRespectTTL: a name is looked up again when what was said of it is good no longer.
func TestRespectTTL(t *testing.T) {
	for name, c := range map[string]struct {
		dns  DNS
		ttl  time.Duration
		want int // lookups in 60.5 s
	}{
		"the TTL":             {DNS{Refresh: 2 * time.Second, RespectTTL: true}, 20 * time.Second, 4},
		"shorter than rate":   {DNS{Refresh: 20 * time.Second, RespectTTL: true}, 10 * time.Second, 7},
		"nobody tells it":     {DNS{Refresh: 30 * time.Second, RespectTTL: true}, 0, 3},
		"not asked for":       {DNS{Refresh: 30 * time.Second}, 10 * time.Second, 3},
		"below the least":     {DNS{Refresh: time.Second, RespectTTL: true, MinRefresh: 20 * time.Second}, 3 * time.Second, 4},
		"above the least":     {DNS{Refresh: time.Second, RespectTTL: true, MinRefresh: 5 * time.Second}, 20 * time.Second, 4},
		"no TTL, and a least": {DNS{Refresh: 10 * time.Second, RespectTTL: true, MinRefresh: 20 * time.Second}, 0, 7},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &goodFor{ttl: c.ttl}
				m := NewManager(Options{Resolver: r})
				defer m.Close()
				mustUpdate(t, m, &Config{Name: "c", Type: StrictDNS, Endpoints: namesOn(80, "api.example"), DNS: &c.dns})
				if wait(60500 * time.Millisecond); r.asked != c.want {
					t.Errorf("%d lookups, want %d", r.asked, c.want)
				}
			})
		})
	}
}

// TestTTLOfNameservers: the TTL is that of the answer, by UDP and TCP, and is the last one's.
func TestTTLOfNameservers(t *testing.T) {
	n := startNameserver(t, [4]byte{10, 0, 0, 1})
	for name, dns := range map[string]DNS{
		"by UDP":      {Servers: []string{n.at}, RespectTTL: true},
		"over TCP":    {Servers: []string{n.at}, RespectTTL: true, OverTCP: true},
		"whole names": {Servers: []string{n.at}, RespectTTL: true, WholeNames: true},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			r := dns.resolver(system)
			for host, want := range map[string]time.Duration{"api.test": 5 * time.Second, "none.test.": 0, "half.test": 0} {
				if _, got, err := dns.lookup(ctx, r, host); got != want || (err != nil) != (host == "none.test.") {
					t.Errorf("%s: %v %v, want %v", host, got, err, want)
				}
			}
		})
	}
	if l, ok := (&DNS{RespectTTL: true}).resolver(system).(*listening); !ok || l.Resolver == Resolver(system) {
		t.Error("the host's nameservers are not read along")
	}
	if r := (&DNS{}).resolver(system); r != Resolver(system) {
		t.Error("what nobody asked for is read along")
	}
}

// TestTTLOfAnswers: what counts in an answer, and which answer is one.
func TestTTLOfAnswers(t *testing.T) {
	name := func(s string) dnsmessage.Name { return dnsmessage.MustNewName(s) }
	to := func(host string) *dnsmessage.Message {
		return &dnsmessage.Message{
			Header:    dnsmessage.Header{ID: 7},
			Questions: []dnsmessage.Question{{Name: name(host), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
		}
	}
	record := func(typ dnsmessage.Type, ttl uint32, body dnsmessage.ResourceBody) dnsmessage.Resource {
		return dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: name("a.test."), Type: typ, Class: dnsmessage.ClassINET, TTL: ttl}, Body: body}
	}
	a := func(ttl uint32) dnsmessage.Resource { return record(dnsmessage.TypeA, ttl, &dnsmessage.AResource{}) }
	alias := func(ttl uint32) dnsmessage.Resource {
		return record(dnsmessage.TypeCNAME, ttl, &dnsmessage.CNAMEResource{CNAME: name("b.test.")})
	}
	text := record(dnsmessage.TypeTXT, 1, &dnsmessage.TXTResource{TXT: []string{"x"}})
	for what, c := range map[string]struct {
		id      uint16
		host    string
		answers []dnsmessage.Resource
		want    time.Duration
		ok      bool
	}{
		"the shortest":             {7, "a.test.", []dnsmessage.Resource{a(9), a(8)}, 8 * time.Second, true},
		"an alias's":               {7, "A.test.", []dnsmessage.Resource{alias(4), a(9)}, 4 * time.Second, true},
		"not another type's":       {7, "a.test.", []dnsmessage.Resource{text, a(9)}, 9 * time.Second, true},
		"none":                     {7, "a.test.", []dnsmessage.Resource{a(0), a(9)}, 0, true},
		"a negative one":           {7, "a.test.", []dnsmessage.Resource{a(1 << 31)}, 0, true},
		"nothing":                  {7, "a.test.", nil, 0, true},
		"to another question":      {8, "a.test.", []dnsmessage.Resource{a(9)}, 0, false},
		"with nothing":             {7, "a.test.", []dnsmessage.Resource{text}, 0, true},
		"to one of another name":   {7, "b.test.", []dnsmessage.Resource{a(9)}, 0, false},
		"of another, with nothing": {8, "b.test.", nil, 0, false},
	} {
		answer := to(c.host)
		answer.ID, answer.Response, answer.Answers = c.id, true, c.answers
		asked, err := to("a.test.").Pack()
		if err != nil {
			t.Fatal(err)
		}
		answered, err := answer.Pack()
		if err != nil {
			t.Fatal(err)
		}
		q, got, ok := leastTTL(asked, answered)
		if ok != c.ok || ok && q != (question{"a.test.", dnsmessage.TypeA}) {
			t.Errorf("%s: %v %v, want %v", what, q, ok, c.ok)
		}
		if got == nil {
			got = new(time.Duration)
		}
		if *got != c.want {
			t.Errorf("%s: %v, want %v", what, *got, c.want)
		}
		for cut := range answered { // never a panic
			leastTTL(asked, answered[:cut])
		}
		answer.Truncated = true // it is asked again over TCP
		if answered, err = answer.Pack(); err != nil {
			t.Fatal(err)
		}
		if _, _, ok := leastTTL(asked, answered); ok {
			t.Errorf("%s: a part of an answer is one", what)
		}
		if _, _, ok := leastTTL(asked, asked); ok {
			t.Errorf("%s: a question is an answer", what)
		}
	}
}

// TestTTLOfFamilies: the addresses that are used count.
func TestTTLOfFamilies(t *testing.T) {
	four, six := 4*time.Second, 6*time.Second
	for family, want := range map[DNSFamily]time.Duration{IPv4First: four, IPv4Only: four, IPv6First: six, IPv6Only: six, AllFamilies: four} {
		l := &listening{}
		l.Resolver = resolverFunc(func(context.Context, string) ([]netip.Addr, error) {
			l.v4, l.v6 = &four, &six
			return []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("2001:db8::1")}, nil
		})
		if _, got, err := l.LookupTTL(t.Context(), family.network(), "a.test", family); got != want || err != nil {
			t.Errorf("%v: %v %v, want %v", family, got, err, want)
		}
	}
}

// TestTTLOfHalfAnAnswer: while a question has no answer it is not known for how long what it would
// have brought may be missed, be it of an earlier lookup or in a later one.
func TestTTLOfHalfAnAnswer(t *testing.T) {
	pack := func(name string, typ dnsmessage.Type, answers ...dnsmessage.Resource) []byte {
		m := dnsmessage.Message{
			Header:    dnsmessage.Header{Response: len(answers) > 0},
			Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: typ, Class: dnsmessage.ClassINET}}, Answers: answers,
		}
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	four := dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName("a.test."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET, TTL: 9}, Body: &dnsmessage.AResource{}}
	a, aaaa := pack("A.test.", dnsmessage.TypeA), pack("a.test.", dnsmessage.TypeAAAA)
	l := &listening{}
	for i, c := range []struct {
		asked, answered [][]byte
		want            time.Duration
	}{
		{[][]byte{a, aaaa}, [][]byte{a}, 0},
		{[][]byte{a}, [][]byte{a}, 9 * time.Second},
		{[][]byte{a, aaaa, aaaa}, [][]byte{a, aaaa}, 9 * time.Second},
		{[][]byte{a, a, a[:5]}, [][]byte{a}, 9 * time.Second},
	} {
		l.Resolver = resolverFunc(func(context.Context, string) ([]netip.Addr, error) {
			for _, q := range c.asked {
				l.said(q)
			}
			for _, q := range c.answered {
				typ := dnsmessage.TypeA
				if &q[0] == &aaaa[0] {
					typ = dnsmessage.TypeAAAA
				}
				l.heard(q, pack("a.test.", typ, four))
			}
			return []netip.Addr{netip.MustParseAddr("10.0.0.1")}, nil
		})
		if _, got, err := l.LookupTTL(t.Context(), "ip", "a.test", IPv6First); got != c.want || err != nil {
			t.Errorf("lookup %d: %v %v, want %v", i, got, err, c.want)
		}
	}
}

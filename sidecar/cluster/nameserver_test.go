package cluster

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// nameserver answers for "api.test" with an address, and for nothing else, by UDP and TCP. Asked
// for an IPv6 address of "half.test", it says that it failed.
type nameserver struct {
	at     string
	answer [4]byte

	mu    sync.Mutex
	asked []string
}

func startNameserver(t *testing.T, answer [4]byte) *nameserver {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	pc, err := net.ListenPacket("udp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	n := &nameserver{at: l.Addr().String(), answer: answer}
	var wg sync.WaitGroup
	wg.Go(func() {
		b := make([]byte, 1500)
		for {
			size, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo(n.reply("udp", b[:size]), from)
		}
	})
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			var size uint16
			_ = binary.Read(c, binary.BigEndian, &size)
			b := make([]byte, size)
			_, _ = io.ReadFull(c, b)
			out := n.reply("tcp", b)
			_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...))
			_ = c.Close()
		}
	})
	t.Cleanup(func() { _, _ = l.Close(), pc.Close(); wg.Wait() })
	return n
}

func (n *nameserver) reply(network string, b []byte) []byte {
	var m dnsmessage.Message
	if m.Unpack(b) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	n.mu.Lock()
	n.asked = append(n.asked, network+" "+q.Name.String())
	n.mu.Unlock()
	m.Header = dnsmessage.Header{ID: m.ID, Response: true, Authoritative: true, RecursionAvailable: true}
	m.Additionals = nil
	switch name := q.Name.String(); {
	case name == "half.test." && q.Type == dnsmessage.TypeAAAA:
		m.RCode = dnsmessage.RCodeServerFailure
	case name != "api.test." && name != "half.test.":
		m.RCode = dnsmessage.RCodeNameError
	case q.Type == dnsmessage.TypeA:
		m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 5}, Body: &dnsmessage.AResource{A: n.answer}}}
	}
	out, _ := m.Pack()
	return out
}

func (n *nameserver) questions() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.asked)
}

// TestNameservers: a cluster's own servers are asked, in their order, the next one where one
// does not answer, and none behind one that says that there is nothing.
func TestNameservers(t *testing.T) {
	one, two := startNameserver(t, [4]byte{10, 0, 0, 1}), startNameserver(t, [4]byte{10, 0, 0, 2})
	away, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := away.LocalAddr().String()
	_ = away.Close()
	host := resolverFunc(func(context.Context, string) ([]netip.Addr, error) {
		t.Error("the host's resolver was asked")
		return nil, nil
	})
	for name, c := range map[string]struct {
		dns  DNS
		host string
		want string // "" where there is nothing
	}{
		"one":               {DNS{Servers: []string{one.at}}, "api.test", "10.0.0.1"},
		"the first of two":  {DNS{Servers: []string{two.at, one.at}}, "api.test", "10.0.0.2"},
		"the first is away": {DNS{Servers: []string{dead, two.at}}, "api.test", "10.0.0.2"},
		"over TCP":          {DNS{Servers: []string{one.at}, OverTCP: true}, "api.test", "10.0.0.1"},
		"there is nothing":  {DNS{Servers: []string{one.at, two.at}}, "none.test.", ""},
	} {
		t.Run(name, func(t *testing.T) {
			before, other := len(one.questions()), len(two.questions())
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			got, err := c.dns.resolver(host).LookupNetIP(ctx, "ip4", c.host)
			if c.want == "" {
				if !notFound(err) || len(two.questions()) > other {
					t.Errorf("%v %v, and the second was asked %v", got, err, two.questions()[other:])
				}
				return
			}
			if err != nil || len(got) != 1 || got[0].Unmap().String() != c.want {
				t.Errorf("%v %v, want %s", got, err, c.want)
			}
			for _, q := range one.questions()[before:] {
				if strings.HasPrefix(q, "tcp ") != c.dns.OverTCP {
					t.Errorf("asked by %s", q)
				}
			}
		})
	}
}

// The error names the server that was asked, not the host's own.
func TestSilentNameserverIsNamed(t *testing.T) {
	away, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := away.LocalAddr().String()
	_ = away.Close()
	_, err = (&DNS{Servers: []string{dead}}).resolver(nil).LookupNetIP(t.Context(), "ip4", "api.test")
	if err == nil || !strings.Contains(err.Error(), "lookup api.test on "+dead+": ") {
		t.Error(err)
	}
}

// A name that is whole is asked for as it is.
func TestWholeNames(t *testing.T) {
	var asked []string
	host := resolverFunc(func(_ context.Context, name string) ([]netip.Addr, error) {
		asked = append(asked, name)
		return nil, nil
	})
	for _, d := range []*DNS{{WholeNames: true}, {}} {
		for _, name := range []string{"api", "api."} {
			_, _ = d.resolver(host).LookupNetIP(t.Context(), "ip", name)
		}
	}
	if got := strings.Join(asked, " "); got != "api. api. api api." {
		t.Errorf("asked for %s", got)
	}
}

// TestClusterAsksItsServers: from the configuration to the hosts.
func TestClusterAsksItsServers(t *testing.T) {
	n := startNameserver(t, [4]byte{10, 0, 0, 7})
	m := NewManager(Options{})
	defer m.Close()
	c := mustUpdate(t, m, &Config{Name: "c", Type: StrictDNS, Endpoints: namesOn(80, "api.test"), DNS: &DNS{Servers: []string{n.at}, Family: IPv4Only}})
	for end := time.Now().Add(5 * time.Second); len(addresses(c)) == 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if got := addresses(c); len(got) != 1 || got[0] != "10.0.0.7:80" {
		t.Errorf("the hosts are %v", got)
	}
}

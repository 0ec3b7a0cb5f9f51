package cluster

import (
	"net"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// FuzzTTL: of an answer that can be unpacked as a whole the shortest TTL of the addresses that
// were asked for, and of aliases, counts; one to another question tells nothing.
func FuzzTTL(f *testing.F) {
	name := dnsmessage.MustNewName("a.test.")
	asked := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 7},
		Questions: []dnsmessage.Question{{Name: name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	question, err := asked.Pack()
	if err != nil {
		f.Fatal(err)
	}
	record := func(typ dnsmessage.Type, ttl uint32, body dnsmessage.ResourceBody) dnsmessage.Resource {
		return dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: name, Type: typ, Class: dnsmessage.ClassINET, TTL: ttl}, Body: body}
	}
	for _, answers := range [][]dnsmessage.Resource{
		nil,
		{record(dnsmessage.TypeA, 9, &dnsmessage.AResource{}), record(dnsmessage.TypeA, 8, &dnsmessage.AResource{})},
		{record(dnsmessage.TypeCNAME, 4, &dnsmessage.CNAMEResource{CNAME: name}), record(dnsmessage.TypeA, 1<<31, &dnsmessage.AResource{})},
		{record(dnsmessage.TypeTXT, 1, &dnsmessage.TXTResource{TXT: []string{"x"}}), record(dnsmessage.TypeAAAA, 2, &dnsmessage.AAAAResource{})},
	} {
		answer := asked
		answer.Response, answer.Answers = true, answers
		b, err := answer.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(question, b)
		f.Add(question, b[:len(b)-1])
	}
	f.Add(question, question)
	f.Fuzz(func(t *testing.T, q, a []byte) {
		wanted, ttl, ok := leastTTL(q, a)
		if !ok && (wanted.name != "" || ttl != nil) {
			t.Errorf("of no answer %v %v is told", wanted, ttl)
		}
		var question, answer dnsmessage.Message
		if question.Unpack(q) != nil || answer.Unpack(a) != nil {
			return
		}
		same := len(question.Questions) > 0 && len(answer.Questions) > 0 && answer.ID == question.ID && answer.Response && !answer.Truncated &&
			questionLike(answer.Questions[0]) == questionLike(question.Questions[0]) && (answer.RCode == dnsmessage.RCodeSuccess || answer.RCode == dnsmessage.RCodeNameError)
		if same != ok {
			t.Fatalf("%v\nis an answer to\n%v: %v", answer.GoString(), question.GoString(), ok)
		}
		var least *time.Duration
		for _, r := range answer.Answers {
			if same && (r.Header.Type == question.Questions[0].Type || r.Header.Type == dnsmessage.TypeCNAME) {
				d := time.Duration(max(int32(r.Header.TTL), 0)) * time.Second
				if least == nil || d < *least {
					least = &d
				}
			}
		}
		if (ttl == nil) != (least == nil) || ttl != nil && *ttl != *least {
			t.Errorf("%v: %v, want %v", answer.GoString(), ttl, least)
		}
	})
}

func questionLike(q dnsmessage.Question) question {
	name := q.Name
	for i, c := range name.Data[:name.Length] {
		if 'A' <= c && c <= 'Z' {
			name.Data[i] += 'a' - 'A'
		}
	}
	return question{name.String(), q.Type}
}

// FuzzDestinationHeader: a request goes where its header says, if that is an address and a port
// to package net too, and otherwise where its client meant to connect to.
func FuzzDestinationHeader(f *testing.F) {
	for _, v := range []string{
		"10.0.0.2:81", "[fd00::1]:80", "[::ffff:10.0.0.1]:80", "10.0.0.1:0", "nonsense", "10.0.0.2:81,10.0.0.3:82", "10.0.0.1:65536", "[fe80::1%eth0]:80",
		"010.0.0.1:80", "[10.0.0.1]:80", "fd00::1:80", "10.0.0.1:+80", " 10.0.0.1:80", "",
	} {
		f.Add(v)
	}
	m := NewManager(Options{})
	f.Cleanup(func() { _ = m.Close() })
	if err := m.Update(&Config{Name: "c", Type: OriginalDestination, OriginalDst: &OriginalDst{Header: "x-dst"}}); err != nil {
		f.Fatal(err)
	}
	c := m.Get("c")
	const meant = "192.0.2.1:9"
	f.Fuzz(func(t *testing.T, v string) {
		pc := &PickContext{Destination: netip.MustParseAddrPort(meant), Request: &message.Request{}}
		pc.Request.Fields.Add("x-dst", v)
		h, err := c.PickFor(pc)
		if err != nil {
			if a, wrong := netip.ParseAddrPort(v); wrong != nil || a.Port() != 0 {
				t.Fatalf("%q: %v", v, err)
			}
			return
		}
		defer c.destinations.drop(func(*Host) bool { return true })
		if h.Address() == meant {
			return
		}
		host, port, err := net.SplitHostPort(v)
		n, _ := strconv.Atoi(port)
		ip, _ := netip.ParseAddr(host)
		got := netip.MustParseAddrPort(h.Address())
		if err != nil || n != int(got.Port()) || ip.Unmap() != got.Addr() {
			t.Errorf("%q leads to %v", v, got)
		}
	})
}

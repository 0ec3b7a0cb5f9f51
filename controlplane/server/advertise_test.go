package server

import (
	"net"
	"testing"
)

func TestReachable(t *testing.T) {
	prefix := func(s string) net.Addr {
		ip, n, err := net.ParseCIDR(s)
		if err != nil {
			t.Fatal(err)
		}
		n.IP = ip
		return n
	}
	all := []net.Addr{prefix("127.0.0.1/8"), prefix("::1/128"), prefix("fe80::1/64"), prefix("2001:db8::1/64"), prefix("10.1.2.3/24"), prefix("10.9.9.9/24")}
	for _, c := range []struct {
		bound string
		own   []net.Addr
		want  string
	}{
		{"192.0.2.1:15012", all, "192.0.2.1:15012"},
		{"127.0.0.1:1", all, "127.0.0.1:1"},
		{"[::]:15012", all, "10.1.2.3:15012"},
		{"0.0.0.0:15012", all[:4], "[2001:db8::1]:15012"},
		{"[::]:15012", all[:3], "127.0.0.1:15012"},
		{"[::]:15012", nil, "127.0.0.1:15012"},
	} {
		a, err := net.ResolveTCPAddr("tcp", c.bound)
		if err != nil {
			t.Fatal(err)
		}
		if got := reachable(a, c.own); got != c.want {
			t.Errorf("%s with %v: %s, want %s", c.bound, c.own, got, c.want)
		}
	}
}

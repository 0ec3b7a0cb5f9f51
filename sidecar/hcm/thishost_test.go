package hcm

import (
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// TestAddressesOfThisHost: they are read once, and again when an unknown one comes later; what
// cannot be read leaves what is known.
func TestAddressesOfThisHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pod, later := net.IPv4(192, 0, 2, 1), net.IPv4(192, 0, 2, 2)
		all, reads, fault := []net.Addr{&net.IPNet{IP: pod}}, 0, error(nil)
		o := &ownAddresses{read: func() ([]net.Addr, error) { reads++; return all, fault }}
		if !o.has(pod) || !o.has(pod.To4()) || o.has(later) || o.has(nil) || reads != 1 {
			t.Errorf("read %d times", reads)
		}
		all = append(all, &net.IPNet{IP: later})
		if o.has(later) {
			t.Error("read for each connection")
		}
		time.Sleep(11 * time.Second)
		if !o.has(later) || reads != 2 {
			t.Errorf("an address that came is not known, read %d times", reads)
		}
		time.Sleep(11 * time.Second)
		if all, fault = nil, errors.New("none"); o.has(net.IPv4(192, 0, 2, 3)) || !o.has(pod) {
			t.Error("what was known is lost")
		}
	})
}

func connOf(info *stream.Info) *downstream.Conn {
	d := &downstream.Conn{}
	d.Info = info
	return d
}

// TestCapturedApplications: an application whose traffic is captured, or a proxy of this host that
// announces others, comes from an address of this host.
func TestCapturedApplications(t *testing.T) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		ip := a.(*net.IPNet).IP
		own, capture, far := &net.TCPAddr{IP: ip, Port: 1}, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 15001}, &net.TCPAddr{IP: net.IPv4(198, 51, 100, 7), Port: 1}
		for _, info := range []stream.Info{{Local: capture, Remote: own}, {Local: capture, Remote: far, Direct: own}} {
			if stranger(connOf(&info)) {
				t.Errorf("%+v is a stranger", info)
			}
		}
		if !stranger(connOf(&stream.Info{Local: capture, Remote: far})) {
			t.Error("whoever is redirected to loopback is at this host")
		}
	}
}

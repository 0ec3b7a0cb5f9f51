package cluster

import (
	"bytes"
	"net"
	"slices"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// TestTCPCheckAnnounces: a connection begins with one header, whatever is asked on it.
func TestTCPCheckAnnounces(t *testing.T) {
	for what, tc := range map[string]struct {
		announce Announcement
		send     string
		want     string
	}{
		"version 1":              {1, "PING\n", "PROXY TCP4 10.0.0.9 10.0.0.1 4000 80\r\nPING\n"},
		"version 2":              {2, "PING\n", "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00PING\n"},
		"version 1, and no more": {1, "", "PROXY TCP4 10.0.0.9 10.0.0.1 4000 80\r\n"},
		"no header":              {0, "PING\n", "PING\n"},
	} {
		t.Run(what, func(t *testing.T) {
			conn := &saying{info: stream.Info{Local: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 9), Port: 4000}, Remote: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 80}}}
			k := &checker{cfg: &HealthCheck{TCP: &TCPCheck{Send: []byte(tc.send), Announce: tc.announce}}, conn: conn}
			k.checkTCP()
			if got := conn.said.String(); got != tc.want {
				t.Errorf("said %q", got)
			}
			conn.said.Reset()
			k.checkTCP()
			if got := conn.said.String(); got != tc.send {
				t.Errorf("then said %q", got)
			}
		})
	}
}

// saying is a connection of which nothing is read.
type saying struct {
	stream.Stream
	info stream.Info
	said bytes.Buffer
}

func (s *saying) Info() *stream.Info          { return &s.info }
func (s *saying) Write(p []byte) (int, error) { return s.said.Write(p) }

// TestCheckByALPN: what is agreed on is spoken, and else what the check says.
func TestCheckByALPN(t *testing.T) {
	for _, c := range []struct {
		agreed string
		http2  bool
		want   protocol
	}{
		{"h2", false, protocolHTTP2}, {"http/1.1", true, protocolHTTP1}, {"", false, protocolHTTP1}, {"", true, protocolHTTP2}, {"other", true, protocolHTTP2},
	} {
		k := &checker{cfg: &HealthCheck{HTTP: &HTTPCheck{ByALPN: true, HTTP2: c.http2}}}
		if got := k.settled(c.agreed); got != c.want || k.disagrees(c.agreed) {
			t.Errorf("%q: %v", c.agreed, got)
		}
		if got := k.alpn(&TLS{ALPN: []string{"a", "h2"}}); !slices.Equal(got, []string{"a", "h2"}) {
			t.Errorf("offers %q", got)
		}
		k.cfg.ALPN = []string{"b"}
		if got := k.alpn(&TLS{ALPN: []string{"a"}}); !slices.Equal(got, []string{"b"}) {
			t.Errorf("offers %q of its own", got)
		}
	}
}

package hcm

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// lasts waits for the end of a connection and returns when that came.
func lasts(t *testing.T, c net.Conn) time.Duration {
	t.Helper()
	began := time.Now()
	_ = c.SetDeadline(began.Add(3 * time.Hour))
	if _, err := io.Copy(io.Discard, c); err != nil && time.Since(began) >= 3*time.Hour {
		t.Fatal("the connection stays")
	}
	return time.Since(began)
}

// TestFirstByte: a connection that says nothing ends when its first byte is overdue, also one
// whose codec is HTTP/2's, and one that has been used when it is idle for too long.
func TestFirstByte(t *testing.T) {
	const head = "GET / HTTP/1.1\r\nHost: h\r\n"
	for name, tc := range map[string]struct {
		first, limit time.Duration
		codec        Codec
		says         string
		want         time.Duration
		counted      bool
	}{
		"silent":                  {10 * time.Second, 0, CodecAuto, "", 10 * time.Second, true},
		"no bound":                {0, 0, CodecAuto, "", time.Hour, false},
		"idle timeout is shorter": {10 * time.Second, 3 * time.Second, CodecAuto, "", 3 * time.Second, false},
		"idle afterwards":         {10 * time.Second, 0, CodecAuto, head + "\r\n", time.Hour, false},
		"half a preface":          {10 * time.Second, 0, CodecAuto, "PRI * HT", 10 * time.Second, true},
		"its first byte":          {10 * time.Second, 0, CodecAuto, "P", 10 * time.Second, true},
		"what is not a preface":   {10 * time.Second, 0, CodecAuto, "POST", 5 * time.Minute, false},
		"a head that has begun":   {10 * time.Second, 0, CodecAuto, head, 5 * time.Minute, false},
		"HTTP/2":                  {10 * time.Second, 0, CodecHTTP2, "", 10 * time.Second, false},
		"HTTP/2 without settings": {10 * time.Second, 0, CodecAuto, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 10 * time.Second, false},
		"HTTP/2, no bound":        {0, 0, CodecHTTP2, "", time.Hour, false},
		"HTTP/2, idle":            {10 * time.Second, 0, CodecHTTP2, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", time.Hour, false},
		"HTTP/2, half a head":     {10 * time.Second, 0, CodecHTTP2, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x01\x01\x00\x00\x00\x00\x01\x82", 5 * time.Minute, false},
	} {
		t.Run(name, bubble(func(t *testing.T) {
			b := plain(newBed(t))
			b.options.Patience.FirstByte = tc.first
			b.cfg.IdleTimeout, b.cfg.Codec = tc.limit, tc.codec
			b.start()
			c := b.connect()
			defer c.Close()
			if _, err := io.WriteString(c, tc.says); err != nil {
				t.Fatal(err)
			}
			if took := lasts(t, c); took < tc.want || took > tc.want+10*time.Second {
				t.Errorf("it ended after %v, want %v", took, tc.want)
			}
			if counted := b.metric(`hauberk_slow_clients_total{what="first_byte"} 1`); counted != tc.counted {
				t.Errorf("counted: %v", counted)
			}
		}))
	}
}

// TestStrangers: whoever is at this host, or whom a certificate has named, may open connections
// ahead.
func TestStrangers(t *testing.T) {
	at := func(ip string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: 1} }
	here, far := at("192.0.2.1"), at("198.51.100.7")
	for name, tc := range map[string]struct {
		info stream.Info
		want bool
	}{
		"another host":                {stream.Info{Local: here, Remote: far}, true},
		"TLS alone":                   {stream.Info{Local: here, Remote: far, TLS: true}, true},
		"a sidecar":                   {stream.Info{Local: here, Remote: far, PeerID: webID}, false},
		"a certificate":               {stream.Info{Local: here, Remote: far, PeerCertHash: "00"}, false},
		"loopback":                    {stream.Info{Local: at("127.0.0.1"), Remote: at("127.0.0.1")}, false},
		"loopback of IPv6":            {stream.Info{Local: at("::1"), Remote: at("::1")}, false},
		"this host":                   {stream.Info{Local: here, Remote: here}, false},
		"a Unix socket":               {stream.Info{Local: &net.UnixAddr{}, Remote: &net.UnixAddr{}}, false},
		"announced as of this host":   {stream.Info{Local: here, Remote: at("127.0.0.1"), Direct: far}, true},
		"announced by this host":      {stream.Info{Local: here, Remote: far, Direct: at("127.0.0.1")}, false},
		"announced as here, by other": {stream.Info{Local: here, Remote: here, Direct: far}, true},
	} {
		d := &downstream.Conn{}
		d.Info = &tc.info
		if got := stranger(d); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
		m := &Manager{patience: Patience{FirstByte: time.Second, FirstByteOfStrangers: true}}
		if m.firstBy(d) > 0 != tc.want {
			t.Errorf("%s: the first byte may take %v", name, time.Duration(m.firstBy(d)))
		}
	}
}

package stream

import (
	"crypto/tls"
	"io"
	"net"
	"testing"
)

// TestTLSEnded: a peer that says that it sends no more has ended, also with its socket open, once all
// that it sent before was read.
func TestTLSEnded(t *testing.T) {
	for name, cfg := range map[string]*tls.Config{
		"1.3": {SessionTicketsDisabled: true},
		"1.2": {MaxVersion: tls.VersionTLS12},
	} {
		t.Run(name, func(t *testing.T) {
			server, client := tlsPairOf(t, cfg)
			if server.Ended() {
				t.Error("a silent peer")
			}
			buf := make([]byte, 64)
			_, _ = client.Write([]byte("data"))
			eventually(t, "nothing came", func() bool { return !server.raw.quiet() })
			if server.Ended() {
				t.Error("there is something to be read")
			}
			if n, err := server.Read(buf); string(buf[:n]) != "data" || err != nil {
				t.Fatalf("%q %v", buf[:n], err)
			}
			if err := client.records.CloseWrite(); err != nil { // and no FIN
				t.Fatal(err)
			}
			eventually(t, "the end was not seen", server.Ended)
			if server.Gone() {
				t.Error("the socket is open")
			}
			if _, err := server.Write([]byte("beside")); err != nil {
				t.Error(err)
			}
			if n, err := server.Read(buf); n != 0 || err != io.EOF {
				t.Errorf("%d %v", n, err)
			}
		})
	}
}

// TestTLSEndedTogether: the end that comes with the last bytes is known, whoever protects the records.
func TestTLSEndedTogether(t *testing.T) {
	for name, cfg := range map[string]*tls.Config{
		"1.3": {SessionTicketsDisabled: true},
		"1.2": {MaxVersion: tls.VersionTLS12},
	} {
		t.Run(name, func(t *testing.T) {
			server, client := tlsPairOf(t, cfg)
			_ = client.raw.Conn.(*net.TCPConn).SetNoDelay(false)
			_, _ = client.Write([]byte("data"))
			_ = client.records.CloseWrite()
			eventually(t, "not all came", func() bool { return arrived(t, server) >= 2*17 })
			l := &lender{buf: make([]byte, 64)}
			if n, err := server.ReadReady(l); string(l.buf[:n]) != "data" || err != nil {
				t.Fatalf("%q %v", l.buf[:n], err)
			}
			if !server.Ended() {
				t.Error("the end is not seen")
			}
		})
	}
}

// arrived is how much a socket has to be read, at most 100 bytes.
func arrived(t *testing.T, s *TLS) (n int) {
	buf := make([]byte, 100)
	if err := s.raw.raw.Control(func(fd uintptr) { n, _ = recv(fd, buf, 0x42) }); err != nil { // MSG_PEEK|MSG_DONTWAIT
		t.Fatal(err)
	}
	return n
}

// TestEndedTakesNoMemory: clients that wait for a slow answer are looked at again and again.
func TestEndedTakesNoMemory(t *testing.T) {
	server, client := tlsPair(t)
	if n := testing.AllocsPerRun(100, func() { server.Ended() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	_ = client.Close()
}

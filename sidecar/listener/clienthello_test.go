package listener

import (
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"testing"
	"time"
)

// helloBytes is what crypto/tls sends.
func helloBytes(t testing.TB, name string, alpn ...string) []byte {
	t.Helper()
	a, b := net.Pipe()
	defer b.Close()
	go func() {
		_ = tls.Client(a, &tls.Config{ServerName: name, NextProtos: alpn, InsecureSkipVerify: true}).Handshake()
	}()
	buf := make([]byte, 32<<10)
	_ = b.SetReadDeadline(time.Now().Add(5 * time.Second))
	n := 0
	for {
		m, err := b.Read(buf[n:])
		n += m
		if _, perr := parseClientHello(buf[:n]); !errors.Is(perr, errMoreHello) || err != nil {
			return buf[:n]
		}
	}
}

func TestParseClientHello(t *testing.T) {
	b := helloBytes(t, "API.example", "h2", "http/1.1")
	want := clientHello{"api.example", []string{"h2", "http/1.1"}}
	check := func(name string, in []byte) {
		got, err := parseClientHello(in)
		if err != nil || got.serverName != want.serverName || !slices.Equal(got.alpn, want.alpn) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	check("whole", b)
	check("with what follows", append(slices.Clone(b), 22, 3, 3))

	// The same message in records of 100 bytes (RFC 8446 5.1).
	var split []byte
	for rest := b[5:]; len(rest) > 0; {
		n := min(100, len(rest))
		split = append(split, 22, 3, 1, 0, byte(n))
		split = append(split, rest[:n]...)
		rest = rest[n:]
	}
	check("fragmented", split)
	for _, in := range [][]byte{b, split} {
		for i := range in {
			if _, err := parseClientHello(in[:i]); !errors.Is(err, errMoreHello) {
				t.Fatalf("%d of %d bytes: %v", i, len(in), err)
			}
		}
	}
}

func TestParseClientHelloRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		in   string
		want error
	}{
		"http":          {"GET / HTTP/1.1\r\n", errNotTLS},
		"ssl2":          {"\x80\x2e\x01\x03\x01", errNotTLS},
		"alert":         {"\x15\x03\x01\x00\x02\x02\x28", errNotTLS},
		"server hello":  {"\x16\x03\x03\x00\x04\x02\x00\x00\x00", errNotTLS},
		"empty record":  {"\x16\x03\x01\x00\x00", errBadHello},
		"huge record":   {"\x16\x03\x01\xff\xff", errBadHello},
		"huge message":  {"\x16\x03\x01\x00\x04\x01\xff\xff\xff", errBadHello},
		"short message": {"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03", errBadHello},
	} {
		if _, err := parseClientHello([]byte(tc.in)); !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", name, err, tc.want)
		}
	}
}

func FuzzParseClientHello(f *testing.F) {
	f.Add(helloBytes(f, "a.example", "h2"))
	f.Add([]byte("\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseClientHello(b)
		if err != nil && (h.serverName != "" || h.alpn != nil) {
			t.Error("an error with a result")
		}
		for _, c := range []byte(h.serverName) {
			if c <= ' ' || c >= 0x7f || 'A' <= c && c <= 'Z' {
				t.Errorf("server name %q", h.serverName)
			}
		}
	})
}

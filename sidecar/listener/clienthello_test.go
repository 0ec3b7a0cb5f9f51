package listener

import (
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"strings"
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
	want := clientHello{"api.example", protocolName("h2") + protocolName("http/1.1")}
	check := func(name string, in []byte) {
		got, err := parseClientHello(in)
		if err != nil || got.serverName != want.serverName || got.alpn != want.alpn {
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

// A ClientHello that two parsers could read differently is none: what a chain is chosen by is
// what the server behind it will see.
func TestParseClientHelloRefusesAmbiguity(t *testing.T) {
	const session, ciphers, compressions = "\x00", "\x00\x02\x13\x01", "\x01\x00"
	vector := func(s string) string { return string([]byte{byte(len(s) >> 8), byte(len(s))}) + s }
	name := func(kind byte, s string) string { return string([]byte{kind}) + vector(s) }
	sni := func(names ...string) string { return "\x00\x00" + vector(vector(strings.Join(names, ""))) }
	hello := func(fields string, extensions ...string) []byte {
		body := "\x03\x03" + strings.Repeat("r", 32) + fields + vector(strings.Join(extensions, ""))
		return []byte("\x16\x03\x01" + vector("\x01\x00"+vector(body)))
	}
	usual, named := session+ciphers+compressions, sni(name(0, "a.example"))
	// What a server of crypto/tls passes over: it reads the hello all the same.
	const warning = "\x15\x03\x01\x00\x02\x01\x5a"
	whole := hello(usual, named)
	for what, b := range map[string][]byte{
		"as it should be":     hello(usual, named, "\xfa\xfa\x00\x00", "\xfb\xfb\x00\x00"),
		"a name of 255 bytes": hello(usual, sni(name(0, strings.Repeat("x", 255)))),
	} {
		if _, err := parseClientHello(b); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, b := range map[string][]byte{
		"an extension twice":            hello(usual, named, "\x00\x0a\x00\x00", "\x00\x0a\x00\x00"),
		"an unknown extension twice":    hello(usual, "\xfa\xfa\x00\x00", named, "\xfa\xfa\x00\x00"),
		"an unknown kind first":         hello(usual, sni(name(7, "x"), name(0, "a.example"))),
		"an unknown kind last":          hello(usual, sni(name(0, "a.example"), name(7, "x"))),
		"an unknown kind alone":         hello(usual, sni(name(7, "x"))),
		"two names":                     hello(usual, sni(name(0, "a.example"), name(0, "b.example"))),
		"no name":                       hello(usual, sni()),
		"an empty name":                 hello(usual, sni(name(0, ""))),
		"a name that is too long":       hello(usual, sni(name(0, strings.Repeat("x", 256)))),
		"no ciphers":                    hello(session+"\x00\x00"+compressions, named),
		"half a cipher":                 hello(session+"\x00\x03\x13\x01\xc0"+compressions, named),
		"no compression, not even none": hello(session+ciphers+"\x00", named),
		"a session that is too long":    hello("\x21"+strings.Repeat("s", 33)+ciphers+compressions, named),
		"a warning before it":           slices.Concat([]byte(warning), whole),
		"a warning in it":               slices.Concat([]byte("\x16\x03\x01\x00\x06"), whole[5:11], []byte(warning), []byte("\x16\x03\x01"), []byte(vector(string(whole[11:])))),
		"an odd version":                slices.Concat([]byte("\x16\x04\x00"), whole[3:]),
		"an odd version in it":          slices.Concat([]byte("\x16\x03\x01\x00\x06"), whole[5:11], []byte("\x16\x0f\xff"), []byte(vector(string(whole[11:])))),
	} {
		if got, err := parseClientHello(b); !errors.Is(err, errBadHello) {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
	}
	for what, b := range map[string]string{"an alert": "\x15\x03\x01\x00\x02\x02\x28", "no alert": "\x15\x03\x01\x00\x03\x01\x5a", "SSL of another world": "\x16\x10\x00\x00\x05", "text": "\x15a"} {
		if _, err := parseClientHello([]byte(b)); !errors.Is(err, errNotTLS) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for n := range len(warning) { // in two segments it is what it is in one
		if _, err := parseClientHello([]byte(warning[:n])); !errors.Is(err, errMoreHello) {
			t.Errorf("%d bytes of a warning: %v", n, err)
		}
	}
}

func FuzzParseClientHello(f *testing.F) {
	f.Add(helloBytes(f, "a.example", "h2"))
	f.Add([]byte("\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseClientHello(b)
		if err != nil && (h.serverName != "" || h.alpn != "") {
			t.Error("an error with a result")
		}
		if o, ok := offerOf(b); err == nil && (!ok || len(o.ja3()) != 32 || len(o.ja4()) != 36) {
			t.Errorf("fingerprints %q, %q", o.ja3(), o.ja4())
		}
		for _, c := range []byte(h.serverName) {
			if c <= ' ' || c >= 0x7f || 'A' <= c && c <= 'Z' {
				t.Errorf("server name %q", h.serverName)
			}
		}
	})
}

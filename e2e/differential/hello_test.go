//go:build e2e

package differential

import (
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"
)

// A ClientHello of the table is one that a server reads, or refuses for what is wrong with it.
func TestHello(t *testing.T) {
	for what, x := range map[string]struct {
		hello Hello
		want  string // the server name; empty when the hello is refused
	}{
		"usual":              {Hello{Extensions: []string{"sni a.example", "versions", "groups", "signatures", "alpn h2"}}, "a.example"},
		"in records, padded": {Hello{Extensions: []string{"sni a.example", "versions", "groups", "signatures"}, Record: 50, Pad: 400}, "a.example"},
		"an extension twice": {Hello{Extensions: []string{"sni a.example", "versions", "groups", "groups", "signatures"}}, ""},
		"two names":          {Hello{Extensions: []string{"sni a.example b.example", "versions", "groups", "signatures"}}, ""},
	} {
		b, err := x.hello.encoded()
		if err != nil {
			t.Fatal(err)
		}
		if got := greeted(t, b); got != x.want {
			t.Errorf("%s: %q, want %q", what, got, x.want)
		}
	}
	for _, bad := range []string{"sni 7:x x:y \"", "zz", "0001 0"} {
		if b, err := (&Hello{Extensions: []string{bad}}).encoded(); err == nil {
			t.Errorf("%q is %x", bad, b)
		}
	}
}

// greeted is the name that a server of crypto/tls reads.
func greeted(t *testing.T, hello []byte) (name string) {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	_ = a.SetDeadline(time.Now().Add(patience))
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer b.Close()
		_ = tls.Server(b, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			name = h.ServerName
			return nil, net.ErrClosed
		}}).Handshake()
	}()
	_, _ = a.Write(hello)
	_, _ = io.Copy(io.Discard, a) // an alert, and the end
	<-done
	return name
}

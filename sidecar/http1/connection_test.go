package http1

import (
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// TestConnectionOfAnUpgradeIsSeen: in the words that it came in, and never sent on. Without an
// upgrade nothing is left of it.
func TestConnectionOfAnUpgradeIsSeen(t *testing.T) {
	for _, c := range []struct{ fields, want string }{
		{"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n", "keep-alive, Upgrade"},
		{"Connection: keep-alive\r\nUpgrade: websocket\r\nConnection: uPgrade\r\n", "keep-alive,uPgrade"},
		{"Connection: Upgrade\r\n", ""},
		{"Connection: keep-alive\r\nUpgrade: websocket\r\n", ""},
		{"Connection: Upgrade\r\nUpgrade: h2c\r\n", ""},
	} {
		var p RequestParser
		p.Configure(Limits{}.WithDefaults(), AllowUnderscores)
		var r message.Request
		if _, _, err := p.Parse([]byte("GET / HTTP/1.1\r\nHost: h\r\n"+c.fields+"\r\n"), &r); err != nil {
			t.Fatal(err)
		}
		if v, ok := r.Header("connection"); v != c.want || ok != (c.want != "") || r.Fields.Has(message.Connection) != ok {
			t.Errorf("%q: %q, want %q", c.fields, v, c.want)
		}
		out, err := AppendRequest(nil, &r, RequestOptions{Upgrade: r.Upgrade})
		if err != nil {
			t.Fatal(err)
		}
		if n, want := strings.Count(strings.ToLower(string(out)), "connection:"), map[bool]int{true: 1}[c.want != ""]; n != want {
			t.Errorf("%q: %d of it are sent: %q", c.fields, n, out)
		}
	}
}

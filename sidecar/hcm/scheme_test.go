package hcm

import (
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// TestSchemeOfHTTP2: what an HTTP/2 client says of its scheme is kept, as in Envoy, whatever
// the connection is and x-forwarded-proto says. A host that compares it with its own
// connection, which the client thinks it has, would reset the stream.
func TestSchemeOfHTTP2(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*Config)
		says   string // the client
		field  string // x-forwarded-proto, empty for none
		want   string
	}{
		{name: "https over plaintext", says: "https", want: "https"},
		{name: "http", says: "http", want: "http"},
		{name: "another x-forwarded-proto", says: "http", field: "https", want: "http"},
		{name: "one that is fixed", change: func(c *Config) { c.Scheme = "http" }, says: "https", want: "http"},
		{name: "the upstream's", change: func(c *Config) { c.MatchUpstreamScheme = true }, says: "https", want: "http"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			told := make(chan string, 1)
			b := newBed(t, framesOrigin(t, func(f *http2.Framer, fr http2.Frame) {
				h, ok := fr.(*http2.HeadersFrame)
				if !ok {
					return
				}
				d := hpack.NewDecoder(4096, func(f hpack.HeaderField) {
					if f.Name == ":scheme" {
						told <- f.Value
					}
				})
				_, _ = d.Write(h.HeaderBlockFragment())
				answerFrame(f, h.StreamID, "200")
			}))
			b.http2Cluster()
			if b.cfg.AccessLog[0].Format = "%REQ(:SCHEME)%\n"; tc.change != nil {
				tc.change(b.cfg)
			}
			b.start()
			f := b.dialHTTP2()
			fields := []string{":method: GET", ":scheme: " + tc.says, ":authority: h", ":path: /"}
			if tc.field != "" {
				fields = append(fields, "x-forwarded-proto: "+tc.field)
			}
			f.headers(fields...)
			f.data("")
			if got := f.outcome(); got != "HEADERS 200" {
				t.Fatal(got)
			}
			if got := <-told; got != tc.want {
				t.Errorf("the host is told %q, want %q", got, tc.want)
			}
			if line := b.logged(1)[0]; line != tc.want {
				t.Errorf("the log says %q, want %q", line, tc.want)
			}
		})
	}
}

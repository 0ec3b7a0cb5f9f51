//go:build e2e

package h2spec

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/hauberk-mesh/hauberk/e2e/conformance/bed"
)

// origin is an HTTP/1 server that reads what it is sent.
func origin(t testing.TB) (addr string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "an answer that is longer than its first window")
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// TestServer: all cases of h2spec pass, in plain text and over TLS, the strict ones too, with
// nothing but Envoy's defaults. Where HTTP/2 is not declared, what has no preface is HTTP/1, and is
// told so in HTTP/1.
func TestServer(t *testing.T) {
	origin := upstream{name: "origin", addr: origin(t)}
	declared, auto, overTLS, beside := bed.Addr(t), bed.Addr(t), bed.Addr(t), bed.Addr(t)
	processes := []*bed.Sidecar{
		bed.StartFile(t, bootstrap(t, "AUTO", auto, overTLS, origin), auto, overTLS),
		bed.StartFile(t, bootstrap(t, "HTTP2", declared, beside, origin), declared, beside),
	}
	t.Run("listeners", func(t *testing.T) {
		for name, c := range map[string]struct {
			addr    string
			options []string
			except  string
		}{"declared": {addr: declared}, "auto": {addr: auto, except: "http2/3.5/2"}, "TLS": {addr: overTLS, options: []string{"-tls"}}} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				results := asClient(t, c.addr, c.options...)
				for _, r := range results {
					if failed := r.Error != "" || r.Skipped; failed && r.id() != c.except {
						t.Errorf("%s: %s", r.Case, r.Error)
					}
				}
				if _, all, strict := passed(results); all != 145 || strict != 1 {
					t.Errorf("%d cases, and %d strict ones passed", all, strict)
				}
			})
		}
	})
	for _, s := range processes {
		s.Alive()
	}
}

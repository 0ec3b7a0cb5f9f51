package cluster

import (
	"crypto/tls"
	"slices"
	"testing"
)

// TestRenamedHost: where a connection told its host the name that the endpoint has, it is not
// used any more once the endpoint at that address has another, as in Envoy. Otherwise the name
// is of no connection.
func TestRenamedHost(t *testing.T) {
	for name, tc := range map[string]struct {
		http  Protocol
		tls   TLS
		asked []string
	}{
		"HTTP/1":   {SpeakHTTP1, TLS{AutoHostSNI: true}, []string{"one", "two"}},
		"HTTP/2":   {SpeakHTTP2, TLS{AutoHostSNI: true}, []string{"one", "two"}},
		"own name": {SpeakHTTP1, TLS{SNI: "own"}, []string{"own"}},
	} {
		t.Run(name, func(t *testing.T) {
			hs := newHandshakes(t, "h2", "http/1.1")
			m := newManager(t, Options{TLS: pooled{&tls.Config{InsecureSkipVerify: true}}})
			var asked []string
			for _, hostname := range []string{"one", "one", "two", "two"} {
				at := hosts("c", hs.addr)
				at.Localities[0].Endpoints[0].Hostname = hostname
				c := mustUpdate(t, m, &Config{Name: "c", TLS: &tc.tls, HTTP: HTTP{Protocol: tc.http}, Endpoints: at})
				done := make(chan struct{})
				go func() {
					defer close(done)
					conn, err := acquireWeb(c)
					if err != nil {
						t.Error(err)
						return
					}
					conn.Release()
				}()
				select {
				case sni := <-hs.asked:
					asked = append(asked, sni)
					hs.goOn <- struct{}{}
					<-done
				case <-done:
				}
			}
			if !slices.Equal(asked, tc.asked) {
				t.Errorf("the host was asked for %q, want %q", asked, tc.asked)
			}
		})
	}
}

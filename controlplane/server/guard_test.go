package server

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"go.uber.org/goleak"

	"github.com/hauberk-mesh/hauberk/controlplane/server/api"
	identityserver "github.com/hauberk-mesh/hauberk/identity/server"
	"github.com/hauberk-mesh/hauberk/identity/spiffe"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What a browser can be made to send must not get through, and what carries no
// operator's identity sees only health and metrics.
func TestGuard(t *testing.T) {
	g := &guard{hosts: map[string]bool{"cp.example.com": true}, open: map[string]bool{healthPath: true}}
	h := g.wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
	for _, tc := range []struct {
		name, path, host, origin string
		want                     int
	}{
		{"health by address", healthPath, "127.0.0.1:15014", "", 200},
		{"health by a known name", healthPath, "cp.example.com:15014", "", 200},
		{"health by a rebound name", healthPath, "evil.example.com:15014", "", http.StatusMisdirectedRequest},
		{"own origin", healthPath, "localhost:15014", "https://localhost:15014", 200},
		{"foreign origin", healthPath, "localhost:15014", "https://evil.example.com", http.StatusForbidden},
		{"null origin", healthPath, "localhost:15014", "null", http.StatusForbidden},
		{"status without an identity", "/v1/status", "localhost:15014", "", http.StatusForbidden},
	} {
		r := httptest.NewRequest(http.MethodGet, "https://placeholder"+tc.path, nil)
		r.Host, r.TLS = tc.host, nil
		if tc.origin != "" {
			r.Header.Set("Origin", tc.origin)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, w.Code, tc.want)
		}
	}
}

// TestGuardAsksTheRecord: who is an operator says what is on record now, and no operator has
// private keys sent to him.
func TestGuardAsksTheRecord(t *testing.T) {
	kind, onRecord := spiffe.Operator, error(nil)
	g := &guard{open: map[string]bool{healthPath: true}, local: map[string]bool{api.BackupPath: true}, vouch: func(tls.ConnectionState) (identityserver.Peer, error) {
		return identityserver.Peer{Identity: spiffe.Identity{Kind: kind}}, onRecord
	}}
	h := g.wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
	for _, tc := range []struct {
		name, method, path string
		kind               spiffe.Kind
		record             error
		want               int
	}{
		{"an operator reads", http.MethodGet, api.StatusPath, spiffe.Operator, nil, 200},
		{"an operator writes", http.MethodPost, api.TokensPath, spiffe.Operator, nil, 200},
		{"an operator takes the keys", http.MethodPost, api.BackupPath, spiffe.Operator, nil, http.StatusForbidden},
		{"one that is not on record any more", http.MethodGet, api.StatusPath, spiffe.Operator, errors.New("the key is not the one on record"), http.StatusForbidden},
		{"a node", http.MethodGet, api.StatusPath, spiffe.Node, nil, http.StatusForbidden},
		{"a node asks whether all is well", http.MethodGet, healthPath, spiffe.Node, nil, 200},
	} {
		kind, onRecord = tc.kind, tc.record
		r := httptest.NewRequest(tc.method, "https://localhost"+tc.path, nil)
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{}}}
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, w.Code, tc.want)
		}
	}
}

package server

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.uber.org/goleak"

	"github.com/hauberk-mesh/hauberk/controlplane/server/api"
	"github.com/hauberk-mesh/hauberk/identity/token"
	"github.com/hauberk-mesh/hauberk/identity/trust"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What a browser can be made to send must not get through, and what carries no
// operator's identity sees only health and metrics.
func TestGuard(t *testing.T) {
	g := &guard{hosts: map[string]bool{"cp.example.com": true}, open: map[string]bool{healthPath: true}, local: map[string]bool{api.BackupPath: true}}
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

// An operator's SVID outlives a ban and a new key, so the record decides, as it
// does on the port of xDS; and the CA's keys leave by the Unix socket only.
func TestGuardOfOperators(t *testing.T) {
	leaf := func(id, key string) *x509.Certificate {
		u, err := url.Parse(id)
		if err != nil {
			t.Fatal(err)
		}
		return &x509.Certificate{URIs: []*url.URL{u}, RawSubjectPublicKeyInfo: []byte(key)}
	}
	alice := leaf("spiffe://test.mesh/hauberk/operator/alice", "key")
	record := token.Node{Name: "alice", Role: token.RoleOperator, Key: trust.PinOf(alice)}
	banned := record
	banned.Banned, banned.BanReason = true, "stolen"
	for _, tc := range []struct {
		name, method, path string
		record             *token.Node
		leaf               *x509.Certificate
		want               int
	}{
		{"reads", "GET", api.StatusPath, &record, alice, 200},
		{"writes", "POST", api.TokensPath, &record, alice, 200},
		{"the CA's keys", "POST", api.BackupPath, &record, alice, http.StatusForbidden},
		{"banned", "GET", api.StatusPath, &banned, alice, http.StatusForbidden},
		{"not on record", "GET", api.StatusPath, nil, alice, http.StatusForbidden},
		{"another key than the record's", "GET", api.StatusPath, &record, leaf("spiffe://test.mesh/hauberk/operator/alice", "stolen"), http.StatusForbidden},
		{"another trust domain", "GET", api.StatusPath, &record, leaf("spiffe://other.mesh/hauberk/operator/alice", "key"), http.StatusForbidden},
		{"a node", "GET", api.StatusPath, &record, leaf("spiffe://test.mesh/hauberk/node/alice", "key"), http.StatusForbidden},
	} {
		g := &guard{
			local:       map[string]bool{api.BackupPath: true},
			trustDomain: spiffeid.RequireTrustDomainFromString("test.mesh"),
			record: func(name string) (token.Node, bool) {
				if tc.record == nil || name != tc.record.Name {
					return token.Node{}, false
				}
				return *tc.record, true
			},
		}
		r := httptest.NewRequest(tc.method, "https://localhost"+tc.path, nil)
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{tc.leaf}}
		w := httptest.NewRecorder()
		g.wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })).ServeHTTP(w, r)
		if w.Code != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, w.Code, tc.want)
		}
	}
}

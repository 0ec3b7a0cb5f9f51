package server

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"go.uber.org/goleak"
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

package consul

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A token that is replaced is used from the next second on; a file that is gone
// or empty changes nothing.
func TestTokenFileIsReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	replace := func(text string) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	replace("one\n")
	synctest.Test(t, func(t *testing.T) {
		var have, said string
		f := &tokenFile{path: path, report: func(err error) {
			said = "mended"
			if err != nil {
				said = err.Error()
			}
		}, next: roundTrip(func(r *http.Request) (*http.Response, error) {
			have = r.Header.Get("X-Consul-Token")
			return &http.Response{}, nil
		})}
		for i, step := range []struct {
			do         func()
			want, says string
		}{
			{func() {}, "one", ""},
			{func() { replace("two") }, "two", ""},
			{func() { _ = os.Remove(path) }, "two", "no such file"},
			{func() {}, "two", ""}, // said already
			{func() { replace(" ") }, "two", "is empty"},
			{func() { replace("three") }, "three", "mended"},
			{func() { _ = os.Remove(path) }, "three", "no such file"},
			{func() { replace("three") }, "three", "mended"},
		} {
			said = ""
			step.do()
			time.Sleep(tokenEvery)
			r, _ := http.NewRequest(http.MethodGet, "http://consul/", nil)
			r.Header.Set("X-Consul-Token", "of the start")
			if _, err := f.RoundTrip(r); err != nil || have != step.want {
				t.Errorf("step %d: %q %v, want %q", i, have, err, step.want)
			}
			if !strings.Contains(said, step.says) || step.says == "" && said != "" {
				t.Errorf("step %d: reported %q, want %q", i, said, step.says)
			}
			if r.Header.Get("X-Consul-Token") != "of the start" {
				t.Error("the caller's request was changed")
			}
		}
	})
}

// TestTokenFileInStatus: while the file cannot be read, the status says so, and
// that the last token stands.
func TestTokenFileInStatus(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CONSUL_HTTP_TOKEN_FILE", path)
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	s.tokenFile(os.ErrPermission)
	if st := s.Status(); !strings.Contains(st.Errors["token file"], "the last token stands") || st.Concerns()["token file"] != 1 {
		t.Errorf("%+v", st)
	}
	s.tokenFile(nil)
	if st := s.Status(); len(st.Errors) > 0 || st.Concerns()["token file"] != 0 {
		t.Errorf("mended: %+v", st)
	}
}

// TestClientCertificateDemanded: an agent with verify_incoming ends the
// connection after the handshake. The error names what is missing.
func TestClientCertificateDemanded(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNoContent)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{}
	server.StartTLS()
	defer server.Close()
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate())
	call := func(auth tls.ClientAuthType, certs ...tls.Certificate) error {
		server.TLS.ClientAuth = auth
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: certs}, ForceAttemptHTTP2: true}
		defer transport.CloseIdleConnections()
		c := http.Client{Transport: newCertificateWatch(transport)}
		resp, err := c.Get(server.URL)
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	for _, tc := range []struct {
		name  string
		auth  tls.ClientAuthType
		certs []tls.Certificate
		want  string
	}{
		{"asked for none", tls.NoClientCert, nil, ""},
		{"may have none", tls.RequestClientCert, nil, ""},
		{"demanded", tls.RequireAndVerifyClientCert, nil, "CONSUL_CLIENT_CERT"},
		{"of another CA", tls.RequireAndVerifyClientCert, server.TLS.Certificates, "refuses the client certificate"},
	} {
		err := call(tc.auth, tc.certs...)
		if tc.want == "" {
			if err != nil {
				t.Errorf("%s: %v", tc.name, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want it to say %s", tc.name, err, tc.want)
		}
	}
}

func TestTokenFileMustHoldOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	for _, want := range []string{"no such file", "is empty"} {
		t.Setenv("CONSUL_HTTP_TOKEN_FILE", path)
		if _, err := New(Config{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

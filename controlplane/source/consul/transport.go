package consul

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
)

// newClient makes the client of the API. It differs from api.NewClient in three
// ways: over HTTPS the watches share a bounded number of HTTP/2 connections, a
// client certificate that is missing is named, and a token file is read again
// when it changes, so that a rotated token takes no restart. report is told when
// that file cannot be read any more, and with nil when it can again.
func newClient(conf *api.Config, report func(error)) (*api.Client, error) {
	if conf.Transport == nil {
		conf.Transport = api.DefaultConfig().Transport
	}
	if path, ok := strings.CutPrefix(conf.Address, "unix://"); ok {
		conf.Address = "localhost"
		conf.Transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}
	}
	if overTLS(conf) {
		conf.Transport.ForceAttemptHTTP2 = true
		conf.Transport.MaxConnsPerHost = maxConnsPerHost
	}
	h, err := api.NewHttpClient(conf.Transport, conf.TLSConfig)
	if err != nil {
		return nil, fmt.Errorf("consul: TLS: %w", err)
	}
	if overTLS(conf) {
		h.Transport = newCertificateWatch(conf.Transport)
	}
	if conf.TokenFile != "" {
		f := &tokenFile{path: conf.TokenFile, next: h.Transport, report: report}
		if _, err := f.token(); err != nil {
			return nil, fmt.Errorf("consul: token file: %w", err)
		}
		h.Transport = f
	}
	conf.HttpClient = h
	c, err := api.NewClient(conf)
	if err != nil {
		return nil, fmt.Errorf("consul: %w", err)
	}
	return c, nil
}

func overTLS(conf *api.Config) bool {
	return conf.Scheme == "https" || strings.HasPrefix(conf.Address, "https://")
}

// tokenFile adds the token that a file holds now to each request.
type tokenFile struct {
	path   string
	next   http.RoundTripper
	report func(error)

	mu      sync.Mutex
	value   string
	info    os.FileInfo // of the file that value was read from
	checked time.Time
	failure string // the last one reported; empty when all is well
}

// tokenEvery is how often the file is looked at, at most.
const tokenEvery = time.Second

// token returns what the file holds. While it cannot be read the last token
// stands: it is as good as it was.
func (f *tokenFile) token() (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Now(); now.Sub(f.checked) >= tokenEvery {
		f.checked = now
		err := f.read()
		if f.value == "" {
			return "", err
		}
		f.tell(err)
	}
	return f.value, nil
}

// tell reports a failure once, and its end.
func (f *tokenFile) tell(err error) {
	failure := ""
	if err != nil {
		failure = err.Error()
	}
	if failure != f.failure {
		f.failure = failure
		f.report(err)
	}
}

func (f *tokenFile) read() error {
	info, err := os.Stat(f.path)
	if err != nil {
		return err
	}
	if f.info != nil && os.SameFile(info, f.info) && info.ModTime().Equal(f.info.ModTime()) && info.Size() == f.info.Size() {
		return nil
	}
	b, err := os.ReadFile(f.path)
	if err != nil {
		return err
	}
	token := strings.TrimSpace(string(b))
	if token == "" {
		return fmt.Errorf("%s is empty; write the token's SecretID into it", f.path)
	}
	f.value, f.info = token, info
	return nil
}

// RoundTrip implements http.RoundTripper.
func (f *tokenFile) RoundTrip(r *http.Request) (*http.Response, error) {
	token, err := f.token()
	if err != nil {
		return nil, fmt.Errorf("consul: token file: %w", err)
	}
	r = r.Clone(r.Context())
	r.Header.Set("X-Consul-Token", token)
	return f.next.RoundTrip(r)
}

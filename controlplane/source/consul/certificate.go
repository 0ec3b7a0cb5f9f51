package consul

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
)

// certificateWatch names what is wrong with the client certificate where an
// agent demands one (verify_incoming). With TLS 1.3 a client learns of that after
// its own handshake is done, often as a mere reset of the connection.
type certificateWatch struct {
	next http.RoundTripper
	// none is set when no certificate is configured; asked, when the agent
	// asked for one and has answered nothing since.
	none  bool
	asked atomic.Bool
}

// newCertificateWatch wraps t, which must not be in use yet.
func newCertificateWatch(t *http.Transport) *certificateWatch {
	w := &certificateWatch{next: t}
	if t.TLSClientConfig == nil {
		t.TLSClientConfig = &tls.Config{}
	}
	own := t.TLSClientConfig.Certificates
	w.none = len(own) == 0
	t.TLSClientConfig.GetClientCertificate = func(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		w.asked.Store(true)
		if w.none {
			return &tls.Certificate{}, nil
		}
		// Shown even where the agent's list of CAs lacks its issuer: the refusal
		// then says more than an absence would.
		return &own[0], nil
	}
	return w
}

// RoundTrip implements http.RoundTripper.
func (w *certificateWatch) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := w.next.RoundTrip(r)
	if err == nil {
		w.asked.Store(false)
		return resp, nil
	}
	if r.Context().Err() != nil || !w.asked.Load() {
		return nil, err
	}
	if w.none {
		return nil, fmt.Errorf("the agent demands a client certificate (verify_incoming) and none is set; "+
			"set CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY to one that the agent's CA has signed, and its key: %w", err)
	}
	if alert, ok := errors.AsType[*net.OpError](err); ok && alert.Op == "remote error" {
		return nil, fmt.Errorf("the agent refuses the client certificate of CONSUL_CLIENT_CERT; "+
			"use one that the agent's CA (ca_file) has signed and that has not expired: %w", err)
	}
	return nil, err
}

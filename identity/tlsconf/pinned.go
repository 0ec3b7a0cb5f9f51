package tlsconf

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/hauberk-mesh/hauberk/identity/spiffe"
	"github.com/hauberk-mesh/hauberk/identity/svid"
	"github.com/hauberk-mesh/hauberk/identity/trust"
	"github.com/hauberk-mesh/hauberk/identity/verify"
)

// PinnedParams are the parameters of PinnedClient.
type PinnedParams struct {
	// Pin is of the key of a signer, which the server sends behind its leaf. The
	// leaf's own key changes more often than a token lives.
	Pin trust.Pin
	// TrustDomain, when it is not zero, must be the signer's.
	TrustDomain spiffeid.TrustDomain
	ALPN        []string
	ServerName  string
	Now         func() time.Time
}

// PinnedClient builds the configuration by which a joiner, which trusts nobody
// yet, meets a control plane. The connection comes to be only if the server
// proves, by every rule that a peer is held to, an identity under
// /hauberk/controlplane/ that the pinned key has signed. The client presents
// nothing, and no byte of the token leaves before Handshake has returned nil.
func PinnedClient(p PinnedParams) (*tls.Config, error) {
	if p.Pin.IsZero() {
		return nil, errors.New("tls: the pin of the control plane's signer is missing")
	}
	now := p.Now
	if now == nil {
		now = time.Now
	}
	cfg := base(false, p.ALPN)
	cfg.ServerName = p.ServerName
	cfg.InsecureSkipVerify = true // VerifyConnection decides
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		if cs.DidResume {
			return errors.New("tls: a resumed session is refused")
		}
		return pinned(p, cs.PeerCertificates, now())
	}
	return cfg, nil
}

// PinError says that the server is not the one that the pin names.
type PinError struct {
	Want trust.Pin
	// Got are the pins of the server's certificates, leaf first.
	Got []trust.Pin
}

func (e *PinError) Error() string {
	got := make([]string, len(e.Got))
	for i, p := range e.Got {
		got[i] = p.String()
	}
	return fmt.Sprintf("the server's signer does not have the pinned key: the token pins %s, the server showed %s; "+
		"nothing was sent to it; check that the address is the control plane's and that nothing stands in between, "+
		"or make a new token if the control plane was set up anew", e.Want, strings.Join(got, ", "))
}

func pinned(p PinnedParams, chain []*x509.Certificate, now time.Time) error {
	var signer *x509.Certificate
	fault := &PinError{Want: p.Pin}
	for i, c := range chain {
		pin := trust.PinOf(c)
		fault.Got = append(fault.Got, pin)
		// Not the leaf: pinning it would leave its own rules unexamined.
		if i > 0 && pin == p.Pin {
			signer = c
			break
		}
	}
	if signer == nil {
		return fault
	}
	td, err := signerDomain(signer)
	if err != nil {
		return err
	}
	if !p.TrustDomain.IsZero() && td != p.TrustDomain {
		return fmt.Errorf("tls: the server is of the trust domain %s, expected %s", td, p.TrustDomain)
	}
	if err := trust.CheckSigner(td, signer); err != nil {
		return fmt.Errorf("tls: the pinned signer: %w", err)
	}
	id, err := verify.Chain(td, svid.NewAnchors(0, []*x509.Certificate{signer}), chain, now)
	if err != nil {
		return err
	}
	if who, err := spiffe.Of(id); err != nil || who.Kind != spiffe.ControlPlane {
		return &DeniedError{Peer: id, Err: errors.New("a token is given to a control plane only")}
	}
	return nil
}

// signerDomain reads the trust domain that a pinned signer names.
func signerDomain(signer *x509.Certificate) (spiffeid.TrustDomain, error) {
	if len(signer.URIs) != 1 {
		return spiffeid.TrustDomain{}, errors.New("tls: the pinned signer names no trust domain")
	}
	id, err := spiffeid.FromURI(signer.URIs[0])
	if err != nil {
		return spiffeid.TrustDomain{}, fmt.Errorf("tls: the pinned signer's name: %w", err)
	}
	return id.TrustDomain(), nil
}

package identityv1

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/hauberk-mesh/hauberk/identity/svid"
	"github.com/hauberk-mesh/hauberk/identity/tlsconf"
	"github.com/hauberk-mesh/hauberk/identity/token"
	"github.com/hauberk-mesh/hauberk/identity/trust"
	"github.com/hauberk-mesh/hauberk/identity/verify"
)

// NewCSR makes a certificate request that names nothing: names come from the
// record.
func NewCSR(key crypto.Signer) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("identity: certificate request: %w", err)
	}
	return der, nil
}

// Joined is what a join gave, checked.
type Joined struct {
	SVID   *svid.SVID
	Bundle *trust.Bundle
	// Bundles are all of them, the own trust domain's included.
	Bundles []*trust.Bundle
	Record  token.Node
	// Reply is the message itself, for what the caller reads further.
	Reply *JoinResponse
	// Skew is this host's clock minus the control plane's.
	Skew time.Duration
}

// RefusedError says that a control plane has seen the token and said no: trying
// again cannot help.
type RefusedError struct{ Err error }

func (e *RefusedError) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *RefusedError) Unwrap() error { return e.Err }

// JoinWith uses a token at the first of its addresses that answers. The token's
// secret is sent only over a connection on which the server has proved the
// pinned key. td, when it is not zero, is the trust domain the caller expects.
func JoinWith(ctx context.Context, t token.Token, td spiffeid.TrustDomain, key crypto.Signer) (*Joined, error) {
	if len(t.Addresses) == 0 {
		return nil, errors.New("identity: join: the token names no control plane address")
	}
	var failures []error
	for _, address := range t.Addresses {
		joined, err := joinAt(ctx, address, t, td, key)
		if err == nil {
			return joined, nil
		}
		err = fmt.Errorf("identity: join at %s: %w", address, err)
		var refused *RefusedError
		if errors.As(err, &refused) {
			return nil, err
		}
		failures = append(failures, err)
	}
	return nil, errors.Join(failures...)
}

// joinTimeout bounds one address, so that a silent one does not hold up the next.
const joinTimeout = 15 * time.Second

func joinAt(ctx context.Context, address string, t token.Token, td spiffeid.TrustDomain, key crypto.Signer) (*Joined, error) {
	csr, err := NewCSR(key)
	if err != nil {
		return nil, err
	}
	conf, err := tlsconf.PinnedClient(tlsconf.PinnedParams{Pin: t.Pin, TrustDomain: td, ALPN: []string{"h2"}})
	if err != nil {
		return nil, err
	}
	// gRPC folds a handshake's error into its own text; the typed one is kept here.
	var handshake error
	verified := conf.VerifyConnection
	conf.VerifyConnection = func(cs tls.ConnectionState) error {
		handshake = verified(cs)
		return handshake
	}
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(credentials.NewTLS(conf)), grpc.WithDisableServiceConfig(), grpc.WithNoProxy())
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	reply, err := NewIdentityClient(conn).Join(ctx, &JoinRequest{TokenId: t.ID, Secret: t.Secret(), Csr: csr, TrustDomain: td.Name()})
	var pin *tlsconf.PinError
	switch {
	case errors.As(handshake, &pin):
		return nil, &RefusedError{handshake}
	case handshake != nil:
		return nil, handshake
	case err != nil && final(err):
		return nil, &RefusedError{errors.New(status.Convert(err).Message())}
	case err != nil:
		return nil, err
	}
	// The token is used up: from here on another address cannot help.
	joined, err := reply.check(td, key)
	if err != nil {
		return nil, &RefusedError{err}
	}
	return joined, nil
}

// final says whether a status is the server's verdict on the request.
func final(err error) bool {
	switch status.Code(err) {
	case codes.PermissionDenied, codes.InvalidArgument, codes.FailedPrecondition, codes.Unauthenticated, codes.Unimplemented, codes.Internal:
		return true
	}
	return false
}

// check takes nothing of a reply on trust that can be verified: the SVID is for
// the key, for a name of the record's role, and verifies with the bundle.
func (r *JoinResponse) check(td spiffeid.TrustDomain, key crypto.Signer) (*Joined, error) {
	out := &Joined{Reply: r, Skew: Skew(r.GetServerTime(), time.Now())}
	chain, err := ParseChain(r.GetChain())
	if err != nil {
		return nil, err
	}
	if out.SVID, err = svid.New(chain, key); err != nil {
		return nil, err
	}
	own := out.SVID.ID.TrustDomain()
	if !td.IsZero() && own != td {
		return nil, fmt.Errorf("identity: joined the trust domain %s, expected %s", own, td)
	}
	for _, wire := range r.GetBundles() {
		b, err := wire.Trust()
		if err != nil {
			return nil, err
		}
		if b.TrustDomain == own {
			out.Bundle = b
		}
		out.Bundles = append(out.Bundles, b)
	}
	if out.Bundle == nil {
		return nil, fmt.Errorf("identity: the reply has no bundle of %s", own)
	}
	if out.Record, err = r.GetRecord().Node(own); err != nil {
		return nil, err
	}
	id, err := ID(own, out.Record.Role, out.Record.Name)
	if err != nil {
		return nil, err
	}
	if id != out.SVID.ID {
		return nil, fmt.Errorf("identity: the record is for %s and the SVID for %s", id, out.SVID.ID)
	}
	if err := Check(out.SVID, out.Bundle, id, out.Skew); err != nil {
		return nil, err
	}
	return out, nil
}

// Check verifies an SVID as a peer would, before it replaces anything. The skew
// is named when it may be the reason.
func Check(s *svid.SVID, b *trust.Bundle, want spiffeid.ID, skew time.Duration) error {
	if s.ID != want {
		return fmt.Errorf("identity: the certificate is for %s, asked was %s", s.ID, want)
	}
	if _, err := verify.Chain(want.TrustDomain(), b.Anchors(), s.Chain, time.Now()); err != nil {
		return fmt.Errorf("identity: %s: %w%s", want, err, SkewNote(skew))
	}
	return nil
}

// Skew is a local time minus the server's.
func Skew(serverTime int64, now time.Time) time.Duration {
	if serverTime == 0 {
		return 0
	}
	return now.Sub(FromTime(serverTime))
}

// WarnSkew is the skew from which certificates may be refused as not yet or no
// longer valid.
const WarnSkew = 30 * time.Second

// SkewNote is what an error adds when the clock may be its cause, else nothing.
func SkewNote(skew time.Duration) string {
	if skew.Abs() < WarnSkew {
		return ""
	}
	direction := "ahead of"
	if skew < 0 {
		direction = "behind"
	}
	return fmt.Sprintf(" (this host's clock is %s %s the control plane's: set it, for example with chrony)", skew.Abs().Round(time.Second), direction)
}

package trust

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"time"

	"github.com/hauberk-mesh/hauberk/identity/internal/strictjson"
	"github.com/hauberk-mesh/hauberk/identity/spiffe"
)

// format is the version of the form on disk. A reader that meets another one
// must not guess.
const format = 1

type bundleJSON struct {
	Format      int          `json:"format"`
	TrustDomain string       `json:"trust_domain"`
	Sequence    uint64       `json:"sequence"`
	Revoked     bool         `json:"revoked,omitempty"`
	RefreshHint int64        `json:"refresh_hint_seconds,omitempty"`
	Signers     []signerJSON `json:"signers"`
}

type signerJSON struct {
	ID          string    `json:"id"`
	Owner       string    `json:"owner,omitempty"`
	State       State     `json:"state"`
	NotAfter    time.Time `json:"not_after"`
	Certificate []byte    `json:"certificate"` // DER
}

// MarshalJSON writes the form that a state directory keeps.
func (b *Bundle) MarshalJSON() ([]byte, error) {
	if err := b.Validate(); err != nil {
		return nil, err
	}
	out := bundleJSON{
		Format:      format,
		TrustDomain: b.TrustDomain.Name(),
		Sequence:    b.Sequence,
		Revoked:     b.Revoked,
		RefreshHint: int64(b.RefreshHint / time.Second),
		Signers:     []signerJSON{},
	}
	for _, s := range b.Signers {
		out.Signers = append(out.Signers, signerJSON{s.ID, s.Owner, s.State, s.NotAfter.UTC(), s.Certificate.Raw})
	}
	return json.MarshalIndent(out, "", "  ")
}

// ParseJSON reads MarshalJSON's form. Unknown and duplicate keys are refused, as
// is a bundle that has become empty without saying so.
func ParseJSON(data []byte) (*Bundle, error) {
	var in bundleJSON
	if err := strictjson.Unmarshal(data, &in); err != nil {
		return nil, fmt.Errorf("trust: bundle: %w", err)
	}
	if in.Format != format {
		return nil, fmt.Errorf("trust: bundle: format %d is unknown, this version reads %d", in.Format, format)
	}
	td, err := spiffe.TrustDomain(in.TrustDomain)
	if err != nil {
		return nil, fmt.Errorf("trust: bundle: trust_domain: %w", err)
	}
	hint, err := seconds(in.RefreshHint)
	if err != nil {
		return nil, fmt.Errorf("trust: bundle of %s: refresh_hint_seconds: %w", td, err)
	}
	b := &Bundle{TrustDomain: td, Sequence: in.Sequence, Revoked: in.Revoked, RefreshHint: hint}
	for i, s := range in.Signers {
		cert, err := x509.ParseCertificate(s.Certificate)
		if err != nil {
			return nil, fmt.Errorf("trust: bundle of %s: signers[%d].certificate: %w", td, i, err)
		}
		b.Signers = append(b.Signers, Signer{ID: s.ID, Owner: s.Owner, State: s.State, NotAfter: s.NotAfter, Certificate: cert})
	}
	if err := b.Validate(); err != nil {
		return nil, err
	}
	return b, nil
}

// maxHint keeps a hint from overflowing a Duration; nobody polls once a year.
const maxHint = 366 * 24 * 3600

func seconds(n int64) (time.Duration, error) {
	if n < 0 || n > maxHint {
		return 0, fmt.Errorf("%d seconds is not between 0 and %d", n, maxHint)
	}
	return time.Duration(n) * time.Second, nil
}

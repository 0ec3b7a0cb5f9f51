package tlscontext

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"
)

// SecretRef names a secret that is discovered (SDS): by File, which holds it and is
// watched, or else by the static cluster of the service that has it.
type SecretRef struct {
	Name          string
	File, Cluster string `json:",omitempty"`
	// Validation: a validation_context is meant, and a tls_certificate otherwise.
	Validation bool `json:",omitempty"`
}

// String names a secret and its source in messages.
func (r SecretRef) String() string {
	if r.File != "" {
		return fmt.Sprintf("secret %q of %s", r.Name, r.File)
	}
	return fmt.Sprintf("secret %q of cluster %q", r.Name, r.Cluster)
}

// Secrets are what discovery has brought. Safe for concurrent use.
type Secrets interface {
	// Usable says why a secret can never come from where it is said to be.
	Usable(SecretRef) error
	// Lookup returns the last good one, nil before there is any.
	Lookup(SecretRef) *Discovered
	// AsOf is when its source was last known to stand by it.
	AsOf(SecretRef) time.Time
}

// Discovered is a secret of either kind. It is immutable: another comes in its place.
type Discovered struct {
	Certificate *Certificate
	Validation  *Validation
}

// Check reads what a secret names, and fails where that cannot be used.
func (d *Discovered) Check() error {
	if d.Certificate != nil {
		_, err := d.Certificate.load()
		return err
	}
	_, err := load(&Common{Validation: d.Validation})
	return err
}

// CheckFor is Check, and fails where another kind of secret is meant.
func (d *Discovered) CheckFor(r SecretRef) error {
	if r.Validation != (d.Validation != nil) {
		return fmt.Errorf("is no %s", r.kind())
	}
	return d.Check()
}

func (r SecretRef) kind() string {
	if r.Validation {
		return "validation_context"
	}
	return "tls_certificate"
}

// errAbsent is why there are no handshakes yet.
type errAbsent struct{ ref SecretRef }

func (e *errAbsent) Error() string { return "tls: " + e.ref.String() + " has not come yet" }

// SecretRefs are the discovered secrets that a context needs, each once.
func (c *Common) SecretRefs() []SecretRef {
	var out []SecretRef
	for i := range c.Certificates {
		if r := c.Certificates[i].Secret; r != nil {
			out = append(out, *r)
		}
	}
	if v := c.Validation; v != nil && v.Secret != nil {
		out = append(out, *v.Secret)
	}
	slices.SortFunc(out, func(a, b SecretRef) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.File, b.File), cmp.Compare(a.Cluster, b.Cluster))
	})
	return slices.Compact(out)
}

// resolve puts discovered secrets in their places. The second result are those it used,
// by which a later look tells whether there are others.
func (c *Common) resolve(secrets Secrets) (*Common, []*Discovered, error) {
	if len(c.SecretRefs()) == 0 {
		return c, nil, nil
	}
	out := *c
	out.Certificates = slices.Clone(c.Certificates)
	var used []*Discovered
	find := func(r SecretRef, ofKind func(*Discovered) bool, kind string) (*Discovered, error) {
		d := secrets.Lookup(r)
		switch {
		case d == nil:
			return nil, &errAbsent{r}
		case !ofKind(d):
			return nil, fmt.Errorf("%s is no %s", r, kind)
		}
		used = append(used, d)
		return d, nil
	}
	for i := range out.Certificates {
		r := out.Certificates[i].Secret
		if r == nil {
			continue
		}
		d, err := find(*r, func(d *Discovered) bool { return d.Certificate != nil }, "tls_certificate")
		if err != nil {
			return nil, nil, err
		}
		out.Certificates[i] = *d.Certificate
	}
	if v := c.Validation; v != nil && v.Secret != nil {
		d, err := find(*v.Secret, func(d *Discovered) bool { return d.Validation != nil }, "validation_context")
		if err != nil {
			return nil, nil, err
		}
		out.Validation = v.Merge(d.Validation)
		if field, reason := out.Validation.Unverified(); reason != "" {
			return nil, nil, fmt.Errorf("%s: %s %s", v.Secret, field, reason)
		}
	}
	return &out, used, nil
}

// DefaultDepth of a chain is the TLS library's own in Envoy.
const DefaultDepth = 100

// Merge puts a secret's validation context over v, the default one, as messages are
// merged: what the secret sets wins, and lists are joined. v may be nil.
func (v *Validation) Merge(secret *Validation) *Validation {
	if v == nil {
		return secret
	}
	out := *v
	out.Secret = secret.Secret
	if !secret.CA.Empty() {
		out.CA = secret.CA
	}
	out.SystemRoots = v.SystemRoots || secret.SystemRoots
	if len(secret.TrustDomains) > 0 {
		out.TrustDomains = secret.TrustDomains
	}
	if !secret.CRL.Empty() {
		out.CRL = secret.CRL
	}
	if secret.MaxDepth != DefaultDepth {
		out.MaxDepth = secret.MaxDepth
	}
	out.LeafCRLOnly = v.LeafCRLOnly || secret.LeafCRLOnly
	out.AcceptUntrusted = v.AcceptUntrusted || secret.AcceptUntrusted
	out.HideCA = v.HideCA || secret.HideCA
	out.Names = slices.Concat(v.Names, secret.Names)
	out.SPKI = slices.Concat(v.SPKI, secret.SPKI)
	out.Hash = slices.Concat(v.Hash, secret.Hash)
	return &out
}

// Unverified says by which field a context says less than it seems to, and why; two
// empty texts where it does not. Names count for nothing on a certificate that anybody
// may have made. What a secret may still add is not missing.
func (v *Validation) Unverified() (field, reason string) {
	authority := !v.CA.Empty() || v.SystemRoots
	anchored := authority || len(v.TrustDomains) > 0
	switch {
	case authority && len(v.TrustDomains) > 0:
		return "custom_validator_config", "has trust domains of its own; remove trusted_ca and system_root_certs"
	case v.AcceptUntrusted || v.Secret != nil:
		return "", ""
	case !anchored && len(v.Names) > 0:
		return "", "checks names without a trusted_ca, which anyone could satisfy"
	case !anchored && !v.CRL.Empty():
		return "crl", "needs a trusted_ca"
	case !anchored && len(v.SPKI)+len(v.Hash) == 0:
		return "trusted_ca", "is missing: nothing would be verified"
	}
	return "", ""
}

// usable says why a context's secrets could never come.
func (c *Common) usable(secrets Secrets) error {
	for _, r := range c.SecretRefs() {
		if secrets == nil {
			return fmt.Errorf("tls: %s: there is nothing that discovers secrets", r)
		}
		if err := secrets.Usable(r); err != nil {
			return fmt.Errorf("tls: %s: %w", r, err)
		}
	}
	return nil
}

// absent tells whether an error is that a secret has not come yet.
func absent(err error) bool {
	var e *errAbsent
	return errors.As(err, &e)
}

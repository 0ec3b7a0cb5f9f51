package tlscontext

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// revocations is a certificate revocation list (RFC 5280 5) as handshakes ask it.
type revocations struct {
	list *x509.RevocationList // without its entries
	// at is when each serial number was revoked.
	at map[string]time.Time
	// unusable says why no certificate's status may be read from the list.
	unusable string
	scope    scope
}

// scope is what an issuing distribution point leaves of a list's issuer's
// certificates (RFC 5280 5.2.5); the zero value leaves all.
type scope struct {
	users, authorities, attributes bool // only those
	// partial is set where the certificates must name one of points, which are URIs.
	partial bool
	points  []string
}

var (
	oidDelta             = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidDistributionPoint = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidAuthorityKey      = asn1.ObjectIdentifier{2, 5, 29, 35}
)

// compileRevocations reads what handshakes ask. A list that says what is not understood is kept, and
// vouches for nobody (RFC 5280 5.2, 5.3): those whose status only it could tell are
// refused.
func compileRevocations(l *x509.RevocationList) *revocations {
	out := &revocations{at: make(map[string]time.Time, len(l.RevokedCertificateEntries))}
	out.list = &x509.RevocationList{
		RawTBSRevocationList: l.RawTBSRevocationList, RawIssuer: l.RawIssuer, Signature: l.Signature, SignatureAlgorithm: l.SignatureAlgorithm,
		Number: l.Number, ThisUpdate: l.ThisUpdate, NextUpdate: l.NextUpdate,
	}
	for _, e := range l.RevokedCertificateEntries {
		out.at[e.SerialNumber.String()] = e.RevocationTime
		for _, x := range e.Extensions {
			if x.Critical {
				out.unusable = fmt.Sprintf("its entry of serial %x has the critical extension %s", e.SerialNumber, x.Id)
			}
		}
	}
	for _, x := range l.Extensions {
		switch {
		case x.Id.Equal(oidDelta):
			out.unusable = "it is a delta, which has only what changed"
		case x.Id.Equal(oidDistributionPoint):
			var err error
			if out.scope, err = parseScope(x.Value); err != nil {
				out.unusable = err.Error()
			}
		case x.Critical && !x.Id.Equal(oidAuthorityKey):
			out.unusable = fmt.Sprintf("it has the critical extension %s, which is not read", x.Id)
		}
	}
	return out
}

// parseScope reads an IssuingDistributionPoint.
func parseScope(der []byte) (s scope, err error) {
	var point struct {
		Name        asn1.RawValue  `asn1:"optional,tag:0"`
		Users       bool           `asn1:"optional,tag:1"`
		Authorities bool           `asn1:"optional,tag:2"`
		Reasons     asn1.BitString `asn1:"optional,tag:3"`
		Indirect    bool           `asn1:"optional,tag:4"`
		Attributes  bool           `asn1:"optional,tag:5"`
	}
	if rest, err := asn1.Unmarshal(der, &point); err != nil || len(rest) > 0 {
		return s, errors.New("its issuing distribution point cannot be read")
	}
	switch {
	case point.Indirect:
		return s, errors.New("it has certificates of other issuers (an indirect list)")
	case point.Reasons.BitLength > 0 || len(point.Reasons.Bytes) > 0:
		return s, errors.New("it has only certificates that were revoked for some reasons")
	}
	s = scope{users: point.Users, authorities: point.Authorities, attributes: point.Attributes}
	if s.partial = len(point.Name.FullBytes) > 0; s.partial {
		s.points, err = uris(point.Name.Bytes)
	}
	return s, err
}

// uris are those of a DistributionPointName, which may hold none.
func uris(der []byte) (out []string, err error) {
	var name, one asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &name); err != nil || len(rest) > 0 || name.Class != asn1.ClassContextSpecific {
		return nil, errors.New("the name of its issuing distribution point cannot be read")
	}
	if name.Tag != 0 {
		return nil, nil // relative to its issuer's name
	}
	for rest := name.Bytes; len(rest) > 0; {
		if rest, err = asn1.Unmarshal(rest, &one); err != nil {
			return nil, errors.New("the name of its issuing distribution point cannot be read")
		}
		if one.Class == asn1.ClassContextSpecific && one.Tag == 6 { // RFC 5280 4.2.1.6
			out = append(out, string(one.Bytes))
		}
	}
	return out, nil
}

// silent says why the list tells nothing of a certificate of its issuer; empty where it
// does tell.
func (r *revocations) silent(c *x509.Certificate) string {
	ca := c.BasicConstraintsValid && c.IsCA
	switch {
	case r.unusable != "":
		return r.unusable
	case r.scope.attributes:
		return "it has attribute certificates only"
	case r.scope.users && (ca || r.scope.authorities):
		return "it has end entities' certificates only"
	case r.scope.authorities && !ca:
		return "it has authorities' certificates only"
	case r.scope.partial && !slices.ContainsFunc(r.scope.points, func(p string) bool { return slices.Contains(c.CRLDistributionPoints, p) }):
		return "it is of a distribution point that the certificate does not name"
	}
	return ""
}

// valid tells whether the list is one of now.
func (r *revocations) valid(now time.Time) bool {
	return !now.Before(r.list.ThisUpdate) && (r.list.NextUpdate.IsZero() || !now.After(r.list.NextUpdate))
}

// revocation looks a certificate up in the newest list of its issuer, which there must be
// (RFC 5280 6.3.3). Of several lists one that is newer counts too when it is not valid
// now: what it names was revoked.
func (v *verifier) revocation(crls []*revocations, c, issuer *x509.Certificate) error {
	var newest *revocations
	var telling []*revocations
	var passed []string
	now := v.now()
	for _, r := range crls {
		if !bytes.Equal(r.list.RawIssuer, issuer.RawSubject) || r.list.CheckSignatureFrom(issuer) != nil {
			continue
		}
		if why := r.silent(c); why != "" {
			passed = append(passed, r.name()+": "+why)
			continue
		}
		telling = append(telling, r)
		if !r.valid(now) {
			passed = append(passed, fmt.Sprintf("%s: it is not valid now, but until %s", r.name(), r.list.NextUpdate.UTC().Format(time.RFC3339)))
		} else if newest == nil || r.list.ThisUpdate.After(newest.list.ThisUpdate) {
			newest = r
		}
	}
	if newest == nil {
		if len(passed) == 0 {
			return fmt.Errorf("there is no revocation list of %q, which issued %q", issuer.Subject, c.Subject)
		}
		return fmt.Errorf("no revocation list of %q tells whether %q, which it issued, is revoked: %s", issuer.Subject, c.Subject, strings.Join(passed, "; "))
	}
	serial := c.SerialNumber.String()
	for _, r := range telling {
		if at, ok := r.at[serial]; ok && !r.list.ThisUpdate.Before(newest.list.ThisUpdate) {
			return fmt.Errorf("%q, serial %x, was revoked at %s", c.Subject, c.SerialNumber, at)
		}
	}
	return nil
}

// name is the list for people.
func (r *revocations) name() string {
	from := r.list.ThisUpdate.UTC().Format(time.RFC3339)
	if r.list.Number == nil {
		return "the one of " + from
	}
	return fmt.Sprintf("number %d of %s", r.list.Number, from)
}

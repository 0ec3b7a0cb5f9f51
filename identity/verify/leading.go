package verify

import (
	"bytes"
	"crypto/x509"
	"slices"
	"time"
)

const (
	// fewSent are searched as they are: a stranger's key is tried once then, and the usual chain costs no more.
	fewSent = 1
	// mostTried bounds the signatures that are looked at below the anchors.
	mostTried = 64
)

// Leading returns of the certificates that a peer sent behind its own those that the anchors vouch for,
// or others of them that they vouch for, and all where they are few. between are authorities that the
// configuration has besides, which are not asked who vouches for them.
//
// The library searches from the peer's own certificate upwards. A stranger's that have signed one another have it
// look at a hundred signatures, by keys that the stranger has chosen for what they cost (P-521: 0.4 s for all), before
// it finds that they lead nowhere. From the anchors downwards no key is used that nobody vouches for.
func Leading(sent []*x509.Certificate, roots *x509.CertPool, between []*x509.Certificate, now time.Time) []*x509.Certificate {
	if len(sent) <= fewSent {
		return sent
	}
	var out []*x509.Certificate
	tried, rest := 0, slices.Clone(sent)
	take := func(vouches func(c *x509.Certificate) bool) {
		rest = slices.DeleteFunc(rest, func(c *x509.Certificate) bool {
			if tried == mostTried || !vouches(c) {
				return false
			}
			out = append(out, c)
			return true
		})
	}
	take(func(c *x509.Certificate) bool {
		tried++
		_, err := c.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
		return err == nil
	})
	below := func(by *x509.Certificate) {
		take(func(c *x509.Certificate) bool {
			if !bytes.Equal(c.RawIssuer, by.RawSubject) {
				return false
			}
			tried++
			return c.CheckSignatureFrom(by) == nil
		})
	}
	for _, by := range between {
		below(by)
	}
	for i := 0; i < len(out); i++ { // which grows meanwhile
		below(out[i])
	}
	return out
}

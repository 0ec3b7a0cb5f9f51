package verify

import (
	"fmt"
	"time"
)

// Rule is the number of the requirement that a chain fails. X5 rules are those
// of the SPIFFE X509-SVID specification; ID is its SPIFFE-ID document.
type Rule string

// The rules, each with its section.
const (
	// RuleID: the URI name is a SPIFFE ID (SPIFFE-ID section 2).
	RuleID Rule = "ID"
	// RuleOneURI: exactly one URI name, of any scheme (X509-SVID section 2).
	RuleOneURI Rule = "X5-01"
	// RulePath: the leaf's ID has a path (section 2; 5.2).
	RulePath Rule = "X5-02"
	// RuleNotCA: the leaf is not a CA (section 4.1). Signers authenticate nobody.
	RuleNotCA Rule = "X5-03"
	// RuleKeyUsage: key usage is present and critical (section 4.3).
	RuleKeyUsage Rule = "X5-04"
	// RuleLeafUsage: the leaf signs digitally, and signs no certificates or CRLs
	// (section 4.3).
	RuleLeafUsage Rule = "X5-05"
	// RuleExtendedUsage: extended key usage, where present, has serverAuth and
	// clientAuth (section 4.4).
	RuleExtendedUsage Rule = "X5-06"
	// RuleCriticalName: without a subject the alternative name is critical
	// (RFC 5280 section 4.1.2.6).
	RuleCriticalName Rule = "X5-07"
	// RuleSigner: a signing certificate is a CA with keyCertSign (section 4.1,
	// 4.3).
	RuleSigner Rule = "X5-08"
	// RuleSignerPath: a signing certificate's ID has no path (section 3.1).
	RuleSignerPath Rule = "X5-09"
	// RuleChain: RFC 5280 path validation against the bundle of the leaf's own
	// trust domain, and no other (section 5.1).
	RuleChain Rule = "X5-11"
)

// Error says which rule which peer fails.
type Error struct {
	Rule Rule
	// ID is the peer's SPIFFE ID as it claims it, or empty where none could be
	// read. Nothing vouches for it.
	ID  string
	Err error
}

func (e *Error) Error() string {
	id := e.ID
	if id == "" {
		id = "a peer without a readable SPIFFE ID"
	}
	return fmt.Sprintf("verify %s: %v (rule %s)", id, e.Err, e.Rule)
}

// Unwrap gives the cause, a *TimeError among others.
func (e *Error) Unwrap() error { return e.Err }

// TimeError is the cause when a certificate of the chain is not valid now.
type TimeError struct {
	// What is the certificate: "the certificate", or "the signer NAME".
	What                     string
	Now, NotBefore, NotAfter time.Time
}

func (e *TimeError) Error() string {
	what := e.What
	if what == "" {
		what = "the certificate"
	}
	if e.Now.Before(e.NotBefore) {
		return fmt.Sprintf("%s is not yet valid for another %s: check the clocks of both hosts (it is valid from %s, the clock here says %s)",
			what, rounded(e.NotBefore.Sub(e.Now)), stamp(e.NotBefore), stamp(e.Now))
	}
	return fmt.Sprintf("%s expired %s ago: check that the peer renews its identity, and the clocks of both hosts (it was valid until %s, the clock here says %s)",
		what, rounded(e.Now.Sub(e.NotAfter)), stamp(e.NotAfter), stamp(e.Now))
}

// Skew is how far the clock is outside the certificate's validity.
func (e *TimeError) Skew() time.Duration {
	if e.Now.Before(e.NotBefore) {
		return e.NotBefore.Sub(e.Now)
	}
	return e.Now.Sub(e.NotAfter)
}

// rounded never says 0s: a certificate that is out by a moment is still out.
func rounded(d time.Duration) time.Duration { return max(d.Round(time.Second), time.Second) }

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Package ca is the built-in certificate authority of one control plane.
//
// Each control plane has signers of its own, whose certificates are the trust
// anchors themselves: there is no root above them, and no private key is shared
// between hosts. The bundle is the set of all control planes' signers; a signer
// is in it, everywhere, before it signs.
//
// The state directory, 0700, holds:
//
//	authority.json   whose it is
//	signers/         own signers: KEY.key (PKCS#8, 0600) and KEY.crt
//	bundle.json      the signers of all control planes
//	issued.jsonl     the journal: one line for each certificate issued
//	issued-….jsonl   older parts of it
//	lock             held by the process that has the CA open
//
// Other packages keep their files beside these.
package ca

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/hauberk-mesh/hauberk/identity/trust"
)

// Config is how a CA is opened.
type Config struct {
	// Dir is the state directory, 0700 and owned by the process's user.
	Dir         string
	TrustDomain spiffeid.TrustDomain
	// ControlPlane is this control plane's id, the owner of its signers.
	ControlPlane string
	// Joining is set on a control plane that another one admits: its signer does
	// not sign before a merged bundle holds it and Activate is called. It
	// matters at creation only; the directory remembers.
	Joining bool
	// SignerTTL is how long a new signer lives; one year when zero.
	SignerTTL time.Duration
	// LeafTTL is the life of an SVID whose request names none; 24 h when zero.
	LeafTTL time.Duration
	// MaxLeafTTL bounds what a request may name; LeafTTL when zero.
	MaxLeafTTL time.Duration
	// JournalSync is how long a journal line may wait for fsync; one second
	// when zero, negative for every line before its certificate is returned.
	JournalSync time.Duration
	Log         *slog.Logger
	// Now is the clock; time.Now when nil.
	Now func() time.Time
}

const (
	defaultSignerTTL = 365 * 24 * time.Hour
	defaultLeafTTL   = 24 * time.Hour
	// backdate allows for clocks that are behind ours.
	backdate = 2 * time.Minute
	// minLeafTTL keeps a certificate from expiring on its way.
	minLeafTTL = time.Minute
)

// Errors that callers tell apart.
var (
	// ErrNotActive: no own signer may sign yet.
	ErrNotActive = errors.New("this control plane's signer is not active")
	// ErrExpired: the own signer was active, and is at its end; it is ErrNotActive too.
	ErrExpired = errors.New("expired")
	// ErrRequest: the request is at fault, and repeating it will not help.
	ErrRequest = errors.New("certificate request refused")
)

// CA signs SVIDs and keeps the bundle of all control planes' signers. All
// methods may be called concurrently.
type CA struct {
	cfg     Config
	lock    *os.File
	journal *journal

	mu      sync.RWMutex
	own     map[string]key // own signers by signer ID
	bundle  *trust.Bundle  // nil on a joining control plane until the first merge
	changed chan struct{}
}

// key is an own signer with what signs.
type key struct {
	cert   *x509.Certificate
	signer crypto.Signer
}

func (c Config) withDefaults() (Config, error) {
	if c.TrustDomain.IsZero() {
		return c, errors.New("no trust domain")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.SignerTTL == 0 {
		c.SignerTTL = defaultSignerTTL
	}
	if c.LeafTTL == 0 {
		c.LeafTTL = defaultLeafTTL
	}
	if c.MaxLeafTTL == 0 {
		c.MaxLeafTTL = c.LeafTTL
	}
	if c.JournalSync == 0 {
		c.JournalSync = time.Second
	}
	switch {
	case c.LeafTTL < minLeafTTL:
		return c, fmt.Errorf("the leaf lifetime %s is under %s", c.LeafTTL, minLeafTTL)
	case c.MaxLeafTTL < c.LeafTTL:
		return c, fmt.Errorf("the longest leaf lifetime %s is under the default one %s", c.MaxLeafTTL, c.LeafTTL)
	case c.SignerTTL < 6*c.MaxLeafTTL:
		// Under six, signers overlap so long that rotation never ends.
		return c, fmt.Errorf("the signer lifetime %s is under six times the longest leaf lifetime %s", c.SignerTTL, c.MaxLeafTTL)
	}
	return c, nil
}

// Close syncs the journal and releases the directory.
func (c *CA) Close() error {
	return errors.Join(c.journal.close(), c.lock.Close())
}

// Bundle returns the signers of all control planes; nil on a joining control
// plane that has not merged one yet.
func (c *CA) Bundle() *trust.Bundle {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.bundle
}

// Changed returns a channel closed at the bundle's next change. Take it before
// Bundle: then no change falls between them.
func (c *CA) Changed() <-chan struct{} {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.changed
}

// Signers returns this control plane's own signers, with the states that the
// bundle gives them; one that is in no bundle yet is prepared.
func (c *CA) Signers() []trust.Signer {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var out []trust.Signer
	for id, k := range c.own {
		s := trust.NewSigner(k.cert, c.cfg.ControlPlane, trust.Prepared)
		if c.bundle != nil {
			if in, ok := c.bundle.Signer(id); ok {
				s = in
			}
		}
		out = append(out, s)
	}
	sortSigners(out)
	return out
}

// Pin is the pin of the signer that signs now, for join tokens.
func (c *CA) Pin() (trust.Pin, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	k, err := c.signing()
	if err != nil {
		return trust.Pin{}, fmt.Errorf("ca: %w", err)
	}
	return trust.PinOf(k.cert), nil
}

// signing returns the own active signer. The caller holds mu.
func (c *CA) signing() (key, error) {
	if c.bundle == nil {
		return key{}, fmt.Errorf("%w: it has not been admitted to the trust domain %s yet", ErrNotActive, c.cfg.TrustDomain)
	}
	now := c.cfg.Now()
	var best, before *trust.Signer
	state := "not in the bundle"
	for _, s := range c.bundle.Signers {
		if _, mine := c.own[s.ID]; !mine {
			continue
		}
		if s.State != trust.Active {
			state = string(s.State)
		} else if best == nil || s.NotAfter.After(best.NotAfter) {
			best = &s
		}
		if s.State == trust.Retired && !now.Before(s.Certificate.NotBefore) && !now.After(s.NotAfter) && (before == nil || s.NotAfter.After(before.NotAfter)) {
			before = &s
		}
	}
	switch {
	case best == nil:
		return key{}, fmt.Errorf("%w: it is %s", ErrNotActive, state)
	case now.After(best.NotAfter):
		return key{}, fmt.Errorf("%w: signer %s %w at %s, and the clock here says %s", ErrNotActive, best.ID, ErrExpired, rfc3339(best.NotAfter), rfc3339(now))
	case !now.Before(best.Certificate.NotBefore):
		return c.own[best.ID], nil
	case before != nil:
		// The clock was ahead when the active one was made, and has been set since. Everybody
		// verifies with the one before it as long as it lives.
		return c.own[before.ID], nil
	}
	return key{}, fmt.Errorf("%w: signer %s is not valid before %s, and the clock here says %s", ErrNotActive, best.ID, rfc3339(best.Certificate.NotBefore), rfc3339(now))
}

func rfc3339(t time.Time) string { return t.UTC().Format(time.RFC3339) }

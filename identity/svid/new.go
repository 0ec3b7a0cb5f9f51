package svid

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// New joins a chain, leaf first, with its key. It checks that the key is the
// leaf's and that the leaf names exactly one SPIFFE ID; whether a peer would
// accept the chain is for package verify to say.
func New(chain []*x509.Certificate, key crypto.Signer) (*SVID, error) {
	if len(chain) == 0 {
		return nil, errors.New("svid: no certificate")
	}
	leaf := chain[0]
	if len(leaf.URIs) != 1 {
		return nil, fmt.Errorf("svid: the certificate with serial %x has %d URI names, an SVID has exactly one", leaf.SerialNumber, len(leaf.URIs))
	}
	id, err := spiffeid.FromURI(leaf.URIs[0])
	if err != nil {
		return nil, fmt.Errorf("svid: %q is not a SPIFFE ID: %w", leaf.URIs[0], err)
	}
	if key == nil {
		return nil, fmt.Errorf("svid: %s: no private key", id)
	}
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(leaf.PublicKey) {
		return nil, fmt.Errorf("svid: %s: the private key does not belong to the certificate with serial %x", id, leaf.SerialNumber)
	}
	raw := make([][]byte, len(chain))
	for i, c := range chain {
		raw[i] = c.Raw
	}
	return &SVID{
		ID:    id,
		Chain: chain,
		Key:   key,
		TLS:   &tls.Certificate{Certificate: raw, PrivateKey: key, Leaf: leaf},
	}, nil
}

// Own returns the identity called id, or the default one when id is empty.
func (s *Snapshot) Own(id string) (*SVID, bool) {
	if id == "" {
		id = s.Default
	}
	own, ok := s.SVIDs[id]
	return own, ok
}

// Holder is a Source whose owner replaces the snapshot.
type Holder struct {
	mu      sync.Mutex // serialises Set
	current atomic.Pointer[state]
}

// state couples a snapshot with the channel that its replacement closes, so
// that a reader cannot miss a change between the two calls for long.
type state struct {
	snapshot *Snapshot
	changed  chan struct{}
}

// NewHolder starts with snapshot, or with an empty one when it is nil.
func NewHolder(snapshot *Snapshot) *Holder {
	if snapshot == nil {
		snapshot = &Snapshot{}
	}
	h := &Holder{}
	h.current.Store(&state{snapshot: snapshot, changed: make(chan struct{})})
	return h
}

// Snapshot implements Source.
func (h *Holder) Snapshot() *Snapshot { return h.current.Load().snapshot }

// Changed implements Source. Take the channel before the snapshot: then no
// change falls between them.
func (h *Holder) Changed() <-chan struct{} { return h.current.Load().changed }

// Set replaces the snapshot. The version is the holder's to give: it is set to
// one more than the predecessor's, on a copy.
func (h *Holder) Set(next *Snapshot) {
	h.mu.Lock()
	defer h.mu.Unlock()
	old := h.current.Load()
	numbered := *next
	numbered.Version = old.snapshot.Version + 1
	h.current.Store(&state{snapshot: &numbered, changed: make(chan struct{})})
	close(old.changed)
}

package sidecar

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/hauberk-mesh/hauberk/identity/svid"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// watchIdentity acts on what an identity change takes away. New handshakes read
// the new snapshot by themselves; an established connection whose identity is
// withdrawn has to be found and closed.
func (s *Sidecar) watchIdentity(ctx context.Context) {
	old := &svid.Snapshot{}
	for {
		changed := s.identity.Changed()
		now := s.identity.Snapshot()
		s.identityChanged(old, now)
		old = now
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Sidecar) identityChanged(old, now *svid.Snapshot) {
	for id, own := range now.SVIDs {
		s.metrics.SVIDNotAfter.With(id).Set(float64(own.Leaf().NotAfter.Unix()))
		if before := old.SVIDs[id]; before != nil && before.Leaf().SerialNumber.Cmp(own.Leaf().SerialNumber) != 0 {
			s.metrics.Rotations.With("svid", "ok").Inc(0)
		}
	}
	for id := range old.SVIDs {
		if now.SVIDs[id] != nil {
			continue
		}
		s.metrics.SVIDNotAfter.Delete(id)
		in := s.listeners.CloseConns(func(workload string, info *stream.Info) bool {
			return workload == id || info.OwnID == id
		}, "identity_withdrawn")
		out := s.clusters.CloseConns(func(source string, info *stream.Info) bool {
			return source == id || info.OwnID == id
		})
		s.log.Warn("identity withdrawn", "src_id", id, "connections_closed", in+out)
	}
	for td, before := range old.Bundles {
		if after := now.Bundles[td]; after != nil && len(after.Certificates) > 0 {
			if before.Sequence != after.Sequence {
				s.metrics.Rotations.With("bundle", "ok").Inc(0)
			}
			s.signersWithdrawn(td, before, after)
			continue
		}
		if len(before.Certificates) == 0 {
			continue
		}
		prefix := "spiffe://" + td + "/"
		in := s.listeners.CloseConns(func(_ string, info *stream.Info) bool {
			return strings.HasPrefix(info.PeerID, prefix)
		}, "trust_withdrawn")
		out := s.clusters.CloseConns(func(_ string, info *stream.Info) bool { return strings.HasPrefix(info.PeerID, prefix) })
		s.log.Warn("trust domain is no longer trusted", "peer", td, "connections_closed", in+out)
	}
}

// signersWithdrawn closes the connections that peers opened with SVIDs of signers
// which a bundle no longer has.
func (s *Sidecar) signersWithdrawn(td string, before, after *svid.Anchors) {
	gone := signersGone(before, after, time.Now())
	if len(gone) == 0 {
		return
	}
	match := func(_ string, info *stream.Info) bool { return signedBy(info, td, gone) }
	in := s.listeners.CloseConns(match, "signer_withdrawn")
	out := s.clusters.CloseConns(func(source string, info *stream.Info) bool { return match(source, info) })
	s.log.Warn("a signer is no longer trusted", "peer", td, "signers", len(gone), "connections_closed", in+out)
}

// signersGone are the keys that sign no longer. A signer whose own certificate has
// expired is none of them: it may have been dropped for just that, and expiry ends no
// TCP connection. Nor is one whose key goes on with another certificate.
func signersGone(before, after *svid.Anchors, now time.Time) map[string]bool {
	gone := map[string]bool{}
	for _, c := range before.Certificates {
		if !now.After(c.NotAfter) {
			gone[stream.SignerKey(c)] = true
		}
	}
	for _, c := range after.Certificates {
		delete(gone, stream.SignerKey(c))
	}
	return gone
}

// signedBy tells whether one of the signers vouched for a peer of the trust domain. That
// the peer's own certificate has expired since excuses nothing: who stole a signer's key
// chooses how long its certificates live. A peer whose signer is not known may be of any.
func signedBy(info *stream.Info, td string, signers map[string]bool) bool {
	return strings.HasPrefix(info.PeerID, "spiffe://"+td+"/") && (info.PeerSigner == "" || signers[info.PeerSigner])
}

// missing are the identities that listeners name and nobody has issued.
func (s *Sidecar) missing() []string {
	if s.identity == nil {
		return nil
	}
	snap := s.identity.Snapshot()
	var out []string
	for _, id := range s.state.named() {
		own := snap.SVIDs[id]
		switch {
		case own == nil:
			out = append(out, "no SVID for "+id)
		case time.Now().After(own.Leaf().NotAfter):
			out = append(out, fmt.Sprintf("the SVID of %s expired at %s", id, own.Leaf().NotAfter.UTC().Format(time.RFC3339)))
		}
	}
	return out
}

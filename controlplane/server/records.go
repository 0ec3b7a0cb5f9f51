package server

import (
	"context"

	identityserver "github.com/hauberk-mesh/hauberk/identity/server"
	"github.com/hauberk-mesh/hauberk/identity/spiffe"
	"github.com/hauberk-mesh/hauberk/identity/token"
)

// records answers what a node may be from the join records.
type records struct {
	identity *identityserver.Server
}

// Permitted implements nodeRecords.
func (r *records) Permitted(node string) ([]string, bool) {
	n, ok := r.identity.Node(token.RoleNode, node)
	if !ok || n.Banned {
		return nil, false
	}
	ids := make([]string, 0, len(n.Permitted))
	for _, p := range n.Permitted {
		ids = append(ids, p.ID.String())
	}
	return ids, true
}

// closeWithdrawn ends the xDS streams of nodes whose record changed: a view is
// opened with what the node may be, so a node with a new record has to open a
// new one, and a banned node cannot.
func (s *Server) closeWithdrawn(ctx context.Context) error {
	known := s.revisions()
	for {
		changed := s.identity.NodesChanged()
		now := s.revisions()
		for name, rev := range known {
			if now[name] == rev {
				continue
			}
			if id, err := spiffe.ForNode(s.cfg.TrustDomain, name); err == nil {
				if n := s.ads.Kick(id.String()); n > 0 {
					s.log.Info("node record changed, its streams start anew", "peer", id.String())
				}
			}
		}
		known = now
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *Server) revisions() map[string]uint64 {
	out := map[string]uint64{}
	for _, n := range s.identity.ListNodes() {
		if n.Role == token.RoleNode {
			out[n.Name] = n.Revision
		}
	}
	return out
}

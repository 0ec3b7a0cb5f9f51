package server

import (
	"context"
	"errors"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/hauberk-mesh/hauberk/identity/ca"
	"github.com/hauberk-mesh/hauberk/identity/identityv1"
	"github.com/hauberk-mesh/hauberk/identity/spiffe"
	"github.com/hauberk-mesh/hauberk/identity/token"
)

// Join implements identityv1.IdentityServer.
func (s *Server) Join(_ context.Context, r *identityv1.JoinRequest) (*identityv1.JoinResponse, error) {
	if td := r.GetTrustDomain(); td != "" && td != s.cfg.TrustDomain.Name() {
		return nil, status.Errorf(codes.FailedPrecondition, "this control plane is of the trust domain %s, not of %q", s.cfg.TrustDomain, td)
	}
	// Whoever reaches the port can ask. Without a token that is good he spends nothing of the
	// budget that those share who have one.
	if err := s.tokens.Check(r.GetTokenId(), r.GetSecret()); err != nil {
		return nil, s.joinRefused(r.GetTokenId(), err)
	}
	// Whatever can fail without the token is tried first: the token is gone once
	// it is used.
	key, err := identityv1.CSRKey(r.GetCsr())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if _, err := s.ca.Pin(); err != nil {
		return nil, s.notSigning(err)
	}
	if err := s.limits.join(); err != nil {
		return nil, err
	}
	tok, err := s.tokens.Consume(r.GetTokenId(), r.GetSecret())
	if err != nil {
		return nil, s.joinRefused(r.GetTokenId(), err)
	}
	rec := token.Node{
		Role: tok.Role, Name: tok.Name, Permitted: tok.Permitted, Key: key,
		Joined: s.now(), JoinedAt: s.cfg.ControlPlane,
	}
	if rec, err = s.record(rec); err != nil {
		return nil, err
	}
	id, err := identityv1.ID(s.cfg.TrustDomain, rec.Role, rec.Name)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	chain, err := s.handOut(r.GetCsr(), id, rec, func(now token.Node) bool { return now.Key == key })
	if err != nil {
		return nil, err
	}
	s.log.Info("joined", "peer", id.String(), "token", tok.ID)
	reply := &identityv1.JoinResponse{
		ServerTime: identityv1.Time(s.now()), Chain: chain, Bundles: s.bundles(),
		ControlPlanes: s.peers.wire(false), Record: identityv1.NewRecord(rec),
	}
	if rec.Role == token.RoleControlPlane {
		reply.State = s.state()
	}
	return reply, nil
}

// joinRefused tells who tried and failed, and the log so far as that can be read.
func (s *Server) joinRefused(tokenID string, err error) error {
	if s.limits.refusals.Allow() {
		s.log.Warn("join refused", "token", tokenID, "err", err)
	}
	return status.Errorf(codes.PermissionDenied, "%v", err)
}

// record stores what a token grants. A token made before a ban does not lift it.
func (s *Server) record(rec token.Node) (token.Node, error) {
	old, ok := s.nodes.Get(rec.Role, rec.Name)
	if ok && old.Banned {
		return token.Node{}, status.Errorf(codes.PermissionDenied, "%s %q is banned: %s", rec.Role, rec.Name, old.BanReason)
	}
	rec.Revision = old.Revision
	stored, err := s.nodes.Put(rec)
	if err != nil {
		s.log.Error("storing a record failed", "peer", rec.Name, "err", err)
		return token.Node{}, status.Errorf(codes.Internal, "the record of %s %q could not be stored", rec.Role, rec.Name)
	}
	return stored, nil
}

// errSame leaves a record as it is. A new revision would wake every node and control plane, and
// end the node's streams.
var errSame = errors.New("nothing changes")

// Renew implements identityv1.IdentityServer.
func (s *Server) Renew(ctx context.Context, r *identityv1.RenewRequest) (*identityv1.RenewResponse, error) {
	who, ok := PeerFrom(ctx)
	if !ok {
		return nil, errNobody
	}
	if err := s.limits.caller(who.ID.String()); err != nil {
		return nil, err
	}
	key, err := identityv1.CSRKey(r.GetCsr())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if _, err := s.ca.Pin(); err != nil {
		return nil, s.notSigning(err)
	}
	var same token.Node
	rec, err := s.nodes.Update(who.role(), who.Name, func(rec *token.Node) error {
		switch {
		case rec.Banned:
			return status.Errorf(codes.PermissionDenied, "%s is banned: %s", who.ID, rec.BanReason)
		case rec.Key == key:
			// The CSR is the proof, whatever key the SVID has.
			same = *rec
			return errSame
		case rec.Key == who.Key:
			if err := s.limits.rotation(who.ID.String()); err != nil {
				return err
			}
			rec.Key = key
			s.auth.rekeyed(who, key)
		default:
			return status.Errorf(codes.PermissionDenied, "neither this certificate of %s nor its request has the key on record: it joined again elsewhere", who.ID)
		}
		return nil
	})
	switch {
	case errors.Is(err, errSame):
		rec = same
	case err != nil:
		return nil, asStatus(err)
	}
	at := identityv1.Time(s.now())
	chain, err := s.handOut(r.GetCsr(), who.ID, rec, func(now token.Node) bool { return now.Key == key })
	if err != nil {
		return nil, err
	}
	return &identityv1.RenewResponse{ServerTime: at, Chain: chain, Record: identityv1.NewRecord(rec)}, nil
}

// IssueWorkload implements identityv1.IdentityServer.
func (s *Server) IssueWorkload(ctx context.Context, r *identityv1.IssueWorkloadRequest) (*identityv1.IssueWorkloadResponse, error) {
	who, ok := PeerFrom(ctx)
	if !ok {
		return nil, errNobody
	}
	if err := s.limits.caller(who.ID.String()); err != nil {
		return nil, err
	}
	id, err := spiffe.Parse(r.GetSpiffeId())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	rec, ok := s.nodes.Get(token.RoleNode, who.Name)
	if !ok || !permits(rec, id.ID) {
		s.log.Warn("workload SVID refused", "peer", who.ID.String(), "src_id", id.ID.String())
		return nil, status.Errorf(codes.PermissionDenied, "node %q may not be %s: its record does not permit it (hauberk token create fixes what a node may be)", who.Name, id.ID)
	}
	if _, err := identityv1.CSRKey(r.GetCsr()); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	at := identityv1.Time(s.now())
	chain, err := s.handOut(r.GetCsr(), id.ID, rec, func(now token.Node) bool { return now.Key == rec.Key && permits(now, id.ID) })
	if err != nil {
		return nil, err
	}
	return &identityv1.IssueWorkloadResponse{ServerTime: at, Chain: chain}, nil
}

// permits says whether a record names the ID. Reserved IDs and those of other
// trust domains are nobody's workload, whatever a record says.
func permits(rec token.Node, id spiffeid.ID) bool {
	if rec.Banned || spiffe.Reserved(id) {
		return false
	}
	for _, p := range rec.Permitted {
		if p.ID == id {
			return true
		}
	}
	return false
}

// handOut signs for the holder of a record, and gives what is signed only if the record as it is
// then grants it: no withdrawal or ban is acknowledged after which something is given by what
// stood there before.
func (s *Server) handOut(csr []byte, id spiffeid.ID, rec token.Node, granted func(token.Node) bool) ([][]byte, error) {
	chain, err := s.sign(csr, id, rec.Name)
	if err != nil {
		return nil, err
	}
	if now, ok := s.nodes.Get(rec.Role, rec.Name); !ok || now.Banned || !granted(now) {
		s.log.Warn("SVID not given, the record changed while it was signed", "src_id", id.String(), "role", string(rec.Role), "name", rec.Name)
		return nil, status.Errorf(codes.PermissionDenied, "no SVID for %s: the record of %s %q was changed meanwhile", id, rec.Role, rec.Name)
	}
	return chain, nil
}

func (s *Server) sign(csr []byte, id spiffeid.ID, node string) ([][]byte, error) {
	issued, err := s.ca.Issue(ca.Request{CSR: csr, ID: id, Node: node})
	if err != nil {
		s.log.Error("signing failed", "src_id", id.String(), "err", err)
		return nil, status.Errorf(codes.Unavailable, "no SVID for %s: %v", id, err)
	}
	return identityv1.Chain(issued.Chain), nil
}

func (s *Server) notSigning(err error) error {
	return status.Errorf(codes.Unavailable, "control plane %q does not sign yet, its signer is not in every bundle: use another one meanwhile (%v)", s.cfg.ControlPlane, err)
}

// errNobody is returned where the service was registered on a server without the
// Authenticator.
var errNobody = status.Error(codes.Unauthenticated, "this method requires a client certificate")

// asStatus keeps a status that an error wraps.
func asStatus(err error) error {
	var st interface{ GRPCStatus() *status.Status }
	if errors.As(err, &st) {
		return st.GRPCStatus().Err()
	}
	return status.Error(codes.Internal, err.Error())
}

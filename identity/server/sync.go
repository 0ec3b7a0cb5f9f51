package server

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/hauberk-mesh/hauberk/identity/ca"
	"github.com/hauberk-mesh/hauberk/identity/identityv1"
	"github.com/hauberk-mesh/hauberk/identity/spiffe"
	"github.com/hauberk-mesh/hauberk/identity/tlsconf"
	"github.com/hauberk-mesh/hauberk/identity/trust"
)

// AdmitControlPlane implements identityv1.IdentityServer.
func (s *Server) AdmitControlPlane(ctx context.Context, r *identityv1.AdmitControlPlaneRequest) (*identityv1.AdmitControlPlaneResponse, error) {
	who, ok := PeerFrom(ctx)
	if !ok {
		return nil, errNobody
	}
	if err := s.limits.caller(who.ID.String()); err != nil {
		return nil, err
	}
	certs, err := identityv1.ParseChain([][]byte{r.GetSigner()})
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	signer := certs[0]
	if err := trust.CheckSigner(s.cfg.TrustDomain, signer); err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "signer: %v", err)
	}
	if err := ca.CheckProof(signer, identityv1.AdmitDigest(who.ID, r.GetSigner()), r.GetProof()); err != nil {
		return nil, status.Errorf(codes.PermissionDenied, "%s has not shown that it holds the signer's key: %v", who.ID, err)
	}
	if r.GetControlPlane().GetSpiffeId() != who.ID.String() {
		return nil, status.Errorf(codes.InvalidArgument, "%s gives the entry of %q, and may give only its own", who.ID, r.GetControlPlane().GetSpiffeId())
	}
	if _, err := s.ca.Admit(signer, who.Name); err != nil {
		return nil, status.Errorf(codes.FailedPrecondition, "%v", err)
	}
	if err := s.peers.merge([]*identityv1.ControlPlane{r.GetControlPlane()}); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	s.log.Info("control plane admitted", "peer", who.ID.String(), "signer", trust.SignerID(signer))
	return &identityv1.AdmitControlPlaneResponse{ServerTime: identityv1.Time(s.now()), State: s.state()}, nil
}

// state is everything that control planes share, but the records.
func (s *Server) state() *identityv1.PeerState {
	out := &identityv1.PeerState{ServerTime: identityv1.Time(s.now()), ControlPlanes: s.peers.wire(true), Published: s.published.list()}
	out.SetBundle(s.ca.Bundle())
	return out
}

// mergeState takes in what another control plane says. Merging is commutative and
// idempotent, so that the two arrive at the same state in whatever order. What cannot be
// merged keeps nothing else from being: a ban must not wait for a signer to be mended.
func (s *Server) mergeState(state *identityv1.PeerState) error {
	var failed []error
	for _, wire := range state.GetRecords() {
		rec, err := wire.Node(s.cfg.TrustDomain)
		if err != nil {
			// A later version's, perhaps. To end the session would lose what comes after it.
			s.log.Error("the record of another control plane cannot be read", "name", wire.GetName(), "err", err)
			continue
		}
		if _, err := s.nodes.Merge(rec); err != nil {
			failed = append(failed, err)
		}
	}
	bundle, err := state.Bundle(s.cfg.TrustDomain)
	if err == nil {
		_, err = s.ca.Merge(bundle)
	}
	return errors.Join(append(failed, err, s.peers.merge(state.GetControlPlanes()))...)
}

// PeerSync implements identityv1.IdentityServer.
func (s *Server) PeerSync(stream grpc.BidiStreamingServer[identityv1.PeerState, identityv1.PeerState]) error {
	who, ok := PeerFrom(stream.Context())
	if !ok {
		return errNobody
	}
	return s.session(stream.Context(), who.ID, stream)
}

// stateStream is either end of PeerSync.
type stateStream interface {
	Send(*identityv1.PeerState) error
	Recv() (*identityv1.PeerState, error)
}

// session keeps both ends in agreement until one of them ends.
func (s *Server) session(ctx context.Context, peer spiffeid.ID, stream stateStream) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	received := make(chan struct{})
	go func() {
		defer close(received)
		for {
			state, err := stream.Recv()
			if err != nil {
				cancel(err)
				return
			}
			if skew := identityv1.Skew(state.GetServerTime(), s.now()); skew.Abs() >= identityv1.WarnSkew {
				s.log.Warn("the clocks of two control planes disagree", "peer", peer.String(), "skew", skew)
			}
			if err := s.mergeState(state); err != nil {
				s.log.Error("what another control plane says cannot be merged", "peer", peer.String(), "err", err)
				cancel(status.Errorf(codes.FailedPrecondition, "%v", err))
				return
			}
			s.published.setPeer(peer, state.GetPublished())
			s.heard.note(peer, s.now())
		}
	}()
	sendErr := s.send(ctx, stream)
	if c, ok := stream.(interface{ CloseSend() error }); ok {
		// On the client's side Recv ends with the stream; on the server's it ends
		// when this returns.
		_ = c.CloseSend()
		<-received
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return sendErr
}

// messageBytes keeps a message far below gRPC's limit of 4 MiB: beyond that the other side refuses
// it, each time anew, and hears of no ban and no signer any more.
const messageBytes = 1 << 20

// some are as many of the records as go into a message, one at least.
func some(records []*identityv1.NodeRecord) int {
	n, size := 0, 0
	for _, r := range records {
		if size += proto.Size(r); n > 0 && size > messageBytes {
			break
		}
		n++
	}
	return n
}

// send sends the whole state, then what changes, until ctx ends or sending fails.
func (s *Server) send(ctx context.Context, stream stateStream) error {
	heartbeat := time.NewTicker(s.cfg.Heartbeat)
	defer heartbeat.Stop()
	type holder struct{ role, name string }
	sent := map[holder]uint64{}
	for {
		trustChanged, nodesChanged, peersChanged, publishedChanged := s.ca.Changed(), s.nodes.Changed(), s.peers.Changed(), s.published.Changed()
		var records []*identityv1.NodeRecord
		for _, rec := range s.nodes.List() {
			key := holder{string(rec.Role), rec.Name}
			if last, ok := sent[key]; !ok || last != rec.Revision {
				sent[key] = rec.Revision
				records = append(records, identityv1.NewRecord(rec))
			}
		}
		for first := true; first || len(records) > 0; first = false {
			state := s.state()
			n := some(records)
			state.Records, records = records[:n], records[n:]
			if err := stream.Send(state); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-trustChanged:
		case <-nodesChanged:
		case <-peersChanged:
		case <-publishedChanged:
		case <-heartbeat.C:
		}
	}
}

// keepPeers holds one session to each other control plane.
func (s *Server) keepPeers(ctx context.Context) {
	var wait sync.WaitGroup
	defer wait.Wait()
	running := map[string]context.CancelFunc{}
	for {
		changed := s.peers.Changed()
		wanted := map[string]bool{}
		for _, p := range s.peers.list() {
			if p.ID == s.id.String() || len(p.Addresses) == 0 {
				continue
			}
			key := fmt.Sprint(p.ID, p.Addresses)
			wanted[key] = true
			if _, ok := running[key]; ok {
				continue
			}
			peerCtx, cancel := context.WithCancel(ctx)
			running[key] = cancel
			wait.Go(func() { s.keepPeer(peerCtx, p) })
		}
		for key, cancel := range running {
			if !wanted[key] {
				cancel()
				delete(running, key)
			}
		}
		select {
		case <-ctx.Done():
			for _, cancel := range running {
				cancel()
			}
			return
		case <-changed:
		}
	}
}

const (
	minBackoff = 200 * time.Millisecond
	maxBackoff = 15 * time.Second
)

func (s *Server) keepPeer(ctx context.Context, p ControlPlane) {
	id, err := spiffeid.FromString(p.ID)
	if err != nil {
		s.log.Error("control plane with a bad id", "peer", p.ID, "err", err)
		return
	}
	backoff := minBackoff
	for ctx.Err() == nil {
		began := s.now()
		err := s.atPeer(ctx, p, func(ctx context.Context, client identityv1.IdentityClient) error {
			return s.syncWith(ctx, id, client)
		})
		if ctx.Err() != nil {
			return
		}
		if s.now().Sub(began) > maxBackoff {
			backoff = minBackoff
		}
		s.log.Warn("the session with another control plane ended", "peer", p.ID, "err", err)
		timer := time.NewTimer(backoff + rand.N(backoff))
		backoff = min(2*backoff, maxBackoff)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// syncWith offers the own signers that the other side may not have, then keeps
// the session.
func (s *Server) syncWith(ctx context.Context, id spiffeid.ID, client identityv1.IdentityClient) error {
	if _, err := s.ca.Pin(); err != nil {
		if err := s.offerSigners(ctx, client); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.PeerSync(ctx)
	if err != nil {
		return err
	}
	return s.session(ctx, id, canceling{stream, cancel})
}

// canceling ends the client's stream when the session does, so that its Recv
// returns.
type canceling struct {
	grpc.BidiStreamingClient[identityv1.PeerState, identityv1.PeerState]
	cancel context.CancelFunc
}

func (c canceling) CloseSend() error {
	err := c.BidiStreamingClient.CloseSend()
	c.cancel()
	return err
}

func (s *Server) offerSigners(ctx context.Context, client identityv1.IdentityClient) error {
	for _, signer := range s.ca.Signers() {
		if signer.State != trust.Prepared {
			continue
		}
		der := signer.Certificate.Raw
		proof, err := s.ca.Prove(signer.ID, identityv1.AdmitDigest(s.id, der))
		if err != nil {
			return err
		}
		reply, err := client.AdmitControlPlane(ctx, &identityv1.AdmitControlPlaneRequest{Signer: der, Proof: proof, ControlPlane: s.peers.entry(s.id)})
		if err != nil {
			return err
		}
		if err := s.mergeState(reply.GetState()); err != nil {
			return err
		}
	}
	return nil
}

// atPeer calls a control plane at the first of its addresses that answers; the
// server must be exactly that control plane.
func (s *Server) atPeer(ctx context.Context, p ControlPlane, call func(context.Context, identityv1.IdentityClient) error) error {
	id, err := spiffeid.FromString(p.ID)
	if err != nil {
		return err
	}
	if who, err := spiffe.Of(id); err != nil || who.Kind != spiffe.ControlPlane {
		return fmt.Errorf("%s is not a control plane", id)
	}
	conf, err := tlsconf.Client(tlsconf.ClientParams{
		Source: s.source, ID: s.id.String(), Authorize: tlsconf.Exactly(id), ALPN: []string{"h2"}, Now: s.cfg.Now,
	})
	if err != nil {
		return err
	}
	var failures []error
	for _, address := range p.Addresses {
		conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(credentials.NewTLS(conf)),
			grpc.WithDisableServiceConfig(), grpc.WithNoProxy(),
			grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 15 * time.Second, Timeout: 10 * time.Second}))
		if err != nil {
			return err
		}
		err = call(ctx, identityv1.NewIdentityClient(conn))
		_ = conn.Close()
		if err == nil {
			return nil
		}
		failures = append(failures, fmt.Errorf("control plane %s at %s: %w", p.ID, address, err))
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(failures...)
}

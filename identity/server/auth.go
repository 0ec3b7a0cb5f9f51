package server

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/hauberk-mesh/hauberk/identity/identityv1"
	"github.com/hauberk-mesh/hauberk/identity/spiffe"
	"github.com/hauberk-mesh/hauberk/identity/tlsconf"
	"github.com/hauberk-mesh/hauberk/identity/token"
	"github.com/hauberk-mesh/hauberk/identity/trust"
)

// Peer is the verified caller of an RPC.
type Peer struct {
	spiffe.Identity
	// Key is the pin of the key that the caller's certificate carries.
	Key trust.Pin
	// NotAfter is when that certificate expires.
	NotAfter time.Time
	Serial   string
}

func (p Peer) role() token.Role {
	switch p.Kind {
	case spiffe.Node:
		return token.RoleNode
	case spiffe.ControlPlane:
		return token.RoleControlPlane
	case spiffe.Operator:
		return token.RoleOperator
	}
	return ""
}

type peerKey struct{}

// PeerFrom returns the verified caller; false only for Join, which has none.
func PeerFrom(ctx context.Context) (Peer, bool) {
	p, ok := ctx.Value(peerKey{}).(Peer)
	return p, ok
}

// methods says who may call what. What is not listed nobody may call, so that a
// service added to the port is closed until someone says for whom it is.
var methods = map[string][]token.Role{
	identityv1.Identity_Renew_FullMethodName:             {token.RoleNode, token.RoleControlPlane, token.RoleOperator},
	identityv1.Identity_IssueWorkload_FullMethodName:     {token.RoleNode},
	identityv1.Identity_WatchTrust_FullMethodName:        {token.RoleNode, token.RoleOperator},
	identityv1.Identity_Report_FullMethodName:            {token.RoleNode},
	identityv1.Identity_AdmitControlPlane_FullMethodName: {token.RoleControlPlane},
	identityv1.Identity_PeerSync_FullMethodName:          {token.RoleControlPlane},

	"/envoy.service.discovery.v3.AggregatedDiscoveryService/": {token.RoleNode},
}

// Authenticator lets a caller through to the methods of its role, and ends the
// connections of callers that have lost theirs.
type Authenticator struct {
	server *Server
	// mu is taken while the records are locked (rekeyed), so that nobody who holds
	// it may read a record.
	mu    sync.Mutex
	conns map[*peerConn]struct{}
	// added wakes run, whose timer may now be late.
	added chan struct{}
	// handshakes are under way, strangers have shown no certificate.
	handshakes, strangers crowd
}

func newAuthenticator(s *Server) *Authenticator {
	return &Authenticator{
		server: s, conns: map[*peerConn]struct{}{}, added: make(chan struct{}, 1),
		handshakes: crowd{most: maxHandshakes, perHost: maxHandshakesPerHost},
		strangers:  crowd{most: maxStrangers, perHost: maxStrangersPerHost},
	}
}

// Unary authenticates unary calls.
func (a *Authenticator) Unary() grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		ctx, err := a.authenticate(ctx, info.FullMethod)
		if err != nil {
			return nil, err
		}
		return handler(ctx, req)
	}
}

// Stream authenticates streams.
func (a *Authenticator) Stream() grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		ctx, err := a.authenticate(stream.Context(), info.FullMethod)
		if err != nil {
			return err
		}
		return handler(srv, &peerStream{ServerStream: stream, ctx: ctx})
	}
}

type peerStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *peerStream) Context() context.Context { return s.ctx }

func (a *Authenticator) authenticate(ctx context.Context, method string) (context.Context, error) {
	if method == identityv1.Identity_Join_FullMethodName {
		return ctx, nil
	}
	roles, known := methods[method]
	if !known {
		roles = methods[method[:strings.LastIndexByte(method, '/')+1]]
	}
	who, err := a.peerOf(ctx)
	if err != nil {
		return nil, a.refuse(method, who, err)
	}
	if !slices.Contains(roles, who.role()) {
		return nil, a.refuse(method, who, status.Errorf(codes.PermissionDenied, "%s may not call %s", who.ID, method))
	}
	if err := a.server.checkRecord(who, method); err != nil {
		return nil, a.refuse(method, who, err)
	}
	return context.WithValue(ctx, peerKey{}, who), nil
}

func (a *Authenticator) refuse(method string, who Peer, err error) error {
	if a.server.limits.refusals.Allow() {
		a.server.log.Warn("call refused", "method", method, "peer", who.ID.String(), "err", err)
	}
	return err
}

// peerOf reads the caller from the TLS connection.
func (a *Authenticator) peerOf(ctx context.Context) (Peer, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Peer{}, status.Error(codes.Unauthenticated, "the call has no connection")
	}
	var state tls.ConnectionState
	switch info := p.AuthInfo.(type) {
	case peerInfo:
		state = info.State
	case credentials.TLSInfo:
		state = info.State
	default:
		return Peer{}, status.Error(codes.Unauthenticated, "the connection is not TLS")
	}
	return a.describe(state)
}

// describe reads and checks the certificate of a verified connection.
func (a *Authenticator) describe(state tls.ConnectionState) (Peer, error) {
	if len(state.PeerCertificates) == 0 {
		return Peer{}, status.Error(codes.Unauthenticated, "this method requires a client certificate: join with a token first (hauberk token create)")
	}
	info, err := tlsconf.Describe(state)
	if err != nil {
		return Peer{}, status.Errorf(codes.Unauthenticated, "client certificate: %v", err)
	}
	identity, err := spiffe.Of(info.Peer)
	if err != nil {
		return Peer{}, status.Errorf(codes.Unauthenticated, "client certificate: %v", err)
	}
	who := Peer{Identity: identity, Key: trust.PinOf(state.PeerCertificates[0]), NotAfter: info.NotAfter, Serial: info.Serial}
	// A federated trust domain's certificate verifies, and has no say here.
	if td := a.server.cfg.TrustDomain; info.Peer.TrustDomain() != td {
		return who, status.Errorf(codes.PermissionDenied, "%s is not of the trust domain %s", info.Peer, td)
	}
	if now := a.server.now(); now.After(info.NotAfter) {
		return who, status.Errorf(codes.Unauthenticated, "the client certificate of %s expired at %s; the clock here says %s",
			info.Peer, info.NotAfter.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return who, nil
}

// Vouch says why the client of a verified connection is not who its certificate says, by what
// is on record now: another key, a ban, or nothing. It is for what is no gRPC call.
func (s *Server) Vouch(state tls.ConnectionState) (Peer, error) {
	who, err := s.auth.describe(state)
	if err == nil {
		err = s.checkRecord(who, "")
	}
	return who, err
}

// checkRecord compares the caller with what is on record of it. Two methods are
// open to a caller whose key is not the one on record or who is banned: Renew
// checks the key itself, and WatchTrust tells the caller that it is banned.
func (s *Server) checkRecord(who Peer, method string) error {
	// The first control plane of a mesh joined nowhere; what it presents is its
	// own CA's.
	rec, ok := s.nodes.Get(who.role(), who.Name)
	if !ok {
		if who.Kind == spiffe.ControlPlane && s.peers.has(who.ID) {
			return nil
		}
		return status.Errorf(codes.PermissionDenied, "%s is not on record at control plane %q: join again, or wait until the control planes have agreed", who.ID, s.cfg.ControlPlane)
	}
	if rec.Banned {
		if method == identityv1.Identity_WatchTrust_FullMethodName {
			return nil
		}
		return status.Errorf(codes.PermissionDenied, "%s is banned: %s", who.ID, rec.BanReason)
	}
	if who.Kind == spiffe.ControlPlane {
		// A control plane makes its own SVID, with a new key each time, once its
		// signer signs; the record's key is only that of its first one.
		return nil
	}
	if rec.Key != who.Key && method != identityv1.Identity_Renew_FullMethodName {
		return status.Errorf(codes.PermissionDenied, "the key of this certificate of %s is not the one on record: it joined again or rotated its key elsewhere", who.ID)
	}
	return nil
}

// peerInfo is a TLS connection that can be ended from here.
type peerInfo struct{ credentials.TLSInfo }

// peerConn is one open connection of an identified caller.
type peerConn struct {
	net.Conn
	auth   *Authenticator
	opened time.Time
	// peer is guarded by auth.mu.
	peer Peer
}

func (c *peerConn) Close() error {
	c.auth.mu.Lock()
	delete(c.auth.conns, c)
	c.auth.mu.Unlock()
	return c.Conn.Close()
}

// peerCredentials is TLS that remembers the connections it made.
type peerCredentials struct {
	credentials.TransportCredentials
	auth *Authenticator
}

func (a *Authenticator) credentials(conf *tls.Config) credentials.TransportCredentials {
	return peerCredentials{credentials.NewTLS(conf), a}
}

func (p peerCredentials) Clone() credentials.TransportCredentials {
	return peerCredentials{p.TransportCredentials.Clone(), p.auth}
}

func (p peerCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, tlsInfo, err := p.handshake(raw)
	if err != nil {
		if p.auth.server.limits.refusals.Allow() {
			p.auth.server.log.Warn("connection refused", "peer", raw.RemoteAddr().String(), "err", err)
		}
		return nil, nil, err
	}
	if len(tlsInfo.State.PeerCertificates) == 0 {
		leave, err := p.auth.strangers.admit(raw.RemoteAddr(), func() { _ = raw.Close() })
		if err != nil {
			_ = conn.Close()
			return nil, nil, fmt.Errorf("a client without a certificate is refused: %w", err)
		}
		return newStrangerConn(conn, leave), tlsInfo, nil
	}
	who, err := p.auth.describe(tlsInfo.State)
	if err != nil {
		_ = conn.Close()
		return nil, nil, err
	}
	tracked := &peerConn{Conn: conn, auth: p.auth, opened: p.auth.server.now(), peer: who}
	p.auth.mu.Lock()
	p.auth.conns[tracked] = struct{}{}
	p.auth.mu.Unlock()
	select {
	case p.auth.added <- struct{}{}:
	default:
	}
	return tracked, peerInfo{tlsInfo}, nil
}

func (p peerCredentials) handshake(raw net.Conn) (net.Conn, credentials.TLSInfo, error) {
	leave, err := p.auth.handshakes.enter(raw.RemoteAddr())
	if err != nil {
		return nil, credentials.TLSInfo{}, err
	}
	defer leave()
	conn, info, err := p.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, credentials.TLSInfo{}, err
	}
	tlsInfo, ok := info.(credentials.TLSInfo)
	if !ok {
		_ = conn.Close()
		return nil, credentials.TLSInfo{}, fmt.Errorf("identity server: unexpected %T", info)
	}
	return conn, tlsInfo, nil
}

// run ends connections whose certificate has expired or whose holder has lost
// its record.
func (a *Authenticator) run(ctx context.Context) {
	// Records may have changed between Build and now.
	recordsChanged := true
	for {
		changed, peersChanged := a.server.nodes.Changed(), a.server.peers.Changed()
		timer := time.NewTimer(a.sweep(recordsChanged))
		recordsChanged = false
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-changed:
			recordsChanged = true
		case <-peersChanged:
			recordsChanged = true
		case <-a.added:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// toldWithin is how long a connection may live that a banned caller opens after
// the ban: long enough for WatchTrust to say so, which is all it may call.
const toldWithin = 5 * time.Second

// sweep closes what must be closed and returns when to look again.
func (a *Authenticator) sweep(recordsChanged bool) time.Duration {
	const most = time.Hour
	next := most
	now := a.server.now()
	for c, who := range a.open() {
		left := who.NotAfter.Sub(now)
		if a.server.lost(who) {
			left = c.opened.Add(toldWithin).Sub(now)
			if recordsChanged {
				left = -1
			}
		}
		if left >= 0 {
			next = min(next, left+time.Millisecond)
			continue
		}
		// One whose holder rotated its key meanwhile is looked at again: that changed a record.
		if a.holds(c, who.Key) {
			a.server.log.Info("connection closed: its certificate expired, or its holder is banned or has another key now", "peer", who.ID.String())
			_ = c.Close()
		}
	}
	return next
}

// open are the connections and whose they are.
func (a *Authenticator) open() map[*peerConn]Peer {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make(map[*peerConn]Peer, len(a.conns))
	for c := range a.conns {
		out[c] = c.peer
	}
	return out
}

func (a *Authenticator) holds(c *peerConn, key trust.Pin) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return c.peer.Key == key
}

// lost reports whether a caller no longer has the record it connected under.
func (s *Server) lost(who Peer) bool {
	rec, ok := s.nodes.Get(who.role(), who.Name)
	switch {
	case who.Kind == spiffe.ControlPlane && !ok:
		// The first control plane of a mesh has no record: its entry is what it may lose.
		return !s.peers.has(who.ID)
	case !ok:
		return false
	case who.Kind == spiffe.ControlPlane:
		return rec.Banned
	}
	return rec.Banned || rec.Key != who.Key
}

// rekeyed lets the open connections of a caller live on that has rotated its own
// key: whoever proved the old key has named the new one.
func (a *Authenticator) rekeyed(who Peer, next trust.Pin) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for c := range a.conns {
		if c.peer.ID == who.ID && c.peer.Key == who.Key {
			c.peer.Key = next
		}
	}
}

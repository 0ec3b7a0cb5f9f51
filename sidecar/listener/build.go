package listener

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/overload"
	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// snapshot is a listener's configuration, compiled. It is immutable but for its
// reference count: the listener holds one reference, each connection another.
type snapshot struct {
	cfg     *Config
	tree    matchTree
	log     *telemetry.Log // of every connection
	refused *telemetry.Log // of those that were not served
	chains  []*chain
	// inspectors are the listener filters.
	inspectors []Filter
	anyTLS     bool
	timeout    time.Duration
	places     []place
	refs       atomic.Int64
}

// chain is a filter chain, compiled.
type chain struct {
	cfg     *FilterChain
	snap    *snapshot
	index   int // -1 for the default chain
	tls     *tls.Config
	ownID   string
	network *authz.Evaluator
	// policy decides over requests, and judge tells of whom it denies all; nil where the
	// chain serves none.
	policy  *downstream.Policy
	judge   judge
	limits  []*connectionLimit
	rates   []*rateLimit
	handler downstream.Handler
	server  *downstream.Server // made with the first connection; guarded by listener.mu
	// keepsPeer: the handler looks at the certificates that peers send.
	keepsPeer bool
	log       *telemetry.Log
	// untrusted: peers may be in that nothing vouches for, of whom the handshake names no
	// anchor. A secret may bring trust domains, which vouch for all that are let in.
	untrusted bool
	// ageless: the ends of peers' certificates are looked at neither by the handshake nor
	// afterwards.
	ageless bool

	place *downstream.Place
}

// judge is what a handler of requests is, where it denies some; *hcm.Manager is one.
type judge interface {
	DeniesAll(p *authz.Peer) (rule string, denied bool)
	// DeniesTunnel is DeniesAll for what Tunnels are named.
	DeniesTunnel(kind string, p *authz.Peer) (rule string, denied bool)
	// Tunnels are those that a connection which the handler serves has open.
	Tunnels(*downstream.Conn) (kinds []string)
}

// deniesAll tells whether every request of a peer would be denied, and by which rule.
func (c *chain) deniesAll(p *authz.Peer) (rule string, denied bool) {
	if c.judge == nil {
		return "", false
	}
	return c.judge.DeniesAll(p)
}

func (c *chain) label() string {
	switch {
	case c.cfg.Name != "":
		return fmt.Sprintf("%q", c.cfg.Name)
	case c.index < 0:
		return "default_filter_chain"
	}
	return fmt.Sprintf("filter_chains[%d]", c.index)
}

// http tells whether the chain serves requests.
func (c *chain) http() bool { return c.cfg.HTTP != nil }

// inspectorTimeout is Envoy's default for listener filters.
const inspectorTimeout = 15 * time.Second

// Check says why a listener could not be made of a configuration, but for its address.
func (m *Manager) Check(cfg *Config) error {
	s, err := m.compile(cfg, nil)
	if err != nil {
		return err
	}
	s.release()
	return nil
}

// compile builds a snapshot in the place of another, nil for none. On error nothing stays
// open.
func (m *Manager) compile(cfg *Config, before *snapshot) (*snapshot, error) {
	s := &snapshot{cfg: cfg, timeout: cfg.FilterTimeout, places: cfg.places()}
	s.refs.Store(1)
	if s.timeout <= 0 {
		s.timeout = inspectorTimeout
	}
	if err := panics.Refuse(panics.Configuration, func() error { return m.fill(s, before) }); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// fill makes what a snapshot's configuration asks for; the snapshot closes it.
func (m *Manager) fill(s, before *snapshot) (err error) {
	cfg := s.cfg
	if cfg.Name == "" {
		return errors.New("the listener has no name")
	}
	if len(cfg.Chains) == 0 && cfg.Default == nil {
		return errors.New("the listener has no filter chain")
	}
	if cfg.Network == "udp" {
		return errors.New("a UDP listener has no byte streams to serve")
	}
	if s.log, err = m.opts.Logs.Open(cfg.AccessLog); err != nil {
		return err
	}
	if s.refused, err = m.opts.Logs.Open(cfg.RefusedLog); err != nil {
		return err
	}
	s.tree.root = &node{}
	h := &heritage{before: before, taken: map[*chain]bool{}}
	for i := range cfg.Chains {
		c, err := m.compileChain(s, h, &cfg.Chains[i], i)
		if err != nil {
			return err
		}
		if err := s.tree.root.insert(0, &c.cfg.Match, c); err != nil {
			return err
		}
	}
	s.inspectors = s.filters()
	if cfg.Default != nil {
		if s.tree.fallback, err = m.compileChain(s, h, cfg.Default, -1); err != nil {
			return err
		}
	}
	return nil
}

// compileChain builds a chain and adds it to s, which closes it.
func (m *Manager) compileChain(s *snapshot, h *heritage, cfg *FilterChain, index int) (_ *chain, err error) {
	c := &chain{cfg: cfg, index: index, snap: s}
	s.chains = append(s.chains, c)
	fail := func(err error) (*chain, error) { return nil, fmt.Errorf("filter chain %s: %w", c.label(), err) }

	if (cfg.HTTP == nil) == (cfg.TCP == nil) {
		return fail(errors.New("exactly one of HTTP and TCP must be the terminal filter"))
	}
	if cfg.TLS != nil {
		s.anyTLS = true
		if m.opts.TLS == nil {
			return fail(errors.New("TLS is configured and there is no source of certificates"))
		}
		if c.tls, c.ownID, err = m.opts.TLS.ServerTLS(s.cfg.Workload, s.cfg.Name, cfg.TLS); err != nil {
			return fail(err)
		}
		if t := cfg.TLS.Context; t != nil && t.Validation != nil {
			c.untrusted, c.ageless = t.Validation.Untrusted(), t.Validation.PinsAlone()
		}
	}
	old := h.of(cfg, index)
	c.limit(old, &m.shared)
	var counter authz.CounterFor
	if m.opts.Metrics != nil {
		counter = m.opts.Metrics.AuthzCounter
	}
	if c.network, err = authz.Compile(cfg.RBAC, authz.Connection, counter); err != nil {
		return fail(err)
	}
	logs := []telemetry.AccessLogConfig{}
	if cfg.HTTP != nil {
		logs = cfg.HTTP.AccessLog
	} else {
		logs = append(logs, cfg.TCP.AccessLog...)
	}
	// What the listener logs too would be there twice.
	logs = slices.DeleteFunc(slices.Clone(logs), func(l telemetry.AccessLogConfig) bool {
		same := func(o telemetry.AccessLogConfig) bool { return reflect.DeepEqual(l, o) }
		return slices.ContainsFunc(s.cfg.AccessLog, same) || slices.ContainsFunc(s.cfg.RefusedLog, same)
	})
	if c.log, err = m.opts.Logs.Open(logs); err != nil {
		return fail(err)
	}
	handler, err := m.opts.NewHandler(s.cfg, cfg)
	if err != nil {
		return fail(err)
	}
	c.handler = handler
	if heir, ok := handler.(interface{ Inherit(downstream.Handler) }); ok && old != nil {
		heir.Inherit(old.handler)
	}
	if k, ok := c.handler.(interface{ NeedsPeerChain() bool }); ok {
		c.keepsPeer = k.NeedsPeerChain()
	}
	if p, ok := c.handler.(interface{ Policy() *downstream.Policy }); ok {
		c.policy = p.Policy()
	}
	c.judge, _ = c.handler.(judge)
	c.place = c.identify(s.cfg)
	c.place.Overload, c.place.Exempt = m.opts.Overload.Signals(s.cfg.IgnoreOverload), s.cfg.IgnoreOverload
	if m.opts.Metrics != nil {
		c.place.Metrics = m.opts.Metrics.Service(c.place.Direction, c.place.Service)
	}
	return c, nil
}

// serverOf returns who serves the connections of the chain, whose listener is l. l.mu is
// held.
func (c *chain) serverOf(l *listener) *downstream.Server {
	if c.server == nil {
		c.server = &downstream.Server{Handler: c.handler, Context: l.ctx, Poller: l.m.poller, Workers: &l.m.workers}
	}
	return c.server
}

// identify finds whose chain it is. Workloads of a host share the inbound
// listener: there a chain belongs to the identity that its certificate names.
func (c *chain) identify(l *Config) *downstream.Place {
	p := &downstream.Place{
		Listener: l.Name, Chain: c.cfg.Name, Direction: telemetry.Direction(l.Direction),
		Workload: l.Workload, Service: l.Service, Upstream: l.Upstream,
		ListenerMetadata: l.Metadata, ChainMetadata: c.cfg.Metadata,
	}
	if t := c.cfg.TLS; t != nil && strings.HasPrefix(t.Certificate, "spiffe://") && t.Certificate != l.Workload {
		p.Workload, p.Service = t.Certificate, telemetry.PeerName(t.Certificate)
	}
	if p.Service == "" {
		p.Service = l.Name // a foreign listener names no service
	}
	return p
}

// admits repeats what the handshake requires of a peer, for connections older
// than the chain.
func (c *chain) admits(info *stream.Info) bool {
	t := c.cfg.TLS
	if t == nil {
		return true
	}
	if t.Context != nil {
		// Its names are not kept of a peer: who shook hands was verified then, and
		// verifiesAs tells whether that is still so. Of a peer whom nothing vouches for
		// it is not kept either whether it showed a certificate.
		return info.TLS && (!t.Context.RequireClientCertificate || c.untrusted || info.PeerCertHash != "")
	}
	if info.Peer.Names() != nil {
		return false // a foreign authority vouched for the peer, and the mesh has not
	}
	if !info.TLS || t.RequireClientCertificate && info.PeerID == "" {
		return false
	}
	if len(t.PeerIDs) == 0 {
		return true
	}
	for _, id := range t.PeerIDs {
		if id == info.PeerID {
			return true
		}
	}
	return false
}

// verifiesAs tells whether a handshake with o verified the peer as one with c would, as
// far as admits does not see to it: the terms of a foreign TLS context.
func (c *chain) verifiesAs(o *chain) bool {
	if c.cfg.TLS == nil || c.cfg.TLS.Context == nil {
		return true
	}
	if o.cfg.TLS == nil || o.cfg.TLS.Context == nil {
		return false
	}
	now, then := c.cfg.TLS.Context, o.cfg.TLS.Context
	return now.RequireClientCertificate == then.RequireClientCertificate && reflect.DeepEqual(now.Validation, then.Validation)
}

// exempt is what the listener is exempt from.
func (s *snapshot) exempt() overload.Exempt {
	return overload.Exempt{Limit: s.cfg.IgnoreGlobalLimit, Actions: s.cfg.IgnoreOverload}
}

// logConnection writes the line that the listener has of a connection. Its occasion has no name, as in
// Envoy: that of the end is the filter chain's.
func (s *snapshot) logConnection(r *telemetry.Record) {
	r.Type = telemetry.LogNotSet
	s.log.Log(r)
}

func (s *snapshot) release() {
	if s.refs.Add(-1) == 0 {
		s.close()
	}
}

func (s *snapshot) close() {
	for _, c := range s.chains {
		if closer, ok := c.handler.(io.Closer); ok {
			_ = closer.Close()
		}
		c.log.Close()
		if c.place != nil {
			c.place.Metrics.Release()
		}
	}
	s.log.Close()
	s.refused.Close()
}

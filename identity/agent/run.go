package agent

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"

	"github.com/hauberk-mesh/hauberk/identity/identityv1"
	"github.com/hauberk-mesh/hauberk/identity/svid"
	"github.com/hauberk-mesh/hauberk/identity/token"
	"github.com/hauberk-mesh/hauberk/identity/trust"
	"github.com/hauberk-mesh/hauberk/identity/verify"
	"github.com/hauberk-mesh/hauberk/internal/stale"
)

// Agent keeps a host's identities. It is a svid.Source.
type Agent struct {
	cfg    Config
	log    *slog.Logger
	state  *state
	key    crypto.Signer // the node's
	holder *svid.Holder
	conn   *connection
	ready  chan struct{}
	// wake makes the keeper look again; it holds one value.
	wake chan struct{}
	// reports wakes the reporter.
	reports chan struct{}

	mu        sync.Mutex
	isReady   bool
	td        spiffeid.TrustDomain
	node      *svid.SVID
	role      token.Role
	record    *Record
	said      *token.Node // what record is made of
	workloads map[spiffeid.ID]*held
	// bundles are in force; unnamed are the last of trust domains that are trusted no
	// longer. refused is the last complaint about one.
	bundles, unnamed map[string]*trust.Bundle
	refused          string
	controlPlanes    []*identityv1.ControlPlane
	addresses        []string
	wanted           []spiffeid.ID
	report           Report
	status           Status
	nodeErr          error
	nodeNext         time.Time // of a renewal, after a failure
	nodeUnsaved      bool      // node is not on disk yet
}

// held is a workload identity and how its keeping goes.
type held struct {
	svid *svid.SVID
	err  error
	next time.Time // not before, after a failure
	// unsaved: svid is not on disk yet.
	unsaved bool
}

// Build opens and checks the state directory and reads what it holds; it makes
// no connection.
func Build(cfg Config) (*Agent, error) {
	a := &Agent{
		cfg: cfg, log: cfg.Logger, holder: svid.NewHolder(nil),
		ready: make(chan struct{}), wake: make(chan struct{}, 1), reports: make(chan struct{}, 1),
		workloads: map[spiffeid.ID]*held{}, bundles: map[string]*trust.Bundle{},
		wanted: cfg.Workloads, td: cfg.TrustDomain,
	}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	a.log = a.log.With("component", "agent")
	if a.cfg.StaleAfter == 0 {
		a.cfg.StaleAfter = stale.After
	}
	var err error
	if a.state, err = openState(cfg.StateDir); err != nil {
		return nil, err
	}
	if err := a.load(); err != nil {
		return nil, errors.Join(err, a.state.close())
	}
	if a.conn, err = newConnection(a); err != nil {
		return nil, errors.Join(err, a.state.close())
	}
	// Without an SVID to present, an attempt to connect fails, and calls fail
	// with it until a later one succeeds. The join sets the addresses then.
	if a.joined() {
		a.conn.setAddresses(a.allAddresses())
	}
	return a, nil
}

// load takes up what an earlier run left.
func (a *Agent) load() error {
	var err error
	if a.key, err = a.state.nodeKey(); err != nil {
		return err
	}
	node, err := a.state.node(a.key)
	if err != nil || node == nil {
		return err
	}
	if !a.td.IsZero() && node.ID.TrustDomain() != a.td {
		return fmt.Errorf("agent: %s holds %s, which is not of the trust domain %s: use another state directory", a.cfg.StateDir, node.ID, a.td)
	}
	a.td, a.node = node.ID.TrustDomain(), node
	if err := a.loadTrust(); err != nil {
		return err
	}
	if a.cfg.MemoryKeys {
		a.publish()
		a.announce()
		return nil
	}
	held_, err := a.state.workloads()
	if err != nil {
		return err
	}
	for _, v := range held_ {
		a.workloads[v.ID] = &held{svid: v}
	}
	a.publish()
	a.announce()
	return nil
}

// Run joins if it must, and keeps everything current until ctx ends. It returns
// early only for what waiting cannot mend (a refused token, a wrong pin, a state
// directory of another trust domain).
func (a *Agent) Run(ctx context.Context) error {
	if err := a.ensureJoined(ctx); err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() { a.watchTrust(ctx) })
	wg.Go(func() { a.reportLoop(ctx) })
	wg.Go(func() {
		stale.Watch(ctx, a.log, a.cfg.StaleAfter, func() []stale.Kept { return []stale.Kept{a.Trust()} })
	})
	a.keep(ctx)
	return ctx.Err()
}

// Ready is closed once the node SVID and a trust bundle are held, from the state
// directory or newly joined, and Conn can present the one and verify by the
// other.
func (a *Agent) Ready() <-chan struct{} { return a.ready }

// Close releases the state directory and the connection. Run must have ended.
func (a *Agent) Close() error { return errors.Join(a.conn.close(), a.state.close()) }

// Snapshot implements svid.Source: the node SVID under its own ID, the workload
// SVIDs, and the bundles.
func (a *Agent) Snapshot() *svid.Snapshot { return a.holder.Snapshot() }

// Changed implements svid.Source.
func (a *Agent) Changed() <-chan struct{} { return a.holder.Changed() }

// Record returns what this node may be; nil before the first join.
func (a *Agent) Record() *Record {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.record
}

// NodeID is the node's SPIFFE ID, or the operator's; zero before the first join.
func (a *Agent) NodeID() spiffeid.ID {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.node == nil {
		return spiffeid.ID{}
	}
	return a.node.ID
}

// TrustDomain is the own trust domain; zero before the first join.
func (a *Agent) TrustDomain() spiffeid.TrustDomain {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.td
}

// Key signs for the node; its public half is on record. For deriving secrets
// that are this host's alone, such as a cache's.
func (a *Agent) Key() crypto.Signer { return a.key }

// Conn is the connection to the control planes, authenticated by the node SVID.
// It is the same object for the agent's whole life: it fails over between
// addresses, and reconnects with the newer SVID after a renewal. Streams end
// with an error when their connection does; the caller opens them again. Before
// Ready its calls fail with Unavailable, or wait under WaitForReady.
func (a *Agent) Conn() grpc.ClientConnInterface { return a.conn.grpc }

// Want adds to Config.Workloads, for good: the SVID of a removed listener is
// renewed as long as its connections may drain, and those who share an agent do
// not take back each other's wishes. The node's record bounds what is held.
func (a *Agent) Want(ids ...spiffeid.ID) {
	a.mu.Lock()
	before := len(a.wanted)
	wanted := slices.Clone(a.wanted)
	for _, id := range ids {
		if !slices.Contains(wanted, id) {
			wanted = append(wanted, id)
		}
	}
	a.wanted = wanted
	a.mu.Unlock()
	if len(wanted) > before {
		a.poke()
	}
}

// SetReport replaces what the control plane is told of this host.
func (a *Agent) SetReport(r Report) {
	a.mu.Lock()
	a.report = r
	a.mu.Unlock()
	select {
	case a.reports <- struct{}{}:
	default:
	}
}

func (a *Agent) poke() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// joined reports whether a node SVID is held that has not expired.
func (a *Agent) joined() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.node != nil && time.Now().Before(a.node.Leaf().NotAfter)
}

// ensureJoined joins unless a usable node SVID is held. An expired one cannot be
// renewed; then only a token helps.
func (a *Agent) ensureJoined(ctx context.Context) error {
	if a.joined() {
		return nil
	}
	a.mu.Lock()
	node := a.node
	a.mu.Unlock()
	if a.cfg.Token == "" {
		if node != nil {
			return fmt.Errorf("agent: the SVID of %s expired at %s, and the clock here says %s: set the clock if that is wrong, otherwise join again with a new token (hauberk token create)",
				node.ID, node.Leaf().NotAfter.UTC().Format(time.RFC3339), time.Now().UTC().Format(time.RFC3339))
		}
		return errors.New("agent: this node has not joined: give it a token (hauberk token create --node NAME --service SERVICE)")
	}
	t, err := token.Parse(a.cfg.Token)
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	retry := newBackoff()
	for {
		joined, err := identityv1.JoinWith(ctx, t, a.td, a.key)
		if err == nil {
			return a.takeJoin(joined)
		}
		var refused *identityv1.RefusedError
		var clocks *verify.TimeError
		if errors.As(err, &refused) || errors.As(err, &clocks) {
			// Waiting mends neither; a clock that is set later does when the
			// supervisor starts this again.
			return fmt.Errorf("agent: %w", err)
		}
		a.log.Warn("cannot join yet", "err", err)
		a.fail(err)
		if !retry.wait(ctx, nil) {
			return ctx.Err()
		}
	}
}

func (a *Agent) takeJoin(j *identityv1.Joined) error {
	u := &identityv1.TrustUpdate{
		ServerTime: j.Reply.GetServerTime(), Bundles: j.Reply.GetBundles(),
		ControlPlanes: j.Reply.GetControlPlanes(), Record: j.Reply.GetRecord(),
	}
	a.mu.Lock()
	if held := a.bundles[j.SVID.ID.TrustDomain().Name()]; held != nil && trust.Accept(held, j.Bundle) != nil && identityv1.Check(j.SVID, held, j.SVID.ID, j.Skew) != nil {
		a.mu.Unlock()
		return fmt.Errorf("agent: the control plane offers the trust bundle %d of %s, and signs with none of the signers of the bundle %d that %s holds: "+
			"if the mesh was built anew, use another state directory and a new token", j.Bundle.Sequence, held.TrustDomain, held.Sequence, a.cfg.StateDir)
	}
	a.td, a.node, a.role = j.SVID.ID.TrustDomain(), j.SVID, j.Record.Role
	a.status.Skew = j.Skew
	// What a token grants is taken whatever was heard before, but for a ban: a control plane that
	// was restored from a backup counts from there.
	if a.said != nil && !a.said.Banned {
		a.said = nil
	}
	a.mu.Unlock()
	if err := a.takeTrust(u, true); err != nil {
		return err
	}
	// The token is used up, so what it gave must be on disk before it is used.
	if err := a.state.saveNode(j.SVID); err != nil {
		return err
	}
	a.publish()
	a.conn.setAddresses(a.allAddresses())
	a.announce()
	a.log.Info("joined", "id", j.SVID.ID.String())
	return nil
}

func (a *Agent) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.status.LastError = err.Error()
}

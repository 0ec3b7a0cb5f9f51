package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// checkState is a host's part of active health checking.
type checkState struct {
	state atomic.Uint32 // of the check bits
	// Under the cluster's lock:
	removed bool          // stays although discovery no longer names it
	history *checkHistory // nil before the first check began
}

type checkHistory struct {
	attempts, failures uint64
	lastError          string
}

// The check bits.
const (
	checkFailed   = 1 << iota // by its checks, or by the lack of one
	checkPending              // no check has ended yet
	checkDegraded             // the last check said so
	checkExcluded             // asked to be left out until it passes
	checkTimeout              // the last failure was one
	checked                   // is checked at all
)

func (s *checkState) set(bits uint32)   { s.state.Or(bits) }
func (s *checkState) clear(bits uint32) { s.state.And(^bits) }

func (s *checkState) String() string {
	switch bits := s.state.Load(); {
	case bits&checked == 0:
		return ""
	case bits&checkPending != 0:
		return "pending"
	case bits&checkTimeout != 0:
		return "timeout"
	case bits&checkFailed != 0:
		return "failing"
	case bits&checkDegraded != 0:
		return "degraded"
	}
	return "passing"
}

// isChecked tells whether a host's checks are to run.
func (c *Cluster) isChecked(h *Host, s *settings) bool {
	return s.HealthCheck != nil && !c.removed && !h.Endpoint().check().Disabled && c.has(h)
}

// syncChecks starts and ends the checks of hosts that came, went or are checked
// otherwise now. c.mu is held.
func (c *Cluster) syncChecks() {
	s := c.cfg.Load()
	for h, k := range c.checks {
		if !c.isChecked(h, s) || !reflect.DeepEqual(k.cfg, s.HealthCheck) || k.endpoint != h.Endpoint().check() {
			k.stop()
			delete(c.checks, h)
		}
	}
	if s.HealthCheck == nil {
		return
	}
	for _, h := range c.order {
		if c.checks[h] == nil && c.isChecked(h, s) {
			c.startCheck(h, s)
		}
	}
}

// checker checks one host until it is stopped.
type checker struct {
	h        *Host
	cfg      *HealthCheck
	endpoint EndpointCheck
	stop     context.CancelFunc
	headers  route.Changes

	// Owned by its goroutine: the connection that is used again.
	conn       stream.Stream
	announced  bool         // conn has begun with what it announces
	http2      *http2Checks // on conn, for checks that speak it
	generation uint64
	aimed      *target
	// held is conn, for a withdrawal that ends it.
	held atomic.Pointer[checkConn]
	// Under the cluster's lock: results in a row.
	passed, missed int
}

// checkConn is the connection of a checker.
type checkConn struct {
	stream.Stream
	source string
}

// checkConns are the connections of the cluster's checks.
func (c *Cluster) checkConns() (out []*checkConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.checks {
		if held := k.held.Load(); held != nil {
			out = append(out, held)
		}
	}
	return out
}

func (c *Cluster) startCheck(h *Host, s *settings) {
	ctx, cancel := context.WithCancel(c.m.ctx)
	k := &checker{h: h, cfg: s.HealthCheck, endpoint: h.Endpoint().check(), stop: cancel}
	k.headers, _ = k.cfg.headers() // what does not compile was refused with its cluster
	if c.checks == nil {
		c.checks = map[*Host]*checker{}
	}
	c.checks[h] = k
	if h.check.history == nil {
		h.check.history = &checkHistory{}
	}
	h.check.set(checked)
	c.m.wg.Go(func() { k.run(ctx) })
}

func (k *checker) run(ctx context.Context) {
	defer panics.Contain(panics.HealthCheck, k.h, nil)
	defer k.drop()
	first := time.Duration(0)
	if k.cfg.InitialJitter > 0 {
		first = rand.N(k.cfg.InitialJitter)
	}
	t := time.NewTimer(first)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		r := k.onceGuarded(ctx)
		if ctx.Err() != nil {
			return
		}
		again := unreadyPause
		panics.Guard(panics.HealthCheck, func() { again = k.h.cluster.checkDone(k, r) })
		t.Reset(again)
	}
}

// onceGuarded is once; where that panics, no answer came.
func (k *checker) onceGuarded(ctx context.Context) (v verdict) {
	defer panics.Contain(panics.HealthCheck, k.h, func() {
		v = unanswered(errPanicked)
		k.drop()
	})
	return k.once(ctx)
}

// unreadyPause is the time until the next try of a check that could not be made.
const unreadyPause = time.Second

// unready is a check that says nothing of the host: there is no certificate to
// make it with, because no workload uses the cluster yet or its SVID has not come, or
// descriptors are short.
type unready struct{ error }

// verdict is what came of one check. The zero value passes.
type verdict struct {
	err error // nil passes
	// network: no answer came, so that the threshold is counted up to; so it is
	// with a retriable answer. Any other failure counts at once.
	network, retriable bool
	timeout            bool
	degraded, exclude  bool
	passive            bool // no check was made: the host said so with an answer
	status             int  // of an answer over HTTP that does not pass
	unready            bool
}

func failed(err error) verdict { return verdict{err: err} }

func unanswered(err error) verdict {
	return verdict{
		err: err, network: true,
		timeout: errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded),
	}
}

// once makes one check, connecting included, within the timeout.
func (k *checker) once(ctx context.Context) verdict {
	s := k.h.cluster.cfg.Load()
	within, cancel := context.WithTimeout(ctx, k.cfg.Timeout)
	defer cancel()
	k.dropStale(s)
	if k.conn == nil {
		k.aimed = k.h.target.Load()
		conn, err := k.connect(within, s)
		if err != nil {
			v := unanswered(err)
			v.unready = errors.As(err, &unready{})
			return v
		}
		k.conn, k.generation, k.announced = conn, s.tlsGeneration, false
		if k.settled(conn.Info().ALPN) == protocolHTTP2 {
			k.http2 = newHTTP2Checks(conn, s.HTTP.http2())
		}
	}
	interrupt := k.interrupt()
	defer context.AfterFunc(ctx, func() {
		defer panics.Contain(panics.Timer, k.h, nil)
		interrupt()
	})()
	v, reusable := k.ask(within)
	if !reusable || k.cfg.NoReuse || v.network {
		k.drop()
	}
	return v
}

// ask makes the check on the connection that is there; ctx has a deadline.
func (k *checker) ask(ctx context.Context) (v verdict, reusable bool) {
	switch {
	case k.cfg.GRPC != nil:
		return k.checkGRPC(ctx)
	case k.http2 != nil:
		return k.checkHTTP2(ctx)
	}
	deadline, _ := ctx.Deadline()
	if err := k.conn.SetDeadline(deadline); err != nil {
		return unanswered(err), false
	}
	if k.cfg.TCP != nil {
		return k.checkTCP()
	}
	return k.checkHTTP()
}

// dropStale drops a connection that is not to be used again. As with pooled ones, a
// connection that the peer left, or spoke on without being asked, says nothing
// about the next check.
func (k *checker) dropStale(s *settings) {
	if k.conn == nil {
		return
	}
	p, ok := k.conn.(stream.Prober)
	switch {
	case k.generation != s.tlsGeneration, k.aimed != k.h.target.Load(),
		k.http2 != nil && !k.http2.Usable(),
		k.http2 == nil && ok && !p.Quiet():
		k.drop()
	}
}

// interrupt returns what ends a check that is under way.
func (k *checker) interrupt() func() {
	if h := k.http2; h != nil {
		return h.Close
	}
	conn := k.conn
	return func() { _ = stream.CloseNow(conn) }
}

// byALPN tells whether what checks speak is settled when they connect.
func (k *checker) byALPN() bool { return k.cfg.HTTP != nil && k.cfg.HTTP.ByALPN }

// settled is what checks speak on a connection, on which that was agreed on.
func (k *checker) settled(alpn string) protocol {
	switch {
	case !k.byALPN():
		return k.speaks()
	case alpn == "h2", alpn != "http/1.1" && k.cfg.HTTP.HTTP2:
		return protocolHTTP2
	}
	return protocolHTTP1
}

// speaks is what the checks' connections are for.
func (k *checker) speaks() protocol {
	switch {
	case k.byALPN():
		return protocolCheck
	case k.cfg.GRPC != nil || k.cfg.HTTP != nil && k.cfg.HTTP.HTTP2:
		return protocolHTTP2
	case k.cfg.HTTP != nil:
		return protocolHTTP1
	}
	return protocolCheck
}

func (k *checker) drop() {
	if k.http2 != nil {
		k.http2.end()
		k.http2 = nil
	}
	if k.conn != nil {
		k.held.Store(nil)
		_ = stream.CloseNow(k.conn)
		k.conn = nil
	}
}

// connect opens a connection as requests do, with the cluster's TLS context and
// the identity of a workload that uses the cluster; the check may name another
// address, ALPN and transport socket.
func (k *checker) connect(ctx context.Context, s *settings) (stream.Stream, error) {
	probe := &Host{cluster: k.h.cluster, key: k.h.key, socket: k.h.socket}
	probe.target.Store(k.target())
	own := *k.h.Endpoint()
	own.Also = nil // the address that is checked is asked alone, as in Envoy
	probe.ep.Store(&own)
	if k.cfg.SocketMatch != nil {
		probe.socket = s.socketMatching(k.cfg.SocketMatch, k.h.Endpoint())
	}
	m := k.h.cluster.m
	source := ""
	if m.opts.Source != nil {
		source = m.opts.Source(k.h.cluster.name)
	}
	if t := probe.tls(s); t != nil {
		own := *t
		own.ALPN = k.alpn(t)
		probe.socket = &SocketMatch{TLS: &own, Announce: probe.announcement(s)} // a check is nobody's, and has no extensions
		if _, _, err := m.opts.TLS.ClientTLS(source, k.h.cluster.name, t); err != nil {
			return nil, unready{err}
		}
	}
	u := m.dials.begin()
	defer m.dials.end(u)
	st, kind, err := m.openCheck(ctx, &pool{host: probe, source: source}, s, k.speaks())
	if kind == OverflowConnections {
		return nil, unready{err}
	}
	if err != nil {
		return nil, err
	}
	k.held.Store(&checkConn{st, source})
	switch {
	case covers(m.dials.end(u), source, st.Info()):
		err = unready{errWithdrawn}
	case k.disagrees(st.Info().ALPN):
		err = fmt.Errorf("the server chose %q by ALPN, and the check speaks another protocol", st.Info().ALPN)
	}
	if err != nil {
		k.held.Store(nil)
		_ = st.Close()
		return nil, err
	}
	return st, nil
}

// alpn is what checks over t offer: what they speak, whatever requests offer. A foreign context
// that offers no version of HTTP offers the same as for requests: its server may want that name.
func (k *checker) alpn(t *TLS) []string {
	http := func(name string) bool { return name == "h2" || strings.HasPrefix(name, "http/") }
	switch {
	case len(k.cfg.ALPN) > 0:
		return k.cfg.ALPN
	case k.byALPN():
		return t.ALPN
	case t.Context != nil && len(t.ALPN) > 0 && !slices.ContainsFunc(t.ALPN, http):
		return t.ALPN
	case k.speaks() == protocolHTTP2:
		return []string{"h2"}
	case k.speaks() == protocolHTTP1:
		return []string{"http/1.1"}
	}
	return nil
}

func (k *checker) disagrees(chosen string) bool {
	return k.speaks() == protocolHTTP1 && chosen == "h2" || k.speaks() == protocolHTTP2 && chosen == "http/1.1"
}

// scheme is that of the URLs that checks ask for.
func (k *checker) scheme() string {
	if k.conn.Info().TLS {
		return "https"
	}
	return "http"
}

// target is where checks go: the endpoint's address, unless its check has another.
func (k *checker) target() *target {
	t := k.h.target.Load()
	if t.network != "tcp" || k.endpoint.Address == "" && k.endpoint.Port == 0 {
		return t
	}
	host, port, err := net.SplitHostPort(t.address)
	if err != nil {
		return t
	}
	if k.endpoint.Address != "" {
		host = k.endpoint.Address
	}
	if k.endpoint.Port != 0 {
		port = strconv.Itoa(k.endpoint.Port)
	}
	out := &target{network: "tcp", address: net.JoinHostPort(host, port)}
	if ap, err := netip.ParseAddrPort(out.address); err == nil {
		out.addr = net.TCPAddrFromAddrPort(ap)
	}
	return out
}

// hostname is what checks call the host.
func (k *checker) hostname(configured string) string {
	switch {
	case k.endpoint.Hostname != "":
		return k.endpoint.Hostname
	case configured != "":
		return configured
	}
	return k.h.cluster.name
}

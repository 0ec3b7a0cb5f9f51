package listener

import (
	"bytes"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/internal/handshake"
	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/drain"
	"github.com/hauberk-mesh/hauberk/sidecar/hcm"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/tcp"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
	"github.com/hauberk-mesh/hauberk/sidecar/tunnel"
)

var (
	stressFor  = flag.Duration("stress", 3*time.Second, "how long TestStress lasts")
	stressSeed = flag.Uint64("stress.seed", 0, "what TestStress begins with, by chance when 0")
)

// stress is a proxy, the hosts behind it and what is known of them.
type stress struct {
	t        *testing.T
	seed     uint64
	metrics  *telemetry.Metrics
	clusters *cluster.Manager
	m        *Manager
	plain    []string // addresses of hosts that speak HTTP/1 and HTTP/2
	secured  []string
	names    atomic.Int64
	whole    [4]atomic.Int64 // answers that came whole, by kind of client
	over     atomic.Bool
	clients  sync.WaitGroup
	closers  []func() // once the clients have left
}

// anyTLS serves with ALPN, and trusts everybody as a client.
type anyTLS struct{ cert tls.Certificate }

func (a anyTLS) ServerTLS(_, listener string, _ *TLS) (*tls.Config, string, error) {
	c := &tls.Config{Certificates: []tls.Certificate{a.cert}, NextProtos: []string{"h2", "http/1.1"}, DynamicRecordSizingDisabled: true}
	if listener == "mesh" {
		c.NextProtos = []string{cluster.TunnelALPN}
	}
	return c, apiID, nil
}

func (a anyTLS) ClientTLS(source, _ string, t *cluster.TLS) (*tls.Config, *handshake.Own, error) {
	return &tls.Config{InsecureSkipVerify: true, ServerName: t.SNI, NextProtos: t.ALPN, DynamicRecordSizingDisabled: true}, &handshake.Own{ID: source}, nil
}

func newStress(t *testing.T) *stress {
	s := &stress{t: t, seed: *stressSeed, metrics: telemetry.NewMetrics()}
	if s.seed == 0 {
		s.seed = rand.Uint64()
	}
	t.Logf("-stress.seed=%d", s.seed)
	provider := anyTLS{selfSigned(t, apiID)}
	for i := range 6 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{
			Handler: moody{t}, Protocols: new(http.Protocols), ErrorLog: log.New(io.Discard, "", 0),
			IdleTimeout: time.Duration(1+20*i) * time.Millisecond,
			TLSConfig:   &tls.Config{Certificates: []tls.Certificate{provider.cert}},
		}
		srv.Protocols.SetHTTP1(true)
		if i < 2 { // small windows
			srv.HTTP2 = &http.HTTP2Config{MaxReceiveBufferPerConnection: 64 << 10, MaxReceiveBufferPerStream: 8 << 10}
		}
		serve, list := srv.Serve, &s.plain
		if i%2 == 0 {
			srv.Protocols.SetUnencryptedHTTP2(true)
		} else {
			srv.Protocols.SetHTTP2(true)
			serve, list = func(l net.Listener) error { return srv.ServeTLS(l, "", "") }, &s.secured
		}
		*list = append(*list, l.Addr().String())
		var open sync.WaitGroup
		srv.ConnState = func(_ net.Conn, to http.ConnState) {
			switch to {
			case http.StateNew:
				open.Add(1)
			case http.StateClosed:
				open.Done()
			}
		}
		done := make(chan struct{})
		go func() { defer close(done); _ = serve(l) }()
		t.Cleanup(func() { _ = srv.Close(); <-done; open.Wait() })
	}
	s.plain = append(s.plain, breaker(t))
	s.clusters = cluster.NewManager(cluster.Options{TLS: provider, Metrics: s.metrics})
	timers := hcm.NewTimers()
	trigger, watcher := drain.New()
	s.m = NewManager(Options{TLS: provider, Metrics: s.metrics, Drain: watcher, DrainTime: 100 * time.Millisecond,
		NewHandler: func(_ *Config, c *FilterChain) (downstream.Handler, error) {
			if c.HTTP == nil {
				p, err := tcp.New(c.TCP, tcp.Options{Clusters: s.clusters, Metrics: s.metrics})
				return tunnel.New(p, s.metrics), err
			}
			return hcm.New(c.HTTP, hcm.Options{Clusters: s.clusters, Metrics: s.metrics, Timers: timers, Drain: watcher})
		}})
	t.Cleanup(func() {
		s.over.Store(true)
		trigger.Drain(time.Now().Add(time.Second))
		s.clients.Wait()
		for _, f := range s.closers {
			f()
		}
		_ = s.m.Close()
		s.settled()
		_ = s.clusters.Close()
		timers.Close()
		t.Logf("whole answers: %d to HTTP/1, %d to HTTP/1 over TLS, %d to HTTP/2, %d through TCP",
			s.whole[0].Load(), s.whole[1].Load(), s.whole[2].Load(), s.whole[3].Load())
		if !s.enough() {
			t.Error("some kind of client got hardly an answer")
		}
	})
	r := rand.New(rand.NewPCG(s.seed, 0))
	for _, name := range stressClusters {
		s.updateCluster(r, name)
	}
	for _, name := range stressListeners {
		mustApply(t, s.m, s.listener(r, name))
	}
	s.updateBytes("raw", s.plain[0], nil)
	s.updateBytes("tunnels", s.m.Addrs()["mesh"].String(), &cluster.TLS{SNI: "mesh", AnyPeer: true, ALPN: []string{cluster.TunnelALPN}})
	return s
}

var (
	stressListeners = []string{"plain", "tls", "tcp", "mesh"}
	stressClusters  = []string{"one", "two", "tls", "auto"}
)

const stressLimit = 1000

// updateCluster changes what a cluster is.
func (s *stress) updateCluster(r *rand.Rand, name string) {
	limits := cluster.Limits{MaxConnections: stressLimit, MaxPendingRequests: stressLimit, MaxRequests: stressLimit, MaxRetries: stressLimit, TrackRemaining: true}
	cfg := &cluster.Config{Name: name, Type: cluster.EDS, ConnectTimeout: time.Second, Limits: limits, HighLimits: &limits,
		CloseOnChange: r.IntN(4) == 0, IdleTimeout: time.Duration(1+r.IntN(2000)) * time.Millisecond}
	cfg.HTTP.HTTP1.EnableTrailers = true
	if r.IntN(3) == 0 {
		cfg.HTTP.MaxRequestsPerConnection = 1 + r.IntN(5)
	}
	switch name {
	case "one", "two":
		cfg.HTTP.Protocol = []cluster.Protocol{cluster.SpeakHTTP1, cluster.SpeakHTTP2, cluster.SpeakDownstream}[r.IntN(3)]
	case "tls":
		cfg.TLS = &cluster.TLS{SNI: []string{"a", "b"}[r.IntN(2)], AnyPeer: true}
		cfg.HTTP.Protocol = []cluster.Protocol{cluster.SpeakHTTP1, cluster.SpeakHTTP2}[r.IntN(2)]
	case "auto":
		cfg.TLS = &cluster.TLS{SNI: "c", AnyPeer: true}
		cfg.HTTP.Protocol = cluster.SpeakAuto
	}
	if err := s.clusters.Update(cfg); err != nil {
		s.t.Error(err)
	}
	s.updateEndpoints(r, name)
}

// updateBytes makes a cluster of one host that byte streams go to.
func (s *stress) updateBytes(name, addr string, t *cluster.TLS) {
	a := &cluster.Assignment{Cluster: name, Localities: []cluster.Locality{{Endpoints: []cluster.Endpoint{endpointAt(addr)}}}}
	if err := s.clusters.Update(&cluster.Config{Name: name, Type: cluster.EDS, TLS: t, Endpoints: a}); err != nil {
		s.t.Error(err)
	}
}

func endpointAt(addr string) (e cluster.Endpoint) {
	host, port, _ := net.SplitHostPort(addr)
	e.Host = host
	e.Port, _ = strconv.Atoi(port)
	return e
}

// updateEndpoints gives a cluster some of the hosts.
func (s *stress) updateEndpoints(r *rand.Rand, name string) {
	all := s.plain
	if name == "tls" || name == "auto" {
		all = s.secured
	}
	a := &cluster.Assignment{Cluster: name, Localities: []cluster.Locality{{}}}
	for i, addr := range all {
		if i > 0 && r.IntN(3) == 0 {
			continue
		}
		a.Localities[0].Endpoints = append(a.Localities[0].Endpoints, endpointAt(addr))
	}
	if err := s.clusters.SetEndpoints(a); err != nil {
		s.t.Error(err)
	}
}

// listener is a listener as it might be.
func (s *stress) listener(r *rand.Rand, name string) *Config {
	c := echoConfig(name)
	chain := &c.Chains[0]
	if name == "tls" || name == "mesh" {
		chain.TLS = &TLS{Certificate: apiID}
	}
	if name == "tcp" || name == "mesh" {
		idle := time.Duration(50+r.IntN(1000)) * time.Millisecond
		chain.TCP = &tcp.Config{Cluster: "raw", IdleTimeout: &idle, AwaitData: r.IntN(2) == 0, MaxEarlyData: 1 << 10}
		if name == "tcp" && r.IntN(2) == 0 {
			chain.TCP.Cluster = "tunnels"
		}
		return c
	}
	chain.TCP = nil
	var routes []route.Route
	for i, name := range stressClusters {
		prefix := fmt.Sprintf("/%d", i)
		f := &route.Forward{Cluster: name, Timeout: 2 * time.Second}
		if r.IntN(2) == 0 {
			f.Retry = &route.RetryPolicy{On: route.Retry5xx | route.RetryConnectFailure | route.RetryRefusedStream, NumRetries: 2,
				BackOffBase: time.Millisecond, AvoidTried: true, Reselections: 2}
			if r.IntN(2) == 0 {
				f.Retry.PerTryTimeout = 10 * time.Millisecond
				f.Hedge = &route.HedgePolicy{OnPerTryTimeout: true}
			}
		}
		if r.IntN(3) == 0 {
			f.Mirrors = []route.Mirror{{Cluster: stressClusters[r.IntN(len(stressClusters))], Share: route.All / 2}}
		}
		f.HighPriority = r.IntN(3) == 0
		routes = append(routes, route.Route{Match: route.Match{Prefix: &prefix}, Forward: f})
	}
	chain.HTTP = &hcm.Config{
		Routes:                &route.Config{VirtualHosts: []route.VirtualHost{{Name: "all", Domains: []string{"*"}, Routes: routes}}},
		HTTP1:                 hcm.HTTP1{EnableTrailers: true},
		IdleTimeout:           time.Duration(20+r.IntN(1000)) * time.Millisecond,
		StreamIdleTimeout:     time.Duration(1+r.IntN(3)) * time.Second,
		Lifetime:              hcm.Lifetime{MaxRequests: []int{0, 0, 7}[r.IntN(3)], DrainTimeout: 50 * time.Millisecond},
		ServerName:            "stress",
		RequestHeadersTimeout: time.Second,
	}
	return c
}

// disturb changes something, as a control plane or an operator does.
func (s *stress) disturb(r *rand.Rand) {
	name := stressClusters[r.IntN(len(stressClusters))]
	switch r.IntN(12) {
	case 0, 1, 2, 3:
		s.updateEndpoints(r, name)
	case 4, 5:
		s.updateCluster(r, name)
	case 6:
		s.clusters.Remove(name)
		s.updateCluster(r, name)
	case 7, 8:
		if err := s.m.Apply(s.listener(r, stressListeners[r.IntN(len(stressListeners))])); err != nil {
			s.t.Error(err)
		}
	case 9:
		if r.IntN(5) == 0 {
			s.clusters.CloseConns(func(string, *stream.Info) bool { return rand.N(10) == 0 })
		}
	case 10:
		for _, c := range s.m.Conns() {
			if r.IntN(10) == 0 {
				c.StartDrain()
			}
		}
	case 11:
		for _, c := range s.m.Conns() {
			if r.IntN(20) == 0 {
				flags := []telemetry.Flags{0, telemetry.FlagPolicyClosed}[r.IntN(2)]
				c.End(downstream.Ending{Flags: flags, Reason: "stress"})
			}
		}
	}
}

// settled fails unless all that is counted comes to nothing.
func (s *stress) settled() {
	for _, c := range s.clusters.All() {
		_ = s.clusters.SetEndpoints(&cluster.Assignment{Cluster: c.Name()})
	}
	left := ""
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		var out bytes.Buffer
		_ = s.metrics.Registry.WritePrometheus(&out)
		left = ""
		for line := range strings.Lines(out.String()) {
			value := line[strings.LastIndexByte(line, ' ')+1:]
			switch {
			case strings.HasPrefix(line, "hauberk_connections_open{"), strings.HasPrefix(line, "hauberk_upstream_connections_open{"),
				strings.HasPrefix(line, "hauberk_upstream_requests_active{"):
				if value != "0\n" {
					left += line
				}
			case strings.HasPrefix(line, "hauberk_upstream_limit_remaining{"):
				if value != fmt.Sprintf("%d\n", stressLimit) {
					left += line
				}
			}
		}
		if left == "" {
			return
		}
	}
	s.t.Errorf("in the end there are:\n%s", left)
}

// each runs clients until the time is over.
func (s *stress) each(n int, f func(r *rand.Rand)) {
	for i := range n {
		seed := s.seed + uint64(i)
		s.clients.Go(func() {
			for r := rand.New(rand.NewPCG(seed, 2)); !s.over.Load(); {
				f(r)
			}
		})
	}
}

// enough tells whether each kind of client got answers.
func (s *stress) enough() bool {
	for i := range s.whole {
		if s.whole[i].Load() < 5 {
			return false
		}
	}
	return true
}

// TestStress: whatever clients, hosts and control planes do at the same time, each answer is
// its request's, and nothing is left in the end. It says what it began with. It is in the
// last file: after it, turns (package fair) are for a while as they are on a busy machine,
// which tests of turns do not expect.
func TestStress(t *testing.T) {
	before := sockets(t)
	t.Run("all at once", func(t *testing.T) {
		s := newStress(t)
		s.each(6, func(r *rand.Rand) { s.speak1(r, 0, "plain") })
		s.each(4, func(r *rand.Rand) { s.speak1(r, 1, "tls") })
		s.each(3, func(r *rand.Rand) { s.speak1(r, 3, "tcp") })
		for _, secured := range []bool{true, false} {
			transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, Protocols: new(http.Protocols),
				HTTP2: &http.HTTP2Config{MaxReceiveBufferPerConnection: 64 << 10, MaxReceiveBufferPerStream: 16 << 10}}
			base := "http://" + s.m.Addrs()["plain"].String()
			if transport.Protocols.SetUnencryptedHTTP2(!secured); secured {
				transport.Protocols.SetHTTP2(true)
				base = "https://" + s.m.Addrs()["tls"].String()
			}
			s.closers = append(s.closers, transport.CloseIdleConnections)
			s.each(8, func(r *rand.Rand) { s.speak2(r, &http.Client{Transport: transport}, base) })
		}
		r := rand.New(rand.NewPCG(s.seed, 3))
		for began := time.Now(); !t.Failed(); time.Sleep(time.Duration(r.IntN(6)) * time.Millisecond) {
			if took := time.Since(began); took > *stressFor && (s.enough() || took > 5**stressFor) {
				return
			}
			s.disturb(r)
		}
	})
	left := 0
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if left = sockets(t); left <= before {
			return
		}
	}
	t.Errorf("%d sockets were open before and %d are now", before, left)
}

// sockets is how many sockets the process has.
func sockets(t *testing.T) (n int) {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if to, err := os.Readlink("/proc/self/fd/" + f.Name()); err == nil && strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}

package ads

import (
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// counter tells when all sessions have acknowledged a change.
type counter struct {
	NopObserver
	acked *sync.WaitGroup
}

func (c counter) Converged(_ SessionInfo, v Convergence) {
	if !v.Initial {
		c.acked.Done()
	}
}

// BenchmarkOneChangeToAllSessions: 1,000 delta sessions over gRPC in this
// process, each with 30 clusters, their endpoints and a listener; one assignment
// changes and all acknowledge it. The clients' CPU is in the figure.
func BenchmarkOneChangeToAllSessions(b *testing.B) {
	const sessions, clusters = 1000, 30
	var rs []*resource.Resource
	var names []string
	for i := range clusters {
		n := fmt.Sprintf("svc-%02d.default.dc1.internal.td", i)
		names = append(names, n)
		rs = append(rs, cl(n, "1"), ep(n, "1"))
	}
	rs = append(rs, ls("in", "1"))
	bd := newBoard(set(rs...))
	var acked sync.WaitGroup
	srv := New(Config{Provider: bd, Observer: counter{acked: &acked}})
	c := serve(b, srv)
	var ready, ended sync.WaitGroup
	for i := range sessions {
		s, err := c.DeltaAggregatedResources(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		for j, m := range []*discoveryv3.DeltaDiscoveryRequest{
			{Node: &corev3.Node{Id: fmt.Sprint(i)}, TypeUrl: cds}, {TypeUrl: lds}, {TypeUrl: eds, ResourceNamesSubscribe: names},
		} {
			if err := s.Send(m); err != nil {
				b.Fatal(j, err)
			}
		}
		ready.Add(3)
		ended.Go(func() {
			for n := 0; ; n++ {
				m, err := s.Recv()
				if err != nil {
					return
				}
				if err := s.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: m.TypeUrl, ResponseNonce: m.Nonce}); err != nil {
					return
				}
				if n < 3 {
					ready.Done()
				}
			}
		})
	}
	ready.Wait()
	for len(notInSync(srv)) > 0 {
		time.Sleep(10 * time.Millisecond)
	}
	b.ResetTimer()
	start := cpu()
	for i := 0; b.Loop(); i++ {
		acked.Add(sessions)
		next := &resource.Set{ByType: map[string]map[string]*resource.Resource{}}
		for url, m := range bd.Current().ByType {
			next.ByType[url] = m
		}
		next.ByType[eds] = map[string]*resource.Resource{}
		for n, r := range bd.Current().ByType[eds] {
			next.ByType[eds][n] = r
		}
		next.ByType[eds][names[0]] = ep(names[0], fmt.Sprint("v", i))
		bd.publish(next)
		acked.Wait()
	}
	b.ReportMetric(float64(cpu()-start)/1e6/float64(b.N), "cpu-ms/op")
	b.Cleanup(ended.Wait)
}

func notInSync(s *Server) (out []uint64) {
	for _, st := range s.Sessions() {
		if !st.InSync {
			out = append(out, st.ID)
		}
	}
	return out
}

// BenchmarkDecide is the core's share of one change: a session that sees 1,000
// clusters by wildcard, one of which changes.
func BenchmarkDecide(b *testing.B) {
	var rs []*resource.Resource
	for i := range 1000 {
		rs = append(rs, cl(fmt.Sprint(i), "1"))
	}
	p := newDriver(&testing.T{}, true, set(rs...))
	p.subscribe(cds)
	p.settle()
	versions := [2]*resource.Set{set(with(rs, cl("1", "2"))...), set(rs...)}
	for i := 0; b.Loop(); i++ {
		p.c.setView(versions[i%2])
		out, _ := p.c.next(p.now)
		for _, r := range out {
			p.c.answered(p.c.types[cds], r.nonce, false, "", p.now)
		}
	}
}

package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"

	"github.com/hauberk-mesh/hauberk/xds/ads"
	"github.com/hauberk-mesh/hauberk/xds/adstest"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

func TestClientFollowsItsControlPlane(t *testing.T) {
	protocols(t, func(t *testing.T, sotw bool) {
		synctest.Test(t, func(t *testing.T) {
			b := adstest.NewBoard(mesh()...)
			p := newPlane(t, "cp1", ads.New(ads.Config{Provider: b, Identifier: "one"}))
			m := newMirror()
			c, _ := run(t, m, Config{Servers: []Server{p.server()}, SotW: sotw, Node: Node{
				ID: "n1", Cluster: "web", Version: "1.2.3", Features: []string{"hauberk.cap.rbac"},
				Metadata: map[string]any{"k": []any{"v"}}, Region: "eu",
			}})
			<-c.Synced()
			eventually(t, func() string { return m.differs(mesh()) })
			for i, next := range [][]*resource.Resource{
				with(mesh(), ep("a", "2")),
				with(mesh(), cl("c", "1"), ep("c", "1"), rt("r", "2", "c")),
				without(without(with(mesh(), rt("r", "3", "b")), cds, "a"), eds, "a"),
				without(without(mesh(), lds, "out"), rds, "r"),
				nil,
				mesh(),
			} {
				b.Publish(next...)
				eventually(t, func() string {
					if d := m.differs(next); d != "" {
						return fmt.Sprintf("change %d: %s", i, d)
					}
					return ""
				})
			}
			st := c.Status()
			if !st.Connected || !st.Synced || st.Server != "cp1" || st.Identifier != "one" || st.FromCache || len(st.Types) != 4 {
				t.Errorf("%+v", st)
			}
			if got := c.Resources(); len(got) != len(mesh()) || got[0].Type != cds {
				t.Errorf("resources %v", got)
			}
			want := ads.Client{
				NodeID: "n1", Cluster: "web", UserAgent: UserAgent, Version: "1.2.3", Features: []string{"hauberk.cap.rbac"},
				Metadata: map[string]any{"k": []any{"v"}}, RemoteAddr: "bufconn", Delta: !sotw,
			}
			if d := cmp.Diff(want, b.Clients()[0]); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
		})
	})
}

func TestRejectedResourcesLeaveTheOthersAccepted(t *testing.T) {
	protocols(t, func(t *testing.T, sotw bool) {
		synctest.Test(t, func(t *testing.T) {
			b := adstest.NewBoard(mesh()...)
			srv := ads.New(ads.Config{Provider: b})
			m := newMirror()
			c, _ := run(t, m, Config{Servers: []Server{newPlane(t, "cp", srv).server()}, SotW: sotw})
			<-c.Synced()
			bad := cl("b", "bad")
			m.reject(func(r *resource.Resource) error {
				if r.Name == "b" && r.Version == bad.Version {
					return errors.New("lb_policy: not one we have")
				}
				return nil
			})
			b.Publish(with(mesh(), bad, cl("c", "1"), ep("c", "1"))...)
			want := with(mesh(), cl("c", "1"), ep("c", "1"))
			eventually(t, func() string { return m.differs(want) })
			time.Sleep(time.Second)
			st, _ := srv.Session(srv.Sessions()[0].ID)
			if st.InSync || st.Types[0].Nacked != 1 || st.Types[0].LastError != "b: lb_policy: not one we have" {
				t.Fatalf("%+v", st.Types[0])
			}
			if got := c.Status().Types[0]; got.Accepted["b"] != cl("b", "1").Version {
				t.Fatalf("the last good version is not kept: %+v", got)
			} else if !sotw && got.Rejected["b"] == "" {
				t.Fatalf("the reason is not kept: %+v", got)
			}
			b.Publish(with(want, cl("b", "3"))...)
			eventually(t, func() string { return m.differs(with(want, cl("b", "3"))) })
			if got := c.Status().Types[0].Rejected; len(got) > 0 {
				t.Fatalf("rejected %v", got)
			}
		})
	})
}

func TestStreamLossKeepsEverythingAndResumes(t *testing.T) {
	protocols(t, func(t *testing.T, sotw bool) {
		synctest.Test(t, func(t *testing.T) {
			b := adstest.NewBoard(mesh()...)
			p := newPlane(t, "cp", ads.New(ads.Config{Provider: b}))
			m := newMirror()
			c, _ := run(t, m, Config{Servers: []Server{p.server()}, SotW: sotw})
			<-c.Synced()
			time.Sleep(time.Second)
			p.stop()
			time.Sleep(time.Minute)
			if st := c.Status(); st.Connected || st.LastError == "" || st.LastErrorAt.IsZero() {
				t.Fatalf("%+v", st)
			}
			if d := m.differs(mesh()); d != "" {
				t.Fatal("lost with the stream: " + d)
			}
			before := len(m.seen())
			next := without(without(with(mesh(), ep("a", "2"), rt("r", "2", "a")), cds, "b"), eds, "b")
			b.Publish(next...)
			p.start()
			eventually(t, func() string { return m.differs(next) })
			if sotw {
				return
			}
			for _, u := range m.seen()[before:] {
				for _, r := range u.Upserts {
					if r.Name != "a" && r.Name != "r" || r.Type == cds {
						t.Errorf("%s %s was sent though unchanged", r.Type, r.Name)
					}
				}
			}
		})
	})
}

// capture is a server that keeps the requests of each stream.
type capture struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	mu      sync.Mutex
	streams [][]*discoveryv3.DeltaDiscoveryRequest
	respond func(stream int, m *discoveryv3.DeltaDiscoveryRequest) (*discoveryv3.DeltaDiscoveryResponse, error)
}

func (c *capture) DeltaAggregatedResources(s discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	c.mu.Lock()
	n := len(c.streams)
	c.streams = append(c.streams, nil)
	c.mu.Unlock()
	for {
		m, err := s.Recv()
		if err != nil {
			return nil
		}
		c.mu.Lock()
		c.streams[n] = append(c.streams[n], m)
		c.mu.Unlock()
		r, err := c.respond(n, m)
		if err != nil {
			return err
		}
		if r != nil {
			if err := s.Send(r); err != nil {
				return err
			}
		}
	}
}

func (c *capture) requests(stream int) []*discoveryv3.DeltaDiscoveryRequest {
	c.mu.Lock()
	defer c.mu.Unlock()
	if stream >= len(c.streams) {
		return nil
	}
	return slices.Clone(c.streams[stream])
}

func deltaResponse(nonce string, rs ...*resource.Resource) *discoveryv3.DeltaDiscoveryResponse {
	m := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: rs[0].Type, Nonce: nonce}
	for _, r := range rs {
		m.Resources = append(m.Resources, &discoveryv3.Resource{Name: r.Name, Version: r.Version, Resource: r.Body})
	}
	return m
}

func TestInitialVersionsNameOnlyWhatWasAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &capture{}
		srv.respond = func(stream int, m *discoveryv3.DeltaDiscoveryRequest) (*discoveryv3.DeltaDiscoveryResponse, error) {
			switch {
			case stream == 0 && m.TypeUrl == cds && m.ResponseNonce == "":
				return deltaResponse("1", cl("a", "1"), cl("bad", "1")), nil
			case stream == 0 && m.ResponseNonce == "1":
				return nil, errors.New("restart")
			}
			return nil, nil
		}
		m := newMirror()
		m.reject(func(r *resource.Resource) error {
			if r.Name == "bad" {
				return errors.New("no")
			}
			return nil
		})
		run(t, m, Config{Servers: []Server{newPlane(t, "cp", srv).server()}})
		eventually(t, func() string {
			if len(srv.requests(1)) < 3 {
				return "no second stream"
			}
			return ""
		})
		first := srv.requests(0)
		nack := first[len(first)-1]
		if nack.ErrorDetail.GetMessage() != "bad: no" || nack.ErrorDetail.GetCode() != 3 {
			t.Errorf("NACK %v", nack)
		}
		again := srv.requests(1)
		if d := cmp.Diff(map[string]string{"a": cl("a", "1").Version}, again[0].InitialResourceVersions); d != "" {
			t.Errorf("-want +got\n%s", d)
		}
		var order []string
		for _, m := range again {
			order = append(order, m.TypeUrl)
		}
		if d := cmp.Diff([]string{cds, eds, lds}, order); d != "" {
			t.Errorf("order of requests -want +got\n%s", d)
		}
		if again[0].Node == nil || again[1].Node != nil || len(again[0].ResourceNamesSubscribe) != 0 || again[0].ResponseNonce != "" {
			t.Errorf("first requests %v", again[:2])
		}
		if d := cmp.Diff([]string{"a"}, again[1].ResourceNamesSubscribe); d != "" {
			t.Errorf("endpoints -want +got\n%s", d)
		}
	})
}

func TestUnreadableResourcesAreRejectedByName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &capture{}
		srv.respond = func(_ int, m *discoveryv3.DeltaDiscoveryRequest) (*discoveryv3.DeltaDiscoveryResponse, error) {
			if m.TypeUrl != cds || m.ResponseNonce != "" {
				return nil, nil
			}
			r := deltaResponse("1", cl("good", "1"), cl("twice", "1"), cl("twice", "2"))
			r.Resources = append(r.Resources,
				&discoveryv3.Resource{Name: "wrong", Version: "1", Resource: ls("wrong", "1", "").Body},
				&discoveryv3.Resource{Version: "1", Resource: cl("x", "1").Body},
				&discoveryv3.Resource{Name: "empty", Version: "1"})
			return r, nil
		}
		m := newMirror()
		run(t, m, Config{Servers: []Server{newPlane(t, "cp", srv).server()}})
		nack := ""
		eventually(t, func() string {
			for _, r := range srv.requests(0) {
				if r.ResponseNonce == "1" {
					nack = r.ErrorDetail.GetMessage()
					return ""
				}
			}
			return "no answer"
		})
		for _, want := range []string{
			"twice: resource: appears twice", "wrong: resource: type \"" + lds + "\"", "resources[4]: has no name", "empty: resource: type \"\"",
		} {
			if !strings.Contains(nack, want) {
				t.Errorf("NACK %q does not say %q", nack, want)
			}
		}
		if d := cmp.Diff([]string{"good"}, m.names(cds)); d != "" {
			t.Errorf("accepted -want +got\n%s", d)
		}
	})
}

func TestUnaskedTypesAndNamesAreIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &capture{}
		srv.respond = func(_ int, m *discoveryv3.DeltaDiscoveryRequest) (*discoveryv3.DeltaDiscoveryResponse, error) {
			switch {
			case m.TypeUrl == cds && m.ResponseNonce == "":
				return deltaResponse("1", cl("a", "1")), nil
			case m.TypeUrl == eds && m.ResponseNonce == "":
				return deltaResponse("2", ep("a", "1"), ep("other", "1")), nil
			case m.TypeUrl == lds && m.ResponseNonce == "":
				return deltaResponse("3", rt("r", "1", "a")), nil
			}
			return nil, nil
		}
		m := newMirror()
		run(t, m, Config{Servers: []Server{newPlane(t, "cp", srv).server()}})
		eventually(t, func() string { return m.differs([]*resource.Resource{cl("a", "1"), ep("a", "1")}) })
		time.Sleep(time.Second)
		for _, r := range srv.requests(0) {
			if r.TypeUrl == rds {
				t.Errorf("an unasked type became a subscription: %v", r)
			}
			if r.ErrorDetail != nil {
				t.Errorf("NACK %v", r)
			}
		}
	})
}

func TestBackoffIsJitteredAndBounded(t *testing.T) {
	c := &Client{cfg: Config{BackoffBase: 200 * time.Millisecond, BackoffMax: 10 * time.Second}}
	for round, bound := range []time.Duration{200, 400, 800, 1600, 3200, 6400, 10000, 10000} {
		var low, high time.Duration = time.Hour, 0
		for range 2000 {
			d := c.backoff(round)
			low, high = min(low, d), max(high, d)
		}
		bound *= time.Millisecond
		if high > bound+time.Millisecond || high < bound*9/10 || low > bound/10 {
			t.Errorf("round %d: between %v and %v, want all of 0 to %v", round, low, high, bound)
		}
	}
	if d := c.backoff(1000); d > 11*time.Second {
		t.Errorf("round 1000: %v", d)
	}
}

func TestEveryControlPlaneIsTried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := adstest.NewBoard(mesh()...)
		var servers []Server
		var planes []*plane
		for i := range 3 {
			p := newPlane(t, fmt.Sprint("cp", i), ads.New(ads.Config{Provider: b}))
			planes = append(planes, p)
			servers = append(servers, p.server())
		}
		m := newMirror()
		c, _ := run(t, m, Config{Servers: servers})
		<-c.Synced()
		// Whichever it is connected to goes; it finds the next.
		for range 2 {
			name := c.Status().Server
			for _, p := range planes {
				if p.name == name {
					p.stop()
				}
			}
			eventually(t, func() string {
				if st := c.Status(); !st.Connected || st.Server == name {
					return "still at " + name
				}
				return ""
			})
		}
		b.Publish(with(mesh(), ep("a", "2"))...)
		eventually(t, func() string { return m.differs(with(mesh(), ep("a", "2"))) })
	})
}

func TestControlPlaneThatDoesNotAnswerIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		silent := &capture{respond: func(int, *discoveryv3.DeltaDiscoveryRequest) (*discoveryv3.DeltaDiscoveryResponse, error) {
			return nil, nil
		}}
		m := newMirror()
		c, _ := run(t, m, Config{Servers: []Server{
			newPlane(t, "silent", silent).server(),
			newPlane(t, "good", ads.New(ads.Config{Provider: adstest.NewBoard(mesh()...)})).server(),
		}})
		begin := time.Now()
		<-c.Synced()
		if st := c.Status(); st.Server != "good" || time.Since(begin) > answerTimeout+time.Second {
			t.Fatalf("%+v after %v", st, time.Since(begin))
		}
	})
}

// TestRepeatedNackSlowsDown: a server that sends what was just rejected again at
// once is answered ever more slowly.
func TestRepeatedNackSlowsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &capture{}
		n := 0
		srv.respond = func(_ int, m *discoveryv3.DeltaDiscoveryRequest) (*discoveryv3.DeltaDiscoveryResponse, error) {
			if m.TypeUrl != cds {
				return nil, nil
			}
			n++
			return deltaResponse(fmt.Sprint(n), cl("bad", "1")), nil
		}
		m := newMirror()
		m.reject(func(*resource.Resource) error { return errors.New("no") })
		_, stop := run(t, m, Config{Servers: []Server{newPlane(t, "cp", srv).server()}})
		time.Sleep(20 * time.Second)
		stop()
		if got := len(m.seen()); got < 3 || got > 15 {
			t.Fatalf("%d responses in 20 s", got)
		}
	})
}

func TestSyncedWaitsForRoutesAndEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &capture{}
		var mu sync.Mutex
		late := false
		srv.respond = func(_ int, m *discoveryv3.DeltaDiscoveryRequest) (*discoveryv3.DeltaDiscoveryResponse, error) {
			mu.Lock()
			defer mu.Unlock()
			if m.ResponseNonce != "" && !(late && m.TypeUrl == cds) {
				return nil, nil
			}
			switch m.TypeUrl {
			case cds:
				return deltaResponse("c", cl("a", "1")), nil
			case lds:
				r := deltaResponse("l", ls("in", "1", ""))
				r.SystemVersionInfo = "1" + resource.PartialSuffix
				return r, nil
			}
			return nil, nil
		}
		m := newMirror()
		c, _ := run(t, m, Config{Servers: []Server{newPlane(t, "cp", srv).server()}})
		time.Sleep(time.Second)
		for _, step := range []func(){
			func() { c.handle(Server{}, &answer{url: eds, removed: []string{"a"}}) },
			func() { c.handle(Server{}, &answer{url: lds}) },
		} {
			select {
			case <-c.Synced():
				t.Fatal("synced too early")
			default:
			}
			step()
		}
		select {
		case <-c.Synced():
		default:
			t.Fatal("not synced")
		}
	})
}

func TestConfigIsChecked(t *testing.T) {
	dial := func(context.Context) (grpc.ClientConnInterface, error) { return nil, nil }
	ok := Config{Servers: []Server{{Dial: dial}}, Node: Node{ID: "n"}, Handler: newMirror()}
	for want, change := range map[string]func(*Config){
		"no control plane": func(c *Config) { c.Servers = nil },
		"no dialer":        func(c *Config) { c.Servers = []Server{{Name: "x"}} },
		"node.id":          func(c *Config) { c.Node.ID = "" },
		"no handler":       func(c *Config) { c.Handler = nil },
		"metadata":         func(c *Config) { c.Node.Metadata = map[string]any{"x": make(chan int)} },
	} {
		cfg := ok
		change(&cfg)
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one about %q", err, want)
		}
	}
	if _, err := New(ok); err != nil {
		t.Error(err)
	}
}

func TestNackTextIsBounded(t *testing.T) {
	errs := map[string]error{}
	for i := range 1000 {
		errs[fmt.Sprintf("r%04d", i)] = errors.New(strings.Repeat("x", 100))
	}
	got := describe(errs)
	if len(got) > maxDetail+100 || !strings.HasSuffix(got, " more") || !strings.HasPrefix(got, "r0000: xxx") {
		t.Fatalf("%d bytes: %.40q … %q", len(got), got, got[len(got)-40:])
	}
	if got := describe(map[string]error{"a": errors.New("p: \xff")}); got != "a: p: ?" {
		t.Fatalf("%q", got)
	}
}

// closer is a connection that counts its closings.
type closer struct {
	grpc.ClientConnInterface
	closed *int
}

func (c closer) Close() error { *c.closed++; return nil }

func (c closer) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, errors.New("refused")
}

func TestConnectionsAreClosedUnlessShared(t *testing.T) {
	closed := 0
	conn := closer{closed: &closed}
	c, err := New(Config{Servers: []Server{{Dial: func(context.Context) (grpc.ClientConnInterface, error) { return conn, nil }}},
		Node: Node{ID: "n"}, Handler: newMirror()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.stream(t.Context(), c.cfg.Servers[0]); err == nil || closed != 1 {
		t.Fatalf("closed %d times, %v", closed, err)
	}
	c.cfg.Servers[0].Dial = func(context.Context) (grpc.ClientConnInterface, error) { return Shared(conn), nil }
	if _, err := c.stream(t.Context(), c.cfg.Servers[0]); err == nil || closed != 1 {
		t.Fatalf("a shared connection was closed, %v", err)
	}
	c.cfg.Servers[0].Dial = func(context.Context) (grpc.ClientConnInterface, error) { return Shared(nil), nil }
	if _, err := c.stream(t.Context(), c.cfg.Servers[0]); err == nil || !strings.Contains(err.Error(), "no connection yet") {
		t.Fatal(err)
	}
}

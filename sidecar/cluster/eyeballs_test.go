package cluster

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/panics/panicstest"
)

// dialled is a connection of a test.
type dialled struct {
	net.Conn
	closed chan struct{}
}

func (d *dialled) Close() error { close(d.closed); return nil }

// TestOtherAddresses: where the first address of a name is not to be connected to, or not
// soon, another is, and what comes later is closed.
func TestOtherAddresses(t *testing.T) {
	const v4, other, v6 = "10.0.0.1:80", "10.0.0.2:80", "[::1]:80"
	type attempt struct {
		after time.Duration
		fails bool
		panic bool
	}
	for name, tc := range map[string]struct {
		to   map[string]attempt
		want string
		at   time.Duration
		asks []string
	}{
		"the first":            {map[string]attempt{}, v4, 0, []string{v4}},
		"refused":              {map[string]attempt{v4: {fails: true}}, v6, 0, []string{v4, v6}},
		"two refused":          {map[string]attempt{v4: {fails: true}, v6: {fails: true}}, other, 0, []string{v4, v6, other}},
		"all refused":          {map[string]attempt{v4: {fails: true}, v6: {fails: true}, other: {fails: true}}, "", 0, []string{v4, v6, other}},
		"silent":               {map[string]attempt{v4: {after: time.Hour}}, v6, 300 * time.Millisecond, []string{v4, v6}},
		"slow":                 {map[string]attempt{v4: {after: 400 * time.Millisecond}, v6: {after: time.Hour}}, v4, 400 * time.Millisecond, []string{v4, v6}},
		"both at last":         {map[string]attempt{v4: {after: 400 * time.Millisecond}, v6: {after: 200 * time.Millisecond}}, v4, 400 * time.Millisecond, []string{v4, v6}},
		"all silent":           {map[string]attempt{v4: {after: time.Hour}, v6: {after: time.Hour}, other: {after: time.Hour}}, "", 5 * time.Second, []string{v4, v6, other}},
		"a fault of the first": {map[string]attempt{v4: {panic: true}}, v6, 0, []string{v4, v6}},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.to[v4].panic {
				panicstest.Expect(t, panics.Dial, 1)
			}
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				var asked []string
				made := map[string]*dialled{}
				dial := func(ctx context.Context, _, addr string) (net.Conn, error) {
					mu.Lock()
					asked = append(asked, addr)
					mu.Unlock()
					how := tc.to[addr]
					if how.panic {
						panic("dial")
					}
					if how.after == 400*time.Millisecond || how.after == 200*time.Millisecond {
						time.Sleep(how.after) // whatever ctx says
					} else if how.after > 0 {
						<-ctx.Done()
						return nil, ctx.Err()
					}
					if how.fails {
						return nil, errors.New("refused")
					}
					mu.Lock()
					defer mu.Unlock()
					made[addr] = &dialled{closed: make(chan struct{})}
					return made[addr], nil
				}
				dns := &fakeDNS{}
				dns.set(nil, "10.0.0.1", "10.0.0.2", "::1")
				m := NewManager(Options{Resolver: dns, Dial: dial})
				defer m.Close()
				c := mustUpdate(t, m, &Config{Name: "c", Type: LogicalDNS, Endpoints: namesOn(80, "api.example"), DNS: &DNS{Family: AllFamilies}})
				synctest.Wait()
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				begun := time.Now()
				conn, err := c.hosts()[0].connect(ctx, c.cfg.Load())
				if took := time.Since(begun); took != tc.at {
					t.Errorf("took %v", took)
				}
				time.Sleep(time.Second)
				synctest.Wait()
				mu.Lock()
				defer mu.Unlock()
				if !slices.Equal(asked, tc.asks) {
					t.Errorf("asked %v", asked)
				}
				if tc.want == "" {
					if err == nil {
						t.Error("connected")
					}
					return
				}
				if conn == nil || conn != net.Conn(made[tc.want]) {
					t.Fatalf("%v: %v", conn, err)
				}
				for addr, d := range made {
					select {
					case <-d.closed:
						if addr == tc.want {
							t.Error("it is closed")
						}
					default:
						if addr != tc.want {
							t.Errorf("the connection to %s was left open", addr)
						}
					}
				}
			})
		})
	}
}

// TestFurtherAddresses: a host's addresses are tried in Envoy's order, and the first that is there is
// connected to.
func TestFurtherAddresses(t *testing.T) {
	const a, b, c, x, y = "10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1", "[::1]:1", "[::2]:1"
	for name, tc := range map[string]struct {
		order     *Eyeballs
		all, want []string
	}{
		"by default":        {nil, []string{a, b, x, y}, []string{a, x, b, y}},
		"IPv6 first":        {nil, []string{x, a, b, y}, []string{x, a, y, b}},
		"one family":        {nil, []string{b, a}, []string{b, a}},
		"IPv6 wanted":       {&Eyeballs{Family: IPv6Only}, []string{a, b, x}, []string{x, a, b}},
		"IPv6 is not there": {&Eyeballs{Family: IPv6Only}, []string{a, b}, []string{a, b}},
		"IPv4 wanted":       {&Eyeballs{Family: IPv4Only}, []string{x, y, a}, []string{a, x, y}},
		"two of the first":  {&Eyeballs{First: 2}, []string{a, x, b, y, c}, []string{a, b, x, c, y}},
	} {
		if got := tc.order.sorted(tc.all); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	there := l.Addr().(*net.TCPAddr).AddrPort()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := closed.Addr().(*net.TCPAddr).Port
	_ = closed.Close()
	cl := mustUpdate(t, newManager(t, Options{}), &Config{Name: "c", Endpoints: &Assignment{Localities: []Locality{{Endpoints: []Endpoint{
		{Host: "127.0.0.1", Port: port, Also: []netip.AddrPort{there}},
	}}}}})
	h := cl.hosts()[0]
	conn, err := h.connect(t.Context(), cl.cfg.Load())
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	if to := conn.RemoteAddr().String(); to != there.String() {
		t.Errorf("connected to %s", to)
	}
}

// TestChecksAskOneAddress: a host whose own address does not answer is not healthy because a further
// one does, at the port that is checked or not.
func TestChecksAskOneAddress(t *testing.T) {
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := closed.Addr().(*net.TCPAddr).Port
	_ = closed.Close()
	for name, check := range map[string]EndpointCheck{"its own": {}, "another port": {Port: port}} {
		t.Run(name, func(t *testing.T) {
			e := Endpoint{Host: "127.0.0.1", Port: port, Also: []netip.AddrPort{l.Addr().(*net.TCPAddr).AddrPort()}}
			if check.Port != 0 {
				e.Port, e.Check = 1, &check
			}
			c := mustUpdate(t, newManager(t, Options{}), &Config{Name: "c", Endpoints: &Assignment{Localities: []Locality{{Endpoints: []Endpoint{e}}}}})
			h := c.hosts()[0]
			k := &checker{h: h, cfg: &HealthCheck{TCP: &TCPCheck{}}, endpoint: e.check()}
			if st, err := k.connect(t.Context(), c.cfg.Load()); err == nil {
				t.Errorf("the check asked %v", st.Info().Remote)
				_ = st.Close()
			}
		})
	}
}

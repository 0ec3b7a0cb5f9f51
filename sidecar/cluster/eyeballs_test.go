package cluster

import (
	"context"
	"errors"
	"net"
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

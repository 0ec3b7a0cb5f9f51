package http2

import (
	"io"
	"sync"
	"testing"
	"time"
)

// TestTunnelsLeaveNoWindowTaken: however a tunnel ends at its client, whose stream is
// given back by nobody, the connection's window has all of its bytes again; otherwise
// those that come later would stand still.
func TestTunnelsLeaveNoWindowTaken(t *testing.T) {
	remoteEnd := func(t *testing.T, near *Tunnel) {
		t.Helper()
		eventually(t, "the end has not come", func() bool {
			near.s.c.mu.Lock()
			defer near.s.c.mu.Unlock()
			return near.s.remoteEnd
		})
	}
	for name, use := range map[string]func(t *testing.T, near, far *Tunnel){
		"left while a chunk is lent": func(t *testing.T, near, far *Tunnel) {
			if _, err := near.ReadChunk(); err != nil {
				t.Fatal(err)
			}
		},
		"ended with the last chunk": func(t *testing.T, near, far *Tunnel) {
			_ = far.CloseWrite()
			remoteEnd(t, near)
			for {
				if _, err := near.ReadChunk(); err == io.EOF {
					break
				} else if err != nil {
					t.Fatal(err)
				}
			}
			_ = near.CloseWrite()
		},
		"ended and not read": func(t *testing.T, near, far *Tunnel) {
			_ = near.CloseWrite()
			_ = far.CloseWrite()
			remoteEnd(t, near)
		},
	} {
		t.Run(name, func(t *testing.T) {
			ends, hold := make(chan *Tunnel, 1), make(chan bool)
			srv := serve(t, nil, tunnelServer(ends, hold))
			defer close(hold)
			cfg := Default()
			cfg.StreamWindow, cfg.ConnWindow = initialWindow, initialWindow
			cc := dialClient(t, srv.addr, cfg)
			piece := make([]byte, 12<<10)
			for range 2 * initialWindow / len(piece) {
				near, far, _ := tunnel(t, cc, requests()["connect"], ends)
				defer far.Close() // which takes its deadline off
				_ = far.SetWriteDeadline(time.Now().Add(5 * time.Second))
				if _, err := far.Write(piece); err != nil {
					t.Fatalf("the window is used up: %v", err)
				}
				use(t, near, far)
				_ = near.Close()
			}
		})
	}
}

// TestTunnelWindows: the window of a tunnel that is read grows, as a socket's buffer does,
// and all together stay within the connection's: those that stand still hold up nobody.
func TestTunnelWindows(t *testing.T) {
	const tunnels, read = 24, 2 << 20
	ends, hold := make(chan *Tunnel, 1), make(chan bool)
	srv := serve(t, ForTunnels(), tunnelServer(ends, hold))
	defer close(hold)
	cc := dialClient(t, srv.addr, ForTunnels())
	var wg sync.WaitGroup
	defer wg.Wait()
	open := func() (near, far *Tunnel) {
		near, far, _ = tunnel(t, cc, requests()["connect"], ends)
		wg.Go(func() {
			for b := make([]byte, 64<<10); ; {
				if _, err := far.Write(b); err != nil {
					return
				}
			}
		})
		return near, far
	}
	windows := func() (all, widest int64) {
		cc.mu.Lock()
		defer cc.mu.Unlock()
		for _, s := range cc.streams {
			all += s.window
			widest = max(widest, s.window)
		}
		return all, widest
	}
	near := make([]*Tunnel, tunnels)
	for i := range near {
		near[i], _ = open()
		defer near[i].Release()
		if _, err := io.CopyN(io.Discard, near[i], read); err != nil {
			t.Fatal(err)
		}
		if _, widest := windows(); i == 0 && widest != 1<<20 {
			t.Errorf("the window of one that is read has grown to %d", widest)
		}
	}
	cfg := ForTunnels()
	rest := int64(cfg.MaxConcurrentStreams-tunnels) * int64(cfg.StreamWindow)
	if all, _ := windows(); all+rest >= int64(cfg.ConnWindow) || cfg.ConnWindow > 32<<20 {
		t.Errorf("the tunnels may hold %d bytes and more to come %d, of a window of %d", all, rest, cfg.ConnWindow)
	}
	late, _ := open()
	if _, err := io.CopyN(io.Discard, late, read); err != nil {
		t.Errorf("beside others that stand still: %v", err)
	}
	late.Release()
	for _, n := range near {
		_ = n.Close()
	}
	cc.mu.Lock()
	defer cc.mu.Unlock()
	if cc.spare != int64(cfg.SpareWindow) {
		t.Errorf("%d bytes of growth are left when all have ended, want %d", cc.spare, cfg.SpareWindow)
	}
}

// TestGrowthIsGivenBack: by whatever a tunnel ends whose window has grown.
func TestGrowthIsGivenBack(t *testing.T) {
	for name, end := range map[string]func(cc *ClientConn, near, far *Tunnel){
		"closed":                   func(_ *ClientConn, near, _ *Tunnel) { _ = near.Close() },
		"reset by the peer":        func(_ *ClientConn, _, far *Tunnel) { far.Abort() },
		"the connection is closed": func(cc *ClientConn, _, _ *Tunnel) { cc.Close() },
		"the connection is lost":   func(_ *ClientConn, _, far *Tunnel) { _ = far.s.c.s.Close() },
		"refused by GOAWAY": func(cc *ClientConn, _, _ *Tunnel) {
			cc.mu.Lock()
			defer cc.mu.Unlock()
			_ = cc.goneAway(0, NoError)
		},
		"ended by both": func(_ *ClientConn, near, far *Tunnel) {
			_ = near.CloseWrite()
			_ = far.CloseWrite()
			_, _ = io.Copy(io.Discard, near)
		},
	} {
		t.Run(name, func(t *testing.T) {
			ends, hold := make(chan *Tunnel, 1), make(chan bool)
			srv := serve(t, ForTunnels(), tunnelServer(ends, hold))
			defer close(hold)
			cc := dialClient(t, srv.addr, ForTunnels())
			near, far, _ := tunnel(t, cc, requests()["connect"], ends)
			const n = 2 << 20
			go func() { _, _ = far.Write(make([]byte, n)) }()
			if _, err := io.CopyN(io.Discard, near, n); err != nil {
				t.Fatal(err)
			}
			spare := func() int64 {
				cc.mu.Lock()
				defer cc.mu.Unlock()
				return cc.spare
			}
			all := int64(ForTunnels().SpareWindow)
			if spare() >= all {
				t.Fatal("the window has not grown")
			}
			end(cc, near, far)
			eventually(t, "not all is given back", func() bool { return spare() == all })
			_ = near.Close()
			if n := spare(); n != all {
				t.Errorf("%d bytes after the end, want %d", n, all)
			}
		})
	}
}

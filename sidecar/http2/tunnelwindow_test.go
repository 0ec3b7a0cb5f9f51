package http2

import (
	"io"
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

package hcm

import (
	"bufio"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// TestRefusedBeforeSettings: a host that admits fewer streams than were opened before it
// could say so refuses the others. They are sent again without a policy's leave, once,
// when it has told how many it admits.
func TestRefusedBeforeSettings(t *testing.T) {
	const requests, admits = 20, 5
	var refused, conns atomic.Int64
	b := newBed(t, rawOrigin(t, func(n int, c net.Conn, r *bufio.Reader) {
		conns.Add(1)
		if _, err := io.ReadFull(r, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		f := http2.NewFramer(c, r)
		var mu sync.Mutex
		answer := func(id uint32) {
			mu.Lock()
			defer mu.Unlock()
			answerFrame(f, id, "200")
		}
		if n > 0 {
			_ = f.WriteSettings()
			_ = f.WriteSettingsAck()
		}
		var early []uint32
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				return
			}
			h, ok := frame.(*http2.HeadersFrame)
			if !ok {
				continue
			}
			if n == 0 && len(early) < requests {
				if early = append(early, h.StreamID); len(early) < requests {
					continue
				}
				_ = f.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: admits})
				_ = f.WriteSettingsAck()
				for _, id := range early[:requests-admits] {
					refused.Add(1)
					_ = f.WriteRSTStream(id, http2.ErrCodeRefusedStream)
				}
				for _, id := range early[requests-admits:] {
					answer(id)
				}
				continue
			}
			answer(h.StreamID)
		}
	}))
	b.http2Cluster()
	b.start()
	var wg sync.WaitGroup
	statuses := make(chan int, requests)
	// The first makes the connection, so that all of them are on it.
	for i := range requests {
		c := b.dial()
		c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody")
		wg.Go(func() {
			resp, _ := c.answer("POST")
			statuses <- resp.StatusCode
		})
		for deadline := time.Now().Add(20 * time.Second); i == 0 && conns.Load() == 0 && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
	}
	wg.Wait()
	close(statuses)
	for status := range statuses {
		if status != 200 {
			t.Errorf("answered with %d", status)
		}
	}
	if refused.Load() != requests-admits {
		t.Errorf("%d were refused", refused.Load())
	}
	lines := b.logged(requests)
	for _, l := range lines {
		if !strings.Contains(l, "retries=0") {
			t.Errorf("log %q", l)
		}
	}
}

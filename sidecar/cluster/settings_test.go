package cluster

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// settingsServer is a host that speaks HTTP/2, tells how many streams it admits when it
// is told to, and refuses what is above that.
type settingsServer struct {
	max    uint32
	hold   <-chan struct{} // until when it sends no SETTINGS; nil for not at all
	answer <-chan struct{} // until when it answers no request

	conns, streams, refused atomic.Int64
}

// settingsHost starts one that admits max streams.
func settingsHost(t *testing.T, max uint32, hold <-chan struct{}) (addr string, h *settingsServer) {
	t.Helper()
	h = &settingsServer{max: max, hold: hold}
	return h.start(t), h
}

func (h *settingsServer) start(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			h.conns.Add(1)
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			wg.Go(func() { defer c.Close(); h.serve(&wg, c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().String()
}

func (h *settingsServer) serve(wg *sync.WaitGroup, c net.Conn) {
	if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	var mu sync.Mutex // of what is written, and open
	open := 0
	f := http2.NewFramer(c, c)
	ready := make(chan struct{})
	wg.Go(func() {
		if h.hold != nil {
			<-h.hold
		}
		mu.Lock()
		_ = f.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: h.max})
		mu.Unlock()
		close(ready)
	})
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				wg.Go(func() {
					<-ready // a peer's SETTINGS come first
					mu.Lock()
					_ = f.WriteSettingsAck()
					mu.Unlock()
				})
			}
		case *http2.HeadersFrame:
			id := frame.StreamID
			mu.Lock()
			if open >= int(h.max) {
				mu.Unlock()
				h.refused.Add(1)
				wg.Go(func() {
					<-ready
					mu.Lock()
					_ = f.WriteRSTStream(id, http2.ErrCodeRefusedStream)
					mu.Unlock()
				})
				continue
			}
			open++
			mu.Unlock()
			h.streams.Add(1)
			wg.Go(func() {
				<-ready
				if h.answer != nil {
					<-h.answer
				}
				var block bytes.Buffer
				_ = hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
				mu.Lock()
				open--
				_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true})
				mu.Unlock()
			})
		}
	}
}

// askHost makes a request on a connection of the pool, and tells how the stream ended.
func askHost(h *Host) error {
	conn, err := connTo(h)
	if err != nil {
		return err
	}
	defer conn.Release()
	s, err := conn.HTTP2.Open(&message.Request{Method: "GET", Scheme: "http", Authority: "h", Path: "/"}, true)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.Flush(); err != nil {
		return err
	}
	var r message.Response
	_, err = s.ReadHead(&r)
	return err
}

// TestBurstBeforeSettings: until the peer has said how many streams it admits, a
// connection gets no more than 100 (RFC 9113 6.5.2 recommends no less as a limit); what
// comes beyond waits for it and opens no other connection. No request is refused.
func TestBurstBeforeSettings(t *testing.T) {
	const burst = 300
	for _, tc := range []struct {
		name  string
		max   uint32
		conns int64 // at most
	}{
		{"many streams", 1000, 1},
		{"just those", 100, 3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			hold := make(chan struct{})
			addr, srv := settingsHost(t, tc.max, hold)
			h := mustUpdate(t, newManager(t, Options{}), &Config{
				Name: "c", ConnectTimeout: 5 * time.Second, HTTP: HTTP{Protocol: SpeakHTTP2}, Endpoints: hosts("c", addr),
			}).hosts()[0]
			done := make(chan error, burst)
			for range burst {
				go func() { done <- askHost(h) }()
			}
			b, _ := h.cluster.breakerOf(DefaultPriority)
			waitFor(t, func() bool { // until as many as may be are sent, and the others wait
				sent := srv.streams.Load() + srv.refused.Load()
				return sent >= 100 && sent+b.pending.Load() >= burst
			})
			if n := srv.streams.Load() + srv.refused.Load(); n != 100 || srv.conns.Load() != 1 {
				t.Errorf("%d streams on %d connections before the SETTINGS", n, srv.conns.Load())
			}
			close(hold)
			for range burst {
				if err := <-done; err != nil {
					t.Fatal(err)
				}
			}
			if n := srv.refused.Load(); n != 0 || srv.conns.Load() > tc.conns {
				t.Errorf("%d refused, %d connections", n, srv.conns.Load())
			}
		})
	}
}

// TestConnectionLostBeforeSettings: those that waited for the SETTINGS share the next
// connection, or its failure.
func TestConnectionLostBeforeSettings(t *testing.T) {
	hold := make(chan struct{})
	defer close(hold)
	addr, srv := settingsHost(t, 100, hold)
	var dials atomic.Int64
	m := newManager(t, Options{Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		if dials.Add(1) > 1 {
			return nil, errors.New("nobody there")
		}
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}})
	h := mustUpdate(t, m, &Config{
		Name: "c", ConnectTimeout: 5 * time.Second, HTTP: HTTP{Protocol: SpeakHTTP2}, Endpoints: hosts("c", addr),
	}).hosts()[0]
	done := make(chan error, 200)
	for range 200 {
		go func() { done <- askHost(h) }()
	}
	for srv.streams.Load() < 100 {
		time.Sleep(time.Millisecond)
	}
	for _, c := range *h.pool("", DefaultPriority).multiplexed.conns.Load() {
		_ = c.Close()
	}
	for range 200 {
		select {
		case err := <-done:
			if err == nil {
				t.Error("a request was answered")
			}
		case <-time.After(3 * time.Second):
			t.Fatal("a request waits on")
		}
	}
}

package cluster

import (
	"bytes"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
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

package http2

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	xhttp2 "golang.org/x/net/http2"
)

// TestHeadIdle: where heads have no time of their own, one that does not become whole has that of a stream
// on which nothing moves. A connection may be silent for longer, also before it has begun.
func TestHeadIdle(t *testing.T) {
	for name, unfinished := range map[string]func(r *raw){
		"a frame": func(r *raw) { _, _ = r.c.Write([]byte{0, 0, 9, frameHeaders, 0, 0, 0, 0, 3, 0x82}) },
		"a block": func(r *raw) {
			_ = r.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 3, BlockFragment: r.block(get...)})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var n counts
				cfg := n.cfg()
				cfg.HeaderTimeout, cfg.HeadIdle = 0, time.Minute
				a, b := net.Pipe()
				sc := NewServer(&pipeStream{Conn: b}, cfg, handlerFunc(ok))
				var wg sync.WaitGroup
				over := make(chan struct{})
				wg.Go(func() { _ = sc.Serve(context.Background()); close(over) })
				r := newRaw(t, a)
				wg.Go(func() { _, _ = io.Copy(io.Discard, a) })
				time.Sleep(time.Hour)
				_, _ = io.WriteString(a, clientPreface)
				r.must(r.fr.WriteSettings())
				r.get(1)
				time.Sleep(time.Hour)
				unfinished(r)
				began := time.Now()
				<-over
				if took := time.Since(began); took < time.Minute || took > 2*time.Minute || n[GlitchSlowHead].Load() != 1 {
					t.Errorf("it was waited for %v", took)
				}
				_ = a.Close()
				wg.Wait()
			})
		})
	}
}

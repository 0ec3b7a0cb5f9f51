//go:build e2e

package floods

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// http2Origin accepts connections of HTTP/2 and serves each request with do.
func http2Origin(t *testing.T, do func(p *peer, id uint32), settings ...http2.Setting) string {
	return serveEach(t, func(c net.Conn) { serveHTTP2(c, do, settings) })
}

func serveHTTP2(c net.Conn, do func(p *peer, id uint32), settings []http2.Setting) {
	defer c.Close()
	if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	p := newPeer(c)
	p.write(frames(func(w *http2.Framer) { _ = w.WriteSettings(settings...); _ = w.WriteSettingsAck() }))
	r := http2.NewFramer(io.Discard, c)
	for {
		f, err := r.ReadFrame()
		if err != nil {
			p.ended.Store(true)
			return
		}
		switch f.(type) {
		case *http2.HeadersFrame:
			go do(p, f.Header().StreamID)
		case *http2.GoAwayFrame:
			p.ended.Store(true)
		}
	}
}

// answer is the head of an answer that goes on.
func answer(w *http2.Framer, id uint32) { _ = w.WriteHeaders(head(id, false, block(":status", "200"))) }

// say are frames without end, in place of an answer.
func say(f func(w *http2.Framer, id uint32)) func(p *peer, id uint32) {
	return func(p *peer, id uint32) { p.endless(frames(func(w *http2.Framer) { f(w, id) })) }
}

// behind are frames without end, behind the head of an answer.
func behind(f func(w *http2.Framer, id uint32)) func(p *peer, id uint32) {
	return func(p *peer, id uint32) {
		p.write(frames(func(w *http2.Framer) { answer(w, id) }))
		say(f)(p, id)
	}
}

// finish is a short answer.
func finish(w *http2.Framer, id uint32) {
	_ = w.WriteHeaders(head(id, false, block(":status", "200", "content-length", "4")))
	_ = w.WriteData(id, true, []byte("good"))
}

// afterwards are frames without end, behind a short answer.
func afterwards(f func(w *http2.Framer, id uint32)) func(p *peer, id uint32) {
	return func(p *peer, id uint32) {
		p.write(frames(func(w *http2.Framer) { finish(w, id) }))
		say(f)(p, id)
	}
}

// unfinished is a head that does not end, in pieces.
func unfinished(piece []byte) func(p *peer, id uint32) {
	return func(p *peer, id uint32) {
		p.write(frames(func(w *http2.Framer) {
			_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block(":status", "200")})
		}))
		p.endless(frames(func(w *http2.Framer) { _ = w.WriteContinuation(id, false, piece) }))
	}
}

// bomb is an answer whose fields are 55 MB when they are decoded.
func bomb(p *peer, id uint32) {
	var b bytes.Buffer
	b.Write(block(":status", "200"))
	_ = hpack.NewEncoder(&b).WriteField(hpack.HeaderField{Name: "bomb", Value: strings.Repeat("x", 3900)})
	b.Write(bytes.Repeat([]byte{0x80 | 62}, 12000))
	p.write(frames(func(w *http2.Framer) { _ = w.WriteHeaders(head(id, true, b.Bytes())) }))
}

// http2Hosts are hosts that flood the sidecar, and what their clients learn of it: a status
// where the answer had not begun, and 0 where it had, or may have.
var http2Hosts = []struct {
	name   string
	do     func(p *peer, id uint32)
	status int
}{
	{"SETTINGS", say(func(w *http2.Framer, _ uint32) { _ = w.WriteSettings() }), 502},
	{"SETTINGS acknowledged", say(func(w *http2.Framer, _ uint32) { _ = w.WriteSettingsAck() }), 502},
	{"PING", say(func(w *http2.Framer, _ uint32) { _ = w.WritePing(false, [8]byte{}) }), 502},
	{"WINDOW_UPDATE", say(func(w *http2.Framer, _ uint32) { _ = w.WriteWindowUpdate(0, 1) }), 502},
	{"PRIORITY", say(func(w *http2.Framer, id uint32) { _ = w.WritePriority(id, http2.PriorityParam{StreamDep: id + 2}) }), 502},
	{"small continuations", unfinished(block("a", "b")), 502},
	{"large continuations", unfinished(make([]byte, 16<<10)), 502},
	{"empty continuations", unfinished(nil), 502},
	{"header bomb", bomb, 502},
	{"interim answers", say(func(w *http2.Framer, id uint32) {
		_ = w.WriteHeaders(head(id, false, block(":status", "103", "link", "</x>")))
	}), 0},
	{"continues", say(func(w *http2.Framer, id uint32) { _ = w.WriteHeaders(head(id, false, block(":status", "100"))) }), 502},
	{"pushes", say(func(w *http2.Framer, id uint32) {
		_ = w.WritePushPromise(http2.PushPromiseParam{StreamID: id, PromiseID: 2, BlockFragment: good, EndHeaders: true})
	}), 502},
	{"empty DATA", behind(func(w *http2.Framer, id uint32) { _ = w.WriteData(id, false, nil) }), 0},
	{"padded empty DATA", behind(func(w *http2.Framer, id uint32) { _ = w.WriteDataPadded(id, false, nil, make([]byte, 100)) }), 0},
	{"trailers without end", func(p *peer, id uint32) {
		p.write(frames(func(w *http2.Framer) { answer(w, id) }))
		unfinished(block("a", "b"))(p, id)
	}, 0},
	{"heads again", behind(func(w *http2.Framer, id uint32) { answer(w, id) }), 0},
	{"DATA behind the end", afterwards(func(w *http2.Framer, id uint32) { _ = w.WriteData(id, false, []byte("x")) }), 0},
	{"resets behind the end", afterwards(func(w *http2.Framer, id uint32) { _ = w.WriteRSTStream(id, http2.ErrCodeCancel) }), 0},
	{"ends behind the end", afterwards(func(w *http2.Framer, id uint32) { _ = w.WriteData(id, true, nil) }), 0},
	{"DATA of no stream", say(func(w *http2.Framer, id uint32) { _ = w.WriteData(id+1000, false, []byte("x")) }), 502},
	{"a frame too large", say(func(w *http2.Framer, id uint32) { _ = w.WriteData(id, false, make([]byte, 16<<10+1)) }), 502},
	{"unknown frames, then nothing", func(p *peer, id uint32) {
		for range 1000 {
			p.write(frames(func(w *http2.Framer) { _ = w.WriteRawFrame(0xfe, 0, id, make([]byte, 16<<10)) }))
		}
	}, 504},
	{"refusals", say(func(w *http2.Framer, id uint32) { _ = w.WriteRSTStream(id, http2.ErrCodeRefusedStream) }), 0},
	{"GOAWAY", say(func(w *http2.Framer, _ uint32) { _ = w.WriteGoAway(0, http2.ErrCodeNo, nil) }), 503},
	{"windows too large", func(p *peer, id uint32) {
		p.endless(frames(func(w *http2.Framer) { _ = w.WriteWindowUpdate(0, 1<<31-1) }))
	}, 502},
}

// TestHTTP2Hosts: what a host of HTTP/2 sends without end is cut off, its clients are told as
// long as they can be, and the requests to other clusters are not harmed.
func TestHTTP2Hosts(t *testing.T) {
	for _, tc := range http2Hosts {
		t.Run(tc.name, func(t *testing.T) {
			f := newHostileField(t, http2Origin(t, tc.do), "stream_idle_timeout: 0.5s")
			f.during(loss{8 * mb, unfelt}, func() {
				f.attackers(15, func(_ int, c net.Conn) error {
					if _, err := io.WriteString(c, "GET /bad HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"); err != nil {
						return err
					}
					if tc.status == 0 {
						return over(c)
					}
					return refused(c, tc.status)
				})
			})
		})
	}
}

// TestHTTP2HostsWithoutWindow: a host that grants no window, or one byte at a time, holds an
// upload that waits, and no more of it than the sidecar has read.
func TestHTTP2HostsWithoutWindow(t *testing.T) {
	t.Parallel()
	host := http2Origin(t, func(p *peer, id uint32) {
		for id%64 == 1 && !p.ended.Load() {
			p.write(frames(func(w *http2.Framer) { _ = w.WriteWindowUpdate(id, 1) }))
			time.Sleep(50 * time.Millisecond)
		}
	}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	f := newHostileField(t, host, "stream_idle_timeout: 1s")
	piece := strings.Repeat("y", 64<<10)
	f.during(loss{60 * 128 * kb, unfelt}, func() {
		f.attackers(60, func(_ int, c net.Conn) error {
			go func() {
				_, err := io.WriteString(c, "POST /bad HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000\r\n\r\n")
				for err == nil {
					_, err = io.WriteString(c, piece)
				}
			}()
			if err := refused(c, 408); err != nil && !strings.Contains(err.Error(), "reset by peer") {
				return fmt.Errorf("upload: %w", err)
			}
			return nil
		})
	})
}

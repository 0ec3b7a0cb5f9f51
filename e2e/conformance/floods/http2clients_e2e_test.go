//go:build e2e

package floods

import (
	"bufio"
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

// byStream keeps a connection whose client sent a malformed message.
const byStream = "http2_protocol_options: {override_stream_error_on_invalid_http_message: true}"

// smallWindows bound what a connection of HTTP/2 may have sent that nobody took.
const smallWindows = "http2_protocol_options: {initial_stream_window_size: 65535, initial_connection_window_size: 65535}"

// calm is the end of a flood.
var calm = goneAway(http2.ErrCodeEnhanceYourCalm)

// overflown is the end of who sends more than it may: at once, or where it was the stream's
// window and there was some of the connection's left again, as a flood.
func overflown(p *peer) error {
	if p.resets[http2.ErrCodeFlowControl] == 1 && calm(p) == nil {
		return nil
	}
	return goneAway(http2.ErrCodeFlowControl)(p)
}

// http2Flood is an attack of clients of HTTP/2.
type http2Flood struct {
	name, options string
	clients       int   // 10 if 0
	memory        int64 // a client, beside 4 MB; 512 KB if 0
	do            func(p *peer)
	want          verdict
}

// TestHTTP2Floods: who makes work out of frames is cut off.
func TestHTTP2Floods(t *testing.T) {
	for _, tc := range http2Floods {
		t.Run(tc.name, func(t *testing.T) {
			f := newField(t, origin(t, hold), timeouts+", "+or(tc.options, byStream))
			if tc.clients == 0 {
				tc.clients = 10
			}
			if tc.memory == 0 {
				tc.memory = 512 * kb
			}
			f.during(loss{4*mb + int64(tc.clients)*tc.memory, unfelt}, func() {
				f.attackers(tc.clients, func(_ int, c net.Conn) error {
					p := newClient(c)
					go p.listen()
					tc.do(p)
					<-p.read
					return tc.want(p)
				})
			})
		})
	}
}

// hold is an origin that says nothing until its client leaves.
func hold(_ string, _ net.Conn, r *bufio.Reader) { _, _ = io.Copy(io.Discard, r) }

var (
	good   = request("GET", "/good")
	held   = request("GET", "/held")
	upload = request("POST", "/held")
)

// opened are streams whose requests do not end, and what makes the sidecar reset each.
func opened(fields []byte, end bool, fault func(w *http2.Framer, id uint32)) func(p *peer) {
	return func(p *peer) {
		p.streams(1, func(w *http2.Framer, id uint32) {
			_ = w.WriteHeaders(head(id, end, fields))
			fault(w, id)
		})
	}
}

// again is one frame without end, behind the head of a request that goes on.
func again(f func(w *http2.Framer)) func(p *peer) {
	return func(p *peer) {
		p.write(frames(func(w *http2.Framer) { _ = w.WriteHeaders(head(1, false, upload)) }))
		p.endless(frames(f))
	}
}

// behindReset is one frame without end, behind what the sidecar reset the stream for.
func behindReset(f func(w *http2.Framer)) func(p *peer) {
	return func(p *peer) {
		p.write(frames(func(w *http2.Framer) { _ = w.WriteHeaders(head(1, false, upload)); _ = w.WriteWindowUpdate(1, 0) }))
		p.endless(frames(f))
	}
}

// continued is a head that does not end.
func continued(piece []byte) func(p *peer) {
	return func(p *peer) {
		p.write(frames(func(w *http2.Framer) {
			_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: good})
		}))
		p.endless(frames(func(w *http2.Framer) { _ = w.WriteContinuation(1, false, piece) }))
	}
}

var http2Floods = []http2Flood{
	{name: "rapid reset", do: opened(good, true, func(w *http2.Framer, id uint32) { _ = w.WriteRSTStream(id, http2.ErrCodeCancel) }), want: calm},
	{name: "rapid reset of what the origin has", do: func(p *peer) {
		for id := uint32(1); ; id += 2 {
			ok := p.write(frames(func(w *http2.Framer) { _ = w.WriteHeaders(head(id, true, held)) }))
			if id%64 == 1 {
				time.Sleep(time.Millisecond) // it is under way
			}
			if !ok || !p.write(frames(func(w *http2.Framer) { _ = w.WriteRSTStream(id, http2.ErrCodeCancel) })) {
				return
			}
		}
	}, want: calm},
	{name: "made you reset, window of 0", do: opened(upload, false, func(w *http2.Framer, id uint32) { _ = w.WriteWindowUpdate(id, 0) }), want: calm},
	{name: "made you reset, window too large", do: opened(held, true, func(w *http2.Framer, id uint32) { _ = w.WriteWindowUpdate(id, 1<<31-1) }), want: calm},
	{name: "made you reset, DATA behind the end", do: opened(held, true, func(w *http2.Framer, id uint32) { _ = w.WriteData(id, true, []byte("x")) }), want: calm},
	{name: "made you reset, length", do: opened(request("POST", "/held", "content-length", "1"), false, func(w *http2.Framer, id uint32) { _ = w.WriteData(id, true, []byte("xy")) }), want: calm},
	{name: "made you reset, depends on itself", do: opened(upload, false, func(w *http2.Framer, id uint32) { _ = w.WritePriority(id, http2.PriorityParam{StreamDep: id}) }), want: calm},
	{name: "malformed requests", do: opened(request("GET", "/", "connection", "close"), true, func(*http2.Framer, uint32) {}), want: calm},
	{name: "fields without a name", do: opened(request("GET", "/", "", ""), true, func(*http2.Framer, uint32) {}), want: calm},
	{name: "streams beyond the limit", options: "http2_protocol_options: {max_concurrent_streams: 10}", do: opened(upload, false, func(*http2.Framer, uint32) {}), want: calm},
	{name: "small continuations", do: continued(block("a", "b")), want: calm},
	{name: "large continuations", do: continued(make([]byte, 16<<10)), want: calm},
	{name: "empty continuations", do: continued(nil), want: calm},
	{name: "empty DATA", do: again(func(w *http2.Framer) { _ = w.WriteData(1, false, nil) }), want: calm},
	{name: "padded empty DATA", do: again(func(w *http2.Framer) { _ = w.WriteDataPadded(1, false, nil, make([]byte, 100)) }), want: calm},
	{name: "SETTINGS", do: again(func(w *http2.Framer) { _ = w.WriteSettings() }), want: calm},
	{name: "SETTINGS of changing windows", clients: 5, memory: 4 * mb, do: func(p *peer) {
		for id := range uint32(100) {
			p.write(frames(func(w *http2.Framer) { _ = w.WriteHeaders(head(2*id+1, false, upload)) }))
		}
		var all []http2.Setting
		for i := range uint32(2000) {
			all = append(all, http2.Setting{ID: http2.SettingInitialWindowSize, Val: i%2*1000 + 1000})
		}
		p.endless(frames(func(w *http2.Framer) { _ = w.WriteSettings(all...) }))
	}, want: calm},
	{name: "SETTINGS acknowledged", do: again(func(w *http2.Framer) { _ = w.WriteSettingsAck() }), want: calm},
	{name: "PING", do: again(func(w *http2.Framer) { _ = w.WritePing(false, [8]byte{}) }), want: calm},
	{name: "PRIORITY", do: again(func(w *http2.Framer) { _ = w.WritePriority(1, http2.PriorityParam{StreamDep: 3}) }), want: calm},
	{name: "WINDOW_UPDATE", do: again(func(w *http2.Framer) { _ = w.WriteWindowUpdate(0, 1) }), want: calm},
	{name: "WINDOW_UPDATE of a stream", do: again(func(w *http2.Framer) { _ = w.WriteWindowUpdate(1, 1) }), want: calm},
	{name: "DATA on closed streams", do: func(p *peer) {
		p.write(frames(func(w *http2.Framer) { _ = w.WriteHeaders(head(3, true, good)) })) // 1 is skipped
		p.endless(frames(func(w *http2.Framer) { _ = w.WriteData(1, false, []byte("x")) }))
	}, want: calm},
	{name: "RST_STREAM of closed streams", do: func(p *peer) {
		p.write(frames(func(w *http2.Framer) { _ = w.WriteHeaders(head(3, true, good)) }))
		p.endless(frames(func(w *http2.Framer) { _ = w.WriteRSTStream(1, http2.ErrCodeCancel) }))
	}, want: calm},
	{name: "ends of streams that were reset", do: behindReset(func(w *http2.Framer) { _ = w.WriteData(1, true, nil) }), want: calm},
	{name: "heads of streams that were reset", do: behindReset(func(w *http2.Framer) { _ = w.WriteHeaders(head(1, true, block("a", "b"))) }), want: calm},
	{name: "header bomb", clients: 2, memory: 8 * mb, do: func(p *peer) {
		var b bytes.Buffer
		_ = hpack.NewEncoder(&b).WriteField(hpack.HeaderField{Name: "bomb", Value: strings.Repeat("x", 3900)})
		p.write(frames(func(w *http2.Framer) {
			_ = w.WriteHeaders(head(1, true, append(request("GET", "/good"), b.Bytes()...)))
		}))
		fields := append(request("GET", "/good"), bytes.Repeat([]byte{0x80 | 62}, 14000)...) // 55 MB
		p.streams(3, func(w *http2.Framer, id uint32) { _ = w.WriteHeaders(head(id, true, fields)) })
	}, want: calm},
	{name: "heads of too many fields", clients: 5, memory: 2 * mb, do: opened(request("GET", "/good", strings.Split(strings.Repeat("a,b,", 200)+"a,b", ",")...), true, func(*http2.Framer, uint32) {}), want: calm},
	{name: "table resized again and again", do: opened(append(bytes.Repeat([]byte{0x20, 0x3f, 0xe1, 0x1f}, 50), good...), true, func(*http2.Framer, uint32) {}), want: goneAway(http2.ErrCodeCompression)},
	{name: "a frame too large", do: again(func(w *http2.Framer) { _ = w.WriteData(1, false, make([]byte, 16<<10+1)) }), want: goneAway(http2.ErrCodeFrameSize)},
	{name: "DATA of streams that were reset", options: smallWindows, do: behindReset(func(w *http2.Framer) { _ = w.WriteData(1, false, []byte("x")) }), want: calm},
	{name: "more than the window", options: smallWindows, do: again(func(w *http2.Framer) { _ = w.WriteData(1, false, make([]byte, 16<<10)) }), want: overflown},
	{name: "pushes of a client", do: again(func(w *http2.Framer) {
		_ = w.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, BlockFragment: good, EndHeaders: true})
	}), want: goneAway(http2.ErrCodeProtocol)},
}

// TestHTTP2Deaf: who makes the sidecar answer and does not read is cut off, or not read from
// any more, while the answers are few.
func TestHTTP2Deaf(t *testing.T) {
	ping := func(w *http2.Framer) { _ = w.WritePing(false, [8]byte{}) }
	kinds := []func(p *peer){
		again(ping),
		again(func(w *http2.Framer) { ping(w); _ = w.WriteData(1, false, []byte("x")) }),
		again(func(w *http2.Framer) { _ = w.WriteSettings() }),
		opened(good, true, func(*http2.Framer, uint32) {}),
	}
	f := newField(t, origin(t, hold), timeouts+", http2_protocol_options: {max_concurrent_streams: 100}")
	f.during(loss{20 * mb, unfelt}, func() {
		f.attackers(16, func(i int, c net.Conn) error {
			_ = c.(*net.TCPConn).SetReadBuffer(4 << 10)
			_ = c.SetWriteDeadline(time.Now().Add(1500 * time.Millisecond))
			kinds[i%len(kinds)](newClient(c))
			return nil
		})
	})
}

// TestHTTP2SlowHeads: heads that arrive byte by byte end at request_headers_timeout.
func TestHTTP2SlowHeads(t *testing.T) {
	t.Parallel()
	f := newField(t, origin(t, nil), timeouts)
	f.during(loss{crowd * 24 * kb, unfelt}, func() {
		f.attackers(crowd, func(i int, c net.Conn) error {
			text := http2.ClientPreface + strings.Repeat("y", 1000)
			if i%2 == 0 { // behind the preface, a head of one long frame
				p := newClient(c)
				p.write([]byte{0, 0x10, 0, byte(http2.FrameHeaders), 0, 0, 0, 0, 1})
				text = strings.Repeat("\x82", 1000)
			}
			go drip(c, text, 50*time.Millisecond)
			began := time.Now()
			err := over(c)
			if took := time.Since(began); err == nil && (took < 800*time.Millisecond || took > 5*time.Second) {
				err = fmt.Errorf("the head was waited for %v", took)
			}
			return err
		})
	})
}

// TestHTTP2SlowBodies: bodies that arrive byte by byte end at request_timeout, a stream each.
func TestHTTP2SlowBodies(t *testing.T) {
	t.Parallel()
	const streams = 20
	f := newField(t, origin(t, hold), timeouts)
	f.during(loss{20 * streams * 64 * kb, unfelt}, func() {
		f.attackers(20, func(_ int, c net.Conn) error {
			p := newClient(c)
			go p.listen()
			for id := range uint32(streams) {
				p.write(frames(func(w *http2.Framer) { _ = w.WriteHeaders(head(2*id+1, false, upload)) }))
			}
			for end := time.Now().Add(1500 * time.Millisecond); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
				for id := range uint32(streams) {
					p.write(frames(func(w *http2.Framer) { _ = w.WriteData(2*id+1, false, []byte("y")) }))
				}
			}
			_ = c.(*net.TCPConn).CloseWrite()
			<-p.read
			if p.statuses[408] != streams {
				return fmt.Errorf("statuses %v, want %d times 408 (resets %v, GOAWAY %v)", p.statuses, streams, p.resets, p.goaways)
			}
			return nil
		})
	})
}

// TestHTTP2NobodyReads: answers whose clients grant no window, none but the connection's, or a
// byte at a time, wait, and end at stream_idle_timeout.
func TestHTTP2NobodyReads(t *testing.T) {
	t.Parallel()
	const clients, streams = 18, 15
	piece := strings.Repeat("y", 64<<10)
	f := newField(t, origin(t, func(_ string, c net.Conn, _ *bufio.Reader) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		for {
			if _, err := io.WriteString(c, piece); err != nil {
				return
			}
		}
	}), "stream_idle_timeout: 1s")
	f.during(loss{clients * streams * 128 * kb, unfelt}, func() {
		f.attackers(clients, func(i int, c net.Conn) error {
			window, grant := uint32(0), uint32(0)
			switch i % 3 {
			case 1:
				window = 1 << 20
			case 2:
				grant = 1
			}
			p := newClient(c, http2.Setting{ID: http2.SettingInitialWindowSize, Val: window})
			go p.listen()
			for id := range uint32(streams) {
				p.write(frames(func(w *http2.Framer) { _ = w.WriteHeaders(head(2*id+1, true, held)) }))
			}
			for end := time.Now().Add(5 * time.Second); p.lost.Load() < streams && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
				if p.heads.Load() == streams { // before that it would be a flood
					for id := range grant * streams {
						p.write(frames(func(w *http2.Framer) { _ = w.WriteWindowUpdate(2*id+1, grant) }))
					}
				}
			}
			_ = c.(*net.TCPConn).CloseWrite()
			<-p.read
			if p.lost.Load() < streams || p.statuses[200]+p.statuses[504] != streams || len(p.goaways) > 0 {
				return fmt.Errorf("%d: resets %v, statuses %v, GOAWAY %v", i%3, p.resets, p.statuses, p.goaways)
			}
			return nil
		})
	})
}

// TestHTTP2UploadsNobodyReads: of what an origin does not take no more waits than the windows
// allow, in frames of a byte as well.
func TestHTTP2UploadsNobodyReads(t *testing.T) {
	const streams = 4
	for _, tc := range []struct {
		name, options string
		clients       int
		frames        []int // the size of each client's
		window        int
		memory        int64 // a client
	}{
		{"small windows", smallWindows, 20, []int{1, 8 << 10}, 65535, 512 * kb},
		{"Envoy's windows", byStream, 2, []int{16 << 10}, 24 << 20, 32 * mb},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newField(t, origin(t, func(_ string, c net.Conn, r *bufio.Reader) {
				_ = c.(*net.TCPConn).SetReadBuffer(4 << 10)
				time.Sleep(3 * time.Second)
			}), tc.options)
			f.during(loss{int64(tc.clients) * tc.memory, unfelt}, func() {
				f.attackers(tc.clients, func(i int, c net.Conn) error {
					p := newClient(c)
					go p.listen()
					size := tc.frames[i%len(tc.frames)]
					for id := range uint32(streams) {
						p.write(frames(func(w *http2.Framer) { _ = w.WriteHeaders(head(2*id+1, false, upload)) }))
					}
					data := frames(func(w *http2.Framer) {
						for id := range uint32(streams) {
							_ = w.WriteData(2*id+1, false, make([]byte, size))
						}
					})
					for sent := size * streams; sent <= tc.window; sent += size * streams {
						if !p.write(data) {
							return fmt.Errorf("cut off after %d bytes: GOAWAY %v", sent, p.goaways)
						}
					}
					time.Sleep(200 * time.Millisecond)
					_ = c.(*net.TCPConn).CloseWrite()
					<-p.read
					if len(p.goaways) > 0 || len(p.resets) > 0 {
						return fmt.Errorf("GOAWAY %v, resets %v of a client that kept to the windows", p.goaways, p.resets)
					}
					return nil
				})
			})
		})
	}
}

// TestHTTP2Busy: requests that are refused as fast as they come, and frames of unknown types,
// have no more than their turns.
func TestHTTP2Busy(t *testing.T) {
	kinds := []func(p *peer){
		again(func(w *http2.Framer) { _ = w.WriteRawFrame(0xfe, 0, 1, make([]byte, 100)) }),
		paced(request("GET", "/denied")),
	}
	f := newField(t, origin(t, hold), timeouts, denied)
	f.during(loss{32 * mb, unfelt}, func() {
		f.attackers(16, func(i int, c net.Conn) error {
			_ = c.SetWriteDeadline(time.Now().Add(700 * time.Millisecond))
			p := newClient(c)
			go p.listen()
			kinds[i%len(kinds)](p)
			_ = c.Close()
			<-p.read
			if len(p.goaways) > 0 {
				return fmt.Errorf("GOAWAY %v", p.goaways)
			}
			return nil
		})
	})
}

// paced are requests without a pause, of which no more wait than may.
func paced(fields []byte) func(p *peer) {
	return func(p *peer) {
		sent := int64(0)
		for id := uint32(1); ; sent += 64 {
			for sent-p.heads.Load() > 128 && !p.ended.Load() {
				time.Sleep(100 * time.Microsecond)
			}
			if !p.write(frames(func(w *http2.Framer) {
				for range 64 {
					_ = w.WriteHeaders(head(id, true, fields))
					id += 2
				}
			})) {
				return
			}
		}
	}
}

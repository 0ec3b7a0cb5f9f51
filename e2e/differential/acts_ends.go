//go:build e2e

package differential

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// actor is one end of a connection of a stage.
type actor struct {
	s          *stage
	name       string
	c          net.Conn
	r          *bufio.Reader
	h2, server bool
	bytes      bool // a host that speaks neither version
	done       chan struct{}

	// What follows is guarded by the stage's lock.
	turns   map[uint32]*turn
	paused  bool   // gives no window back
	stalled bool   // does not read
	gone    string // how the connection ended
	goAway  string
	pongs   int
	initial uint32 // window of a stream
	window  int    // of the connection
	owed    int

	writes sync.Mutex // HTTP/2
	out    *bufio.Writer
	fr     *http2.Framer
	block  bytes.Buffer
	enc    *hpack.Encoder
}

func newActor(s *stage, c net.Conn, h2, server bool) *actor {
	a := &actor{s: s, c: c, h2: h2, server: server, done: make(chan struct{}), turns: map[uint32]*turn{}, initial: 65535, window: 65535}
	a.r = bufio.NewReaderSize(gate{a}, 16<<10)
	a.out = bufio.NewWriter(c)
	a.fr = http2.NewFramer(a.out, a.r)
	a.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	a.enc = hpack.NewEncoder(&a.block)
	s.set(func() { s.all = append(s.all, a) })
	return a
}

// gate holds reads up while an end does not read.
type gate struct{ a *actor }

func (g gate) Read(b []byte) (int, error) {
	s := g.a.s
	s.mu.Lock()
	for g.a.stalled && !s.over {
		s.changed.Wait()
	}
	s.mu.Unlock()
	return g.a.c.Read(b)
}

func (a *actor) start() {
	if a.h2 && !a.server {
		a.greet() // before a request
	}
	go func() {
		defer close(a.done)
		switch {
		case a.h2:
			a.readFrames()
		case a.bytes:
			a.readBytes()
		case a.server:
			a.readRequests()
		default:
			a.readAnswers()
		}
		a.s.set(func() {
			a.gone = cmp.Or(a.gone, "closed")
			for _, t := range a.turns {
				t.end = cmp.Or(t.end, "closed")
			}
		})
	}()
}

// raw is the connection without TLS.
func (a *actor) raw() *net.TCPConn {
	if t, ok := a.c.(*tls.Conn); ok {
		return t.NetConn().(*net.TCPConn)
	}
	return a.c.(*net.TCPConn)
}

func (a *actor) cut() {
	_ = a.raw().SetLinger(0)
	_ = a.raw().Close()
}

func (a *actor) half() {
	if w, ok := a.c.(interface{ CloseWrite() error }); ok {
		_ = w.CloseWrite()
	}
}

// pauses has the end read no more, give no window, or go on with both.
func (a *actor) pauses(how string) {
	a.s.set(func() { a.paused, a.stalled = how != "go", how == "stall" || how == "pause" && !a.h2 })
	if how != "go" || !a.h2 {
		return
	}
	var owed []*turn
	var by []int
	all := 0
	a.s.set(func() {
		for _, t := range a.turns {
			owed, by = append(owed, t), append(by, t.owed)
			t.owed = 0
		}
		all, a.owed = a.owed, 0
	})
	a.write(func() {
		for i, t := range owed {
			if by[i] > 0 {
				_ = a.fr.WriteWindowUpdate(t.id, uint32(by[i]))
			}
		}
		if all > 0 {
			_ = a.fr.WriteWindowUpdate(0, uint32(all))
		}
	})
}

func (a *actor) write(f func()) {
	a.writes.Lock()
	defer a.writes.Unlock()
	f()
	_ = a.out.Flush()
}

// fieldsOf are the fields of a step: length=5, chunked, or name=value.
func fieldsOf(words []string) (out []Header) {
	for _, w := range words {
		name, value, ok := strings.Cut(w, "=")
		switch {
		case name == "length":
			out = append(out, Header{"content-length", value})
		case w == "chunked":
			out = append(out, Header{"transfer-encoding", "chunked"})
		case ok:
			out = append(out, Header{name, value})
		}
	}
	return out
}

// head sends a request, or an answer.
func (a *actor) head(t *turn, words []string) {
	fields := fieldsOf(words[1:])
	end := slices.Contains(words, "END")
	t.chunked = slices.Contains(words, "chunked")
	start := []Header{{":status", words[0]}}
	line := "HTTP/1.1 " + words[0] + " Said\r\n"
	if !a.server {
		scheme := "http"
		if a.s.tls {
			scheme = "https"
		}
		start = []Header{{":method", words[0]}, {":scheme", scheme}, {":authority", "test.example"}, {":path", words[1]}}
		line = words[0] + " " + words[1] + " HTTP/1.1\r\nHost: test.example\r\n"
	}
	if t.tunnel {
		start, line, fields = a.tunnelHead(t, words, start, line, fields)
	}
	if a.h2 {
		a.s.set(func() { t.ended = end })
		a.headers(t, append(start, fields...), end)
		return
	}
	interim := a.server && words[0][0] == '1'
	sized := t.chunked
	for _, f := range fields {
		line += f.Name + ": " + f.Value + "\r\n"
		sized = sized || f.Name == "content-length"
	}
	t.untilClose = a.server && !sized && !interim && !t.tunnel && words[0] != "204" && words[0] != "304" && t.method != "HEAD"
	_, _ = io.WriteString(a.c, line+"\r\n")
	if end {
		a.data(t, 0, true)
	}
}

func (a *actor) headers(t *turn, fields []Header, end bool) {
	a.write(func() {
		a.block.Reset()
		for _, f := range fields {
			if f.Name != "transfer-encoding" {
				_ = a.enc.WriteField(hpack.HeaderField{Name: f.Name, Value: f.Value})
			}
		}
		_ = a.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: t.id, BlockFragment: bytes.Clone(a.block.Bytes()), EndStream: end, EndHeaders: true})
	})
}

// piece is n bytes of a body from one place on.
func piece(from, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		at := from + i
		b[i] = 'a' + byte((at*7+at>>8)%26)
	}
	return b
}

// data sends some of a body, as fast as the other end lets it.
func (a *actor) data(t *turn, n int, end bool) {
	if end {
		a.s.set(func() { t.ended = true })
	}
	if a.h2 {
		a.dataFrames(t, n, end)
		return
	}
	if n > 0 && t.chunked {
		_, _ = fmt.Fprintf(a.c, "%x\r\n", n)
	}
	_, _ = a.c.Write(piece(t.sent, n))
	t.sent += n
	if n > 0 && t.chunked {
		_, _ = io.WriteString(a.c, "\r\n")
	}
	if !end {
		return
	}
	if t.tunnel && !t.chunked {
		a.half()
		return
	}
	if t.chunked {
		_, _ = io.WriteString(a.c, "0\r\n\r\n")
	}
	if t.untilClose {
		_ = a.c.Close()
	}
}

func (a *actor) dataFrames(t *turn, n int, end bool) {
	for {
		s := a.s
		s.mu.Lock()
		stopped := func() bool { return t.given || a.gone != "" || strings.HasPrefix(t.end, "RST") }
		for n > 0 && min(t.window, a.window) <= 0 && !stopped() {
			s.changed.Wait()
		}
		k := min(n, t.window, a.window, 16384)
		if n == 0 {
			k = 0
		}
		over := stopped()
		t.window, a.window = t.window-k, a.window-k
		s.mu.Unlock()
		if over {
			return
		}
		a.write(func() { _ = a.fr.WriteData(t.id, end && k == n, piece(t.sent, k)) })
		t.sent += k
		if n -= k; n == 0 {
			return
		}
	}
}

// trailers end a message.
func (a *actor) trailers(t *turn, words []string) {
	a.s.set(func() { t.ended = true })
	fields := fieldsOf(words)
	if a.h2 {
		a.headers(t, fields, true)
		return
	}
	text := "0\r\n"
	for _, f := range fields {
		text += f.Name + ": " + f.Value + "\r\n"
	}
	_, _ = io.WriteString(a.c, text+"\r\n")
}

func (a *actor) reset(t *turn, code http2.ErrCode) {
	a.write(func() { _ = a.fr.WriteRSTStream(t.id, code) })
}

func (a *actor) goAwayNow(code http2.ErrCode) {
	a.write(func() { _ = a.fr.WriteGoAway(1<<31-1, code, nil) })
}

// readRequests is a host of HTTP/1.
func (a *actor) readRequests() {
	for {
		m, err := readHead(a.r)
		if err != nil {
			return
		}
		t := newTurn(a, uint32(len(a.turns)+1))
		t.method, _, _ = strings.Cut(m.Start, " ")
		_, upgrade := m.get("upgrade")
		a.s.set(func() {
			t.tunnel = upgrade || t.method == "CONNECT"
			t.m, a.turns[t.id] = m, t
			a.s.hosts = append(a.s.hosts, t)
		})
		if t.tunnel {
			t.readTunnel(a.r)
			return
		}
		if !t.readBody(a.r, false) {
			return
		}
	}
}

// readAnswers is a client of HTTP/1.
func (a *actor) readAnswers() {
	for {
		m, err := readHead(a.r)
		if err != nil {
			return
		}
		var t *turn
		_, status, _ := strings.Cut(m.Start, " ")
		interim := strings.HasPrefix(status, "1") && !strings.HasPrefix(status, "101")
		a.s.set(func() {
			for _, one := range a.s.clients {
				if one.end == "" {
					t = one
					break
				}
			}
			if t == nil {
				return
			}
			if interim {
				t.interim = append(t.interim, m)
			} else {
				t.m = m
			}
		})
		switch {
		case t == nil: // an answer to nothing
			a.s.set(func() { a.gone = "answered unasked" })
			return
		case interim:
		case t.tunnel && (strings.HasPrefix(status, "101") || t.method == "CONNECT" && strings.HasPrefix(status, "2")):
			t.readTunnel(a.r)
			return
		case t.method == "HEAD" || strings.HasPrefix(status, "204") || strings.HasPrefix(status, "304"):
			a.s.set(func() { t.end = "whole" })
		case !t.readBody(a.r, true):
			return
		}
	}
}

// readBody reads the rest of a message of HTTP/1; false where that was cut off, or has no
// other end than the connection's.
func (t *turn) readBody(r *bufio.Reader, untilClose bool) bool {
	s, m := t.a.s, t.m
	var err error
	var trailers []Header
	framing := "none"
	if te, ok := m.get("transfer-encoding"); ok && strings.EqualFold(te, "chunked") {
		framing = "chunked"
		trailers, err = t.readChunks(r)
	} else if cl, ok := m.get("content-length"); ok {
		framing = "length"
		var n int
		if n, err = strconv.Atoi(cl); err == nil {
			err = t.read(r, n)
		}
	} else if untilClose {
		framing = "close"
		_ = t.read(r, 1<<40)
	}
	s.set(func() {
		m.Framing, m.Trailers, t.end = framing, trailers, "whole"
		if err != nil {
			m.Broken, t.end = "cut off", "closed"
		}
	})
	return err == nil && framing != "close"
}

func (t *turn) read(r *bufio.Reader, n int) error {
	b := make([]byte, 16<<10)
	for n > 0 {
		k, err := r.Read(b[:min(n, len(b))])
		t.a.s.set(func() { t.take(b[:k]) })
		if n -= k; err != nil && n > 0 {
			return err
		}
	}
	return nil
}

func (t *turn) readChunks(r *bufio.Reader) ([]Header, error) {
	for {
		line, err := readLine(r)
		if err != nil {
			return nil, err
		}
		n, err := strconv.ParseInt(line, 16, 32)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return readFields(r)
		}
		if err := t.read(r, int(n)); err != nil {
			return nil, err
		}
		if line, err := readLine(r); err != nil || line != "" {
			return nil, fmt.Errorf("a chunk ends with %q: %w", line, err)
		}
	}
}

// readFrames is an end of HTTP/2.
func (a *actor) readFrames() {
	if a.server {
		preface := make([]byte, len(http2.ClientPreface))
		if _, err := io.ReadFull(a.r, preface); err != nil {
			return
		}
		a.greet()
	}
	for {
		fr, err := a.fr.ReadFrame()
		if err != nil {
			return
		}
		a.s.set(func() { a.note(fr) })
	}
}

// greet begins a connection of HTTP/2.
func (a *actor) greet() {
	a.write(func() {
		who := "h"
		if !a.server {
			who = "c"
			_, _ = a.out.WriteString(http2.ClientPreface)
		}
		var settings []http2.Setting
		a.s.mu.Lock()
		if n, ok := a.s.windows[who]; ok {
			settings = append(settings, http2.Setting{ID: http2.SettingInitialWindowSize, Val: n})
		}
		if a.server && a.s.connects {
			settings = append(settings, http2.Setting{ID: http2.SettingEnableConnectProtocol, Val: 1})
		}
		a.s.mu.Unlock()
		_ = a.fr.WriteSettings(settings...)
	})
}

// note takes a frame in. The stage's lock is held.
func (a *actor) note(fr http2.Frame) {
	id := fr.Header().StreamID
	t := a.turns[id]
	switch fr := fr.(type) {
	case *http2.MetaHeadersFrame:
		a.noteHead(id, t, fr)
	case *http2.DataFrame:
		n := int(fr.Header().Length)
		if t == nil {
			return
		}
		t.take(fr.Data())
		if fr.StreamEnded() {
			t.end = "END_STREAM"
		}
		if a.paused {
			t.owed, a.owed = t.owed+n, a.owed+n
		} else if n > 0 {
			ended := fr.StreamEnded()
			go a.write(func() {
				_ = a.fr.WriteWindowUpdate(0, uint32(n))
				if !ended {
					_ = a.fr.WriteWindowUpdate(id, uint32(n))
				}
			})
		}
	case *http2.RSTStreamFrame:
		if t != nil {
			t.end = strings.TrimSpace(t.end + " RST_STREAM " + fr.ErrCode.String())
		}
	case *http2.GoAwayFrame:
		a.goAway = "GOAWAY " + fr.ErrCode.String()
	case *http2.PingFrame:
		if fr.IsAck() {
			a.pongs++
		} else {
			data := fr.Data
			go a.write(func() { _ = a.fr.WritePing(true, data) })
		}
	case *http2.WindowUpdateFrame:
		if id == 0 {
			a.window += int(fr.Increment)
		} else if t != nil {
			t.window += int(fr.Increment)
		}
	case *http2.SettingsFrame:
		if fr.IsAck() {
			return
		}
		n, ok := fr.Value(http2.SettingInitialWindowSize)
		go func() {
			a.write(func() { _ = a.fr.WriteSettingsAck() }) // before what it allows
			a.s.set(func() {
				for _, t := range a.turns {
					if ok {
						t.window += int(n) - int(a.initial)
					}
				}
				if ok {
					a.initial = n
				}
			})
		}()
	}
}

// noteHead takes a head or trailers in.
func (a *actor) noteHead(id uint32, t *turn, fr *http2.MetaHeadersFrame) {
	m := &Message{Framing: "stream"}
	for _, h := range fr.RegularFields() {
		m.Headers = append(m.Headers, Header{h.Name, h.Value})
	}
	switch {
	case a.server && t == nil:
		t = newTurn(a, id)
		t.method = fr.PseudoValue("method")
		m.Start = t.method + " " + fr.PseudoValue("path") + " HTTP/2"
		if p := fr.PseudoValue("protocol"); p != "" {
			m.Headers = append(m.Headers, Header{":protocol", p})
		}
		t.tunnel = t.method == "CONNECT"
		m.Headers = append(m.Headers, Header{":authority", fr.PseudoValue("authority")}, Header{":scheme", fr.PseudoValue("scheme")})
		t.m, a.turns[id] = m, t
		a.s.hosts = append(a.s.hosts, t)
	case t == nil:
		return
	case a.server || t.m != nil:
		t.m.Trailers = m.Headers
	default:
		m.Start = "HTTP/2 " + fr.PseudoValue("status")
		if fr.PseudoValue("status")[0] == '1' {
			t.interim = append(t.interim, m)
			break
		}
		t.m = m
	}
	if fr.StreamEnded() {
		t.end = "END_STREAM"
	}
}

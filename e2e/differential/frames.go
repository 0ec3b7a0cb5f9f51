//go:build e2e

package differential

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// framed is one end of a connection that speaks HTTP/2 frame by frame, as a case says, and
// notes what comes.
type framed struct {
	c      net.Conn
	writes sync.Mutex
	out    *bufio.Writer
	fr     *http2.Framer
	block  bytes.Buffer
	enc    *hpack.Encoder

	mu      sync.Mutex
	changed sync.Cond
	streams map[uint32]*frameStream
	pongs   int
	goAway  string
	closed  bool
	// begun is told of a stream's first head.
	begun func(id uint32, s *frameStream)
}

// frameStream is what came on one stream.
type frameStream struct {
	messages []*Message // heads, the last with its body and trailers
	end      string     // how the other end ended it, empty while it is open
}

func newFramed(c net.Conn) *framed {
	f := &framed{c: c, out: bufio.NewWriterSize(c, 1<<20), streams: map[uint32]*frameStream{}}
	f.fr = http2.NewFramer(f.out, c)
	f.fr.AllowIllegalWrites = true
	f.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	f.enc = hpack.NewEncoder(&f.block)
	f.changed.L = &f.mu
	return f
}

// read notes frames until the connection ends.
func (f *framed) read() {
	for {
		fr, err := f.fr.ReadFrame()
		f.mu.Lock()
		if err != nil {
			f.closed = true
		} else {
			f.note(fr)
		}
		f.changed.Broadcast()
		f.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (f *framed) note(fr http2.Frame) {
	id := fr.Header().StreamID
	switch fr := fr.(type) {
	case *http2.MetaHeadersFrame:
		f.head(id, fr)
	case *http2.DataFrame:
		if s := f.streams[id]; s != nil && len(s.messages) > 0 {
			s.messages[len(s.messages)-1].Body += string(fr.Data())
			s.ended(fr.StreamEnded())
		}
	case *http2.RSTStreamFrame:
		s := f.stream(id)
		s.end = strings.TrimSpace(s.end + " RST_STREAM " + fr.ErrCode.String())
	case *http2.GoAwayFrame:
		f.goAway = "GOAWAY " + fr.ErrCode.String()
	case *http2.PingFrame:
		if fr.IsAck() {
			if fr.Data == settling {
				f.pongs++
			}
		} else {
			go f.write(func() { _ = f.fr.WritePing(true, fr.Data) })
		}
	case *http2.SettingsFrame:
		if !fr.IsAck() {
			table, told := fr.Value(http2.SettingHeaderTableSize)
			go f.write(func() {
				if told {
					f.enc.SetMaxDynamicTableSizeLimit(table)
				}
				_ = f.fr.WriteSettingsAck()
			})
		}
	}
}

// stream is what is noted of a stream. The lock is held.
func (f *framed) stream(id uint32) *frameStream {
	s := f.streams[id]
	if s == nil {
		s = &frameStream{}
		f.streams[id] = s
	}
	return s
}

func (f *framed) head(id uint32, fr *http2.MetaHeadersFrame) {
	s := f.stream(id)
	first := len(s.messages) == 0
	m := &Message{Framing: "stream"}
	pseudo := map[string]string{}
	for _, h := range fr.Fields {
		if h.IsPseudo() {
			pseudo[h.Name] = h.Value
		} else {
			m.Headers = append(m.Headers, Header{h.Name, h.Value})
		}
	}
	switch {
	case pseudo[":status"] != "":
		m.Start = "HTTP/2 " + pseudo[":status"]
	case pseudo[":method"] != "":
		m.Start = pseudo[":method"] + " " + pseudo[":path"] + " HTTP/2"
		for _, name := range []string{":authority", ":scheme", ":protocol"} {
			if v, ok := pseudo[name]; ok {
				m.Headers = append(m.Headers, Header{name, v})
			}
		}
	case len(s.messages) > 0:
		s.messages[len(s.messages)-1].Trailers = m.Headers
		m = nil
	}
	if m != nil {
		s.messages = append(s.messages, m)
	}
	s.ended(fr.StreamEnded())
	if first && f.begun != nil && len(s.messages) > 0 {
		f.begun(id, s)
	}
}

func (s *frameStream) ended(yes bool) {
	if yes {
		s.end = "END_STREAM"
	}
}

func (f *framed) write(what func()) {
	f.writes.Lock()
	defer f.writes.Unlock()
	what()
	_ = f.out.Flush()
}

// await returns when done says so, or the connection has ended, or time is up.
func (f *framed) await(patience time.Duration, done func() bool) bool {
	end := time.Now().Add(patience) // before the timer, which else could wake who goes on to wait for ever
	over := time.AfterFunc(patience, func() { f.mu.Lock(); f.changed.Broadcast(); f.mu.Unlock() })
	defer over.Stop()
	f.mu.Lock()
	defer f.mu.Unlock()
	for !done() && !f.closed && time.Now().Before(end) {
		f.changed.Wait()
	}
	return done()
}

// settling tells the PINGs of settle from those of a case.
var settling = [8]byte{1}

// settle waits until the other end has read all that was written.
func (f *framed) settle() bool {
	f.mu.Lock()
	want := f.pongs + 1
	f.mu.Unlock()
	f.write(func() { _ = f.fr.WritePing(false, settling) })
	return f.await(300*time.Millisecond, func() bool { return f.pongs >= want })
}

// flush sends the steps so far, at once.
func (f *framed) flush() { f.write(func() {}) }

// do is one step: a frame, or a wait. id is the stream that is written as "*".
func (f *framed) do(step string, id uint32) error {
	line, fields, _ := strings.Cut(step, "\n")
	words := strings.Fields(line)
	stream := uint32(0)
	if len(words) > 1 {
		if stream = id; words[1] != "*" {
			n, _ := strconv.ParseUint(words[1], 10, 32)
			stream = uint32(n)
		}
	}
	rest := words[min(2, len(words)):]
	end, more := slices.Contains(rest, "END"), slices.Contains(rest, "MORE")
	var pad []byte
	if slices.Contains(rest, "PAD") {
		pad = make([]byte, 9)
	}
	number := func(s string) uint32 {
		n, _ := strconv.ParseUint(s, 10, 32)
		return uint32(n)
	}
	switch words[0] {
	case "settle":
		f.settle()
		time.Sleep(50 * time.Millisecond) // what was read is worked on
		return nil
	case "wait":
		f.flush()
		d, err := time.ParseDuration(words[1])
		time.Sleep(d)
		return err
	case "await":
		f.flush()
		f.await(patience, func() bool { s := f.streams[stream]; return s != nil && (len(s.messages) > 0 || s.end != "") })
		return nil
	}
	f.writes.Lock()
	defer f.writes.Unlock()
	switch words[0] {
	case "HEADERS":
		_ = f.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: f.fields(fields), EndStream: end, EndHeaders: !more, PadLength: uint8(len(pad))})
	case "CONTINUATION":
		_ = f.fr.WriteContinuation(stream, !more, f.fields(fields))
	case "DATA":
		_ = f.fr.WriteDataPadded(stream, end, []byte(sized(fields)), pad)
	case "RST_STREAM":
		_ = f.fr.WriteRSTStream(stream, codeNamed(rest[0]))
	case "GOAWAY":
		_ = f.fr.WriteGoAway(stream, codeNamed(rest[0]), nil)
	case "WINDOW_UPDATE":
		_ = f.fr.WriteWindowUpdate(stream, number(rest[0]))
	case "PRIORITY":
		_ = f.fr.WritePriority(stream, http2.PriorityParam{StreamDep: number(rest[0])})
	case "SETTINGS":
		_ = f.fr.WriteSettings(http2.Setting{ID: http2.SettingID(stream), Val: number(rest[0])})
	case "PING":
		_ = f.fr.WritePing(end, [8]byte{2})
	case "FRAME": // its type and flags, and the payload, in hexadecimal
		kind, _ := strconv.ParseUint(rest[0], 16, 8)
		flags, _ := strconv.ParseUint(rest[1], 16, 8)
		payload, err := hex.DecodeString(strings.ReplaceAll(fields, " ", ""))
		if err != nil {
			return err
		}
		_ = f.fr.WriteRawFrame(http2.FrameType(kind), http2.Flags(flags), stream, payload)
	default: // a request
		f.mu.Lock()
		f.stream(stream)
		f.mu.Unlock()
		path := "/"
		for _, w := range rest {
			if strings.HasPrefix(w, "/") {
				path = w
			}
		}
		head := ":method: " + words[0] + "\n:scheme: http\n:authority: test.example\n:path: " + path
		if fields != "" {
			head += "\n" + fields
		}
		_ = f.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: f.fields(head), EndStream: end, EndHeaders: !more})
	}
	return nil
}

// fields encodes lines of "name: value"; a name may begin with a colon.
func (f *framed) fields(lines string) []byte {
	f.block.Reset()
	for line := range strings.SplitSeq(lines, "\n") {
		if at := strings.Index(line[min(1, len(line)):], ":"); at >= 0 {
			_ = f.enc.WriteField(hpack.HeaderField{Name: line[:at+1], Value: strings.TrimPrefix(line[at+2:], " ")})
		}
	}
	return bytes.Clone(f.block.Bytes())
}

func codeNamed(name string) http2.ErrCode {
	for c := range http2.ErrCode(14) {
		if c.String() == name {
			return c
		}
	}
	return 0xff
}

// converseFrames sends the case frame by frame.
func (x *Case) converseFrames(addr string) (*outcome, error) {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	f := newFramed(c)
	_, _ = f.out.WriteString(http2.ClientPreface)
	_ = f.fr.WriteSettings()
	go f.read()
	for _, step := range x.Frames {
		if err := f.do(step, 1); err != nil {
			return nil, err
		}
	}
	f.flush()
	f.await(300*time.Millisecond, func() bool { return f.goAway != "" || len(f.streams) > 0 && f.allEnded() })
	lives := f.settle()
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &outcome{streams: map[uint32]string{}, end: "open", byStream: x.ByStream}
	switch {
	case f.goAway != "":
		out.end = f.goAway
	case !lives: // Envoy closes only after a while
		out.end = "closed"
	}
	for _, id := range slices.Sorted(maps.Keys(f.streams)) {
		s := f.streams[id]
		out.responses = append(out.responses, s.messages...)
		for range s.messages {
			out.of = append(out.of, id)
		}
		out.streams[id] = s.end
	}
	return out, nil
}

func (f *framed) allEnded() bool {
	for _, s := range f.streams {
		if s.end == "" {
			return false
		}
	}
	return true
}

// startFrames is the origin that speaks HTTP/2 frame by frame.
func (o *origins) startFrames() error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	o.lns = append(o.lns, ln)
	o.ports["frames"] = ln.Addr().(*net.TCPAddr).Port
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go o.serveFrames(c)
		}
	}()
	return nil
}

func (o *origins) serveFrames(c net.Conn) {
	defer c.Close()
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(c, preface); err != nil {
		return
	}
	f := newFramed(c)
	f.write(func() { _ = f.fr.WriteSettings(http2.Setting{ID: http2.SettingEnableConnectProtocol, Val: 1}) })
	f.begun = func(id uint32, s *frameStream) { go o.answerFrames(f, id, s) }
	o.mu.Lock()
	o.framed = append(o.framed, c)
	o.mu.Unlock()
	f.read()
}

// answerFrames records the request as far as it comes, and answers it.
func (o *origins) answerFrames(f *framed, id uint32, s *frameStream) {
	o.reads(1)
	a, i := o.arrive("frames", s.messages[0])
	over := func() bool { return s.end != "" }
	if !a.Early {
		f.await(patience, over)
	}
	steps := a.Frames
	if steps == nil {
		steps = []string{"HEADERS *\n:status: 200\nx-origin: frames", "DATA * END\nok"}
	}
	for _, step := range steps {
		_ = f.do(step, id)
	}
	f.flush()
	if a.Early {
		f.await(patience, over)
	}
	f.mu.Lock()
	whole := *s.messages[0]
	if strings.HasPrefix(s.end, "RST") {
		whole.Broken = "cut off"
	}
	f.mu.Unlock()
	o.mu.Lock()
	if i < len(o.seen) && o.seen[i].Message == s.messages[0] {
		o.seen[i].Message = &whole
	}
	o.mu.Unlock()
	o.reads(-1)
}

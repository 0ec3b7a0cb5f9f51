package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	h2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	ownWindow  = 1 << 20 // what we let the peer send on a stream
	connWindow = 1 << 24 // and on a connection
)

// h2Side is one end of an HTTP/2 connection, as lean as the framer allows: what
// its events cause is gathered, and written when the reader has used up its input.
type h2Side struct {
	conn net.Conn
	in   *bufio.Reader
	fr   *h2.Framer
	dec  *hpack.Decoder

	mu      sync.Mutex
	out     bytes.Buffer
	enc     *hpack.Encoder
	encoded bytes.Buffer
	streams map[uint32]*h2Stream
	waiting []*h2Stream // have data that a window has not let go
	window  int64       // of the connection, for sending
	initial int64       // of a new stream
	frame   uint32      // the largest that the peer takes
	taken   uint32      // received and not given back, of the connection
}

// h2Stream is one stream of either end.
type h2Stream struct {
	id         uint32
	window     int64
	queue      []byte // to be sent
	end        bool   // after the queue
	trailers   bool   // ends with grpc-status, after the queue
	taken      uint32
	got        int // bytes of the messages received
	status     string
	grpcStatus string
	slot       *slot
}

func newH2Side(c net.Conn) *h2Side {
	s := &h2Side{conn: c, in: bufio.NewReaderSize(c, 64<<10), streams: map[uint32]*h2Stream{}, window: 65535, initial: 65535, frame: 16384}
	s.fr = h2.NewFramer(&s.out, s.in)
	s.fr.SetReuseFrames()
	s.dec = hpack.NewDecoder(4096, nil)
	s.enc = hpack.NewEncoder(&s.encoded)
	return s
}

// begin sends what both ends send first.
func (s *h2Side) begin(settings ...h2.Setting) error {
	err := s.fr.WriteSettings(append(settings, h2.Setting{ID: h2.SettingInitialWindowSize, Val: ownWindow})...)
	if err != nil {
		return err
	}
	return s.fr.WriteWindowUpdate(0, connWindow-65535)
}

// flush writes what was gathered. mu is held.
func (s *h2Side) flush() error {
	if s.out.Len() == 0 {
		return nil
	}
	_, err := s.conn.Write(s.out.Bytes())
	s.out.Reset()
	return err
}

// events of a stream; mu is held.
type h2Handler interface {
	headers(st *h2Stream, name, value string)
	headersEnd(id uint32, end bool) error
	data(st *h2Stream, p []byte, end bool) error
	reset(st *h2Stream, code h2.ErrCode) error
	over() bool
}

// run reads until the connection ends or the handler says that it is over.
func (s *h2Side) run(h h2Handler) error {
	var id uint32
	var end bool
	s.dec.SetEmitFunc(func(f hpack.HeaderField) {
		if st := s.streams[id]; st != nil {
			h.headers(st, f.Name, f.Value)
		}
	})
	for {
		if s.in.Buffered() < 9 {
			s.mu.Lock()
			err, over := s.flush(), h.over()
			s.mu.Unlock()
			if err != nil || over {
				return err
			}
		}
		f, err := s.fr.ReadFrame()
		if err != nil {
			return err
		}
		s.mu.Lock()
		switch f := f.(type) {
		case *h2.HeadersFrame:
			id, end = f.StreamID, f.StreamEnded()
			err = s.block(h, id, end, f.HeaderBlockFragment(), f.HeadersEnded())
		case *h2.ContinuationFrame:
			err = s.block(h, id, end, f.HeaderBlockFragment(), f.HeadersEnded())
		case *h2.DataFrame:
			err = s.received(h, f)
		case *h2.WindowUpdateFrame:
			s.opened(f)
		case *h2.SettingsFrame:
			err = s.settings(f)
		case *h2.PingFrame:
			if !f.IsAck() {
				err = s.fr.WritePing(true, f.Data)
			}
		case *h2.RSTStreamFrame:
			if st := s.streams[f.StreamID]; st != nil {
				delete(s.streams, f.StreamID)
				err = h.reset(st, f.ErrCode)
			}
		case *h2.GoAwayFrame:
			err = fmt.Errorf("GOAWAY: %v %q", f.ErrCode, f.DebugData())
		}
		s.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

func (s *h2Side) block(h h2Handler, id uint32, end bool, fragment []byte, last bool) error {
	if st := s.streams[id]; st == nil {
		s.streams[id] = &h2Stream{id: id, window: s.initial}
	}
	if _, err := s.dec.Write(fragment); err != nil {
		return err
	}
	if !last {
		return nil
	}
	if err := s.dec.Close(); err != nil {
		return err
	}
	return h.headersEnd(id, end)
}

func (s *h2Side) received(h h2Handler, f *h2.DataFrame) error {
	n := f.Length
	if s.taken += n; s.taken > connWindow/4 {
		if err := s.fr.WriteWindowUpdate(0, s.taken); err != nil {
			return err
		}
		s.taken = 0
	}
	st := s.streams[f.StreamID]
	if st == nil {
		return nil
	}
	if st.taken += n; st.taken > ownWindow/2 && !f.StreamEnded() {
		if err := s.fr.WriteWindowUpdate(st.id, st.taken); err != nil {
			return err
		}
		st.taken = 0
	}
	return h.data(st, f.Data(), f.StreamEnded())
}

func (s *h2Side) opened(f *h2.WindowUpdateFrame) {
	if f.StreamID == 0 {
		s.window += int64(f.Increment)
	} else if st := s.streams[f.StreamID]; st != nil {
		st.window += int64(f.Increment)
	}
	s.retry()
}

// retry sends what waited for a window.
func (s *h2Side) retry() {
	again := s.waiting
	s.waiting = nil
	for _, st := range again {
		s.send(st)
	}
}

func (s *h2Side) settings(f *h2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	if v, ok := f.Value(h2.SettingInitialWindowSize); ok {
		for _, st := range s.streams {
			st.window += int64(v) - s.initial
		}
		s.initial = int64(v)
	}
	if v, ok := f.Value(h2.SettingMaxFrameSize); ok {
		s.frame = v
	}
	if v, ok := f.Value(h2.SettingHeaderTableSize); ok {
		s.enc.SetMaxDynamicTableSizeLimit(v)
	}
	s.retry()
	return s.fr.WriteSettingsAck()
}

// send writes as much of a stream's queue as the windows allow. mu is held.
func (s *h2Side) send(st *h2Stream) {
	for len(st.queue) > 0 {
		n := min(int64(len(st.queue)), s.window, st.window, int64(s.frame))
		if n <= 0 {
			s.waiting = append(s.waiting, st)
			return
		}
		_ = s.fr.WriteData(st.id, st.end && !st.trailers && n == int64(len(st.queue)), st.queue[:n])
		st.queue = st.queue[n:]
		s.window -= n
		st.window -= n
	}
	if st.end && st.trailers {
		s.writeHeaders(st.id, true, "grpc-status", "0")
	}
}

// writeHeaders writes a block; pairs are names and values. Writing into memory
// does not fail.
func (s *h2Side) writeHeaders(id uint32, end bool, pairs ...string) {
	s.encoded.Reset()
	for i := 0; i < len(pairs); i += 2 {
		_ = s.enc.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	_ = s.fr.WriteHeaders(h2.HeadersFrameParam{StreamID: id, BlockFragment: s.encoded.Bytes(), EndHeaders: true, EndStream: end})
}

// grpcMessage is a message of n bytes with its prefix.
func grpcMessage(n int) []byte {
	return append([]byte{0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, bodyOf(n)...)
}

// startGRPC answers a unary call with a message, and echoes the messages of a stream.
func startGRPC(bodySize int) (*origin, error) {
	message := grpcMessage(bodySize)
	return startOrigin(func(o *origin, c net.Conn) { serveGRPC(o, c, message) })
}

// serveGRPC serves a connection to its end, and tells how many streams were left open.
func serveGRPC(o *origin, c net.Conn, message []byte) (open int) {
	s := newH2Side(c)
	preface := make([]byte, len(h2.ClientPreface))
	if _, err := io.ReadFull(s.in, preface); err != nil || string(preface) != h2.ClientPreface {
		return 0
	}
	if s.begin(h2.Setting{ID: h2.SettingMaxConcurrentStreams, Val: 1000}) == nil {
		_ = s.run(&grpcServer{o, s, message})
	}
	return len(s.streams)
}

type grpcServer struct {
	*origin
	*h2Side
	message []byte
}

func (g *grpcServer) headers(st *h2Stream, name, value string) {
	if name == ":path" {
		st.status = value
	}
}

func (g *grpcServer) headersEnd(id uint32, end bool) error {
	g.writeHeaders(id, false, ":status", "200", "content-type", "application/grpc")
	if end {
		g.finish(g.streams[id])
	}
	return nil
}

func (g *grpcServer) data(st *h2Stream, p []byte, end bool) error {
	stream := st.status == streamPath
	for len(p) > 0 {
		part := p[:min(len(p), len(g.message)-st.got)]
		if !bytes.Equal(part, g.message[st.got:][:len(part)]) {
			return errors.New("a message is not the client's")
		}
		p = p[len(part):]
		if st.got += len(part); st.got == len(g.message) {
			st.got = 0
			g.served.Add(1)
			st.queue = append(st.queue, g.message...)
		}
	}
	if stream && !end {
		g.send(st)
	}
	if end {
		g.finish(st)
	}
	return nil
}

func (g *grpcServer) finish(st *h2Stream) {
	st.end, st.trailers = true, true
	g.send(st)
	if len(st.queue) == 0 {
		delete(g.streams, st.id)
	}
}

func (g *grpcServer) reset(*h2Stream, h2.ErrCode) error { return nil }
func (g *grpcServer) over() bool                        { return false }

//go:build e2e

package interop

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// breaker is a server of grpc-go's negative HTTP/2 cases: it answers large unary calls,
// frame by frame, and breaks what its case says.
type breaker struct {
	kind string

	mu     sync.Mutex
	faults []string
	conns  int
	calls  int
	pings  int
}

func (b *breaker) fault(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults = append(b.faults, fmt.Sprintf(format, args...))
}

func (b *breaker) serve(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				b.connection(c)
			})
		}
	})
	t.Cleanup(func() { ln.Close() })
	return ln.Addr().String()
}

// brokenConn is one connection of a breaker.
type brokenConn struct {
	b      *breaker
	framer *http2.Framer
	out    bytes.Buffer
	enc    *hpack.Encoder
	// To send: on the connection, on a stream that begins, on each that is open.
	window, initial int
	windows         map[uint32]int

	unacknowledged int  // pings
	limits         bool // the limit was sent
	acks           int  // of SETTINGS; the limit is the second, and holds from then on
	answered       int
}

func (b *breaker) connection(nc net.Conn) {
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(nc, preface); err != nil || string(preface) != http2.ClientPreface {
		return // a look whether somebody listens
	}
	b.mu.Lock()
	b.conns++
	b.mu.Unlock()
	c := &brokenConn{b: b, framer: http2.NewFramer(nc, nc), window: 65535, initial: 65535, windows: map[uint32]int{}}
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.enc = hpack.NewEncoder(&c.out)
	if c.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20}) != nil ||
		c.framer.WriteWindowUpdate(0, 1<<30) != nil {
		return
	}
	for {
		f, err := c.framer.ReadFrame()
		if err != nil || c.handle(f) != nil {
			break
		}
	}
	if c.unacknowledged != 0 {
		b.fault("%d pings without an answer", c.unacknowledged)
	}
}

func (c *brokenConn) ping() error {
	if c.b.kind != "ping" {
		return nil
	}
	c.unacknowledged++
	c.b.mu.Lock()
	c.b.pings++
	c.b.mu.Unlock()
	return c.framer.WritePing(false, [8]byte{'h', 'a', 'u', 'b', 'e', 'r', 'k', byte(c.unacknowledged)})
}

func (c *brokenConn) handle(f http2.Frame) error {
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if f.IsAck() {
			c.acks++
			return nil
		}
		if v, ok := f.Value(http2.SettingInitialWindowSize); ok {
			for id := range c.windows {
				c.windows[id] += int(v) - c.initial
			}
			c.initial = int(v)
		}
		return c.framer.WriteSettingsAck()
	case *http2.PingFrame:
		if f.IsAck() {
			c.unacknowledged--
			return nil
		}
		return c.framer.WritePing(true, f.Data)
	case *http2.WindowUpdateFrame:
		if f.StreamID == 0 {
			c.window += int(f.Increment)
		} else if _, open := c.windows[f.StreamID]; open {
			c.windows[f.StreamID] += int(f.Increment)
		}
	case *http2.RSTStreamFrame:
		delete(c.windows, f.StreamID)
	case *http2.MetaHeadersFrame:
		c.windows[f.StreamID] = c.initial
		// A stream that was on its way when the limit was set is the client's right
		// (RFC 9113 6.5.3).
		if c.acks > 1 && len(c.windows) > 1 {
			c.b.fault("%d streams on one connection where 1 is the limit", len(c.windows))
		}
		return c.ping()
	case *http2.DataFrame:
		if err := c.ping(); err != nil {
			return err
		}
		if f.StreamEnded() {
			return c.answer(f.StreamID)
		}
	}
	return nil
}

const responseSize = 314159

// answer answers a call as the case has it.
func (c *brokenConn) answer(stream uint32) error {
	c.b.mu.Lock()
	c.b.calls++
	c.b.mu.Unlock()
	c.answered++
	message, err := proto.Marshal(&grpc_testing.SimpleResponse{Payload: &grpc_testing.Payload{Body: make([]byte, responseSize)}})
	if err != nil {
		return err
	}
	message = append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
	if err := c.headers(stream, false, ":status", "200", "content-type", "application/grpc"); err != nil {
		return err
	}
	if c.b.kind == "rst_after_header" {
		return c.framer.WriteRSTStream(stream, http2.ErrCodeNo)
	}
	half := c.b.kind == "rst_during_data"
	if half {
		message = message[:len(message)/2]
	}
	if err := c.data(stream, message); err != nil {
		return err
	}
	if half || c.b.kind == "rst_after_data" {
		return c.framer.WriteRSTStream(stream, http2.ErrCodeNo)
	}
	if err := c.headers(stream, true, "grpc-status", "0"); err != nil {
		return err
	}
	delete(c.windows, stream)
	switch {
	case c.b.kind == "goaway" && c.answered == 1:
		return c.framer.WriteGoAway(stream, http2.ErrCodeNo, nil)
	case c.b.kind == "goaway":
		c.b.fault("a call on a connection that was told to go away")
	case c.b.kind == "max_streams" && !c.limits && len(c.windows) == 0:
		c.limits = true
		return c.framer.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
	}
	return nil
}

func (c *brokenConn) headers(stream uint32, end bool, fields ...string) error {
	c.out.Reset()
	for i := 0; i < len(fields); i += 2 {
		if err := c.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}); err != nil {
			return err
		}
	}
	return c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: c.out.Bytes(), EndHeaders: true, EndStream: end})
}

// data sends p, reading on while a window is closed. A client grows a stream's own only
// once it has begun to read the message.
func (c *brokenConn) data(stream uint32, p []byte) error {
	for len(p) > 0 {
		n := min(len(p), 16384)
		for c.window < n || c.windows[stream] < n {
			f, err := c.framer.ReadFrame()
			if err != nil {
				return err
			}
			if err := c.handle(f); err != nil {
				return err
			}
		}
		if err := c.ping(); err != nil {
			return err
		}
		if err := c.framer.WriteData(stream, false, p[:n]); err != nil {
			return err
		}
		c.window -= n
		c.windows[stream] -= n
		p = p[n:]
	}
	return nil
}

// TestNegative runs grpc-go's negative HTTP/2 client against servers that break
// streams: without a sidecar, to hold the server to the case, and through one and two.
func TestNegative(t *testing.T) {
	for _, kind := range []string{"goaway", "rst_after_header", "rst_during_data", "rst_after_data", "ping", "max_streams"} {
		for name, way := range map[string]func(t *testing.T, server string) string{
			"direct":   func(_ *testing.T, server string) string { return server },
			"one hop":  func(t *testing.T, server string) string { return oneHop(t, server, rendered).addr },
			"two hops": func(t *testing.T, server string) string { return twoHops(t, server, rendered).addr },
		} {
			t.Run(kind+"/"+name, func(t *testing.T) {
				b := &breaker{kind: kind}
				addr := way(t, b.serve(t))
				if kind == "rst_during_data" {
					// The client still wants UNKNOWN here, which grpc-go itself does not give
					// any more, without a proxy either.
					refusesHalf(t, addr)
				} else {
					runClient(t, "http2", addr, kind)
				}
				b.mu.Lock()
				defer b.mu.Unlock()
				for _, f := range b.faults {
					t.Error(f)
				}
				if b.calls == 0 || kind == "goaway" && b.conns < 2 || kind == "ping" && b.pings == 0 || kind == "max_streams" && b.calls != 16 {
					t.Errorf("%d calls on %d connections, %d pings: the case did not run", b.calls, b.conns, b.pings)
				}
			})
		}
	}
}

// refusesHalf makes a call whose answer ends within the message.
func refusesHalf(t *testing.T, addr string) {
	t.Helper()
	reply, err := dial(t, addr).UnaryCall(t.Context(), &grpc_testing.SimpleRequest{Payload: &grpc_testing.Payload{Body: make([]byte, 271828)}})
	if reply != nil || status.Code(err) != codes.Internal {
		t.Errorf("half an answer: %v, want %s and no reply", err, codes.Internal)
	}
}

package hcm

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// frames is a client that writes HTTP/2 frame by frame, on stream 1.
type frames struct {
	*testClient
	framer  *http2.Framer
	pending bytes.Buffer
}

func (b *bed) dialHTTP2() *frames {
	f := &frames{testClient: b.dial()}
	f.framer = http2.NewFramer(&f.pending, f.r)
	f.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	f.pending.WriteString(http2.ClientPreface)
	_ = f.framer.WriteSettings()
	return f
}

// headers opens the stream with "name: value" fields; more is to follow.
func (f *frames) headers(fields ...string) {
	f.request(http2.HeadersFrameParam{StreamID: 1}, fields)
}

// open is a whole request without a body, on another stream.
func (f *frames) open(stream uint32, fields ...string) {
	f.request(http2.HeadersFrameParam{StreamID: stream, EndStream: true}, fields)
}

func (f *frames) request(p http2.HeadersFrameParam, fields []string) {
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	for _, field := range fields {
		i := 1 + strings.Index(field[1:], ": ")
		_ = e.WriteField(hpack.HeaderField{Name: field[:i], Value: field[i+2:]})
	}
	p.BlockFragment, p.EndHeaders = block.Bytes(), true
	_ = f.framer.WriteHeaders(p)
}

// data ends the stream.
func (f *frames) data(s string) {
	_ = f.framer.WriteData(1, true, []byte(s))
}

// settle sends what was written and waits until the other side has read it.
func (f *frames) settle() {
	f.t.Helper()
	_ = f.framer.WritePing(false, [8]byte{'s', 'e', 't'})
	f.write()
	for {
		fr, err := f.framer.ReadFrame()
		if err != nil {
			f.t.Fatal(err)
		}
		if ping, ok := fr.(*http2.PingFrame); ok && ping.IsAck() {
			return
		}
	}
}

func (f *frames) write() {
	f.t.Helper()
	f.send(f.pending.String())
	f.pending.Reset()
}

// outcome sends what was written and tells how the stream, or the connection, ended.
func (f *frames) outcome() string {
	f.t.Helper()
	f.write()
	for {
		fr, err := f.framer.ReadFrame()
		if err != nil {
			return err.Error()
		}
		switch fr := fr.(type) {
		case *http2.MetaHeadersFrame:
			return "HEADERS " + fr.PseudoValue("status")
		case *http2.RSTStreamFrame:
			return fmt.Sprintf("RST_STREAM %v", fr.ErrCode)
		case *http2.GoAwayFrame:
			return fmt.Sprintf("GOAWAY %v", fr.ErrCode)
		}
	}
}

// framesOrigin is a host that speaks HTTP/2 frame by frame: it says its settings and
// acknowledges its peer's, and told is given every other frame.
func framesOrigin(t testing.TB, told func(*http2.Framer, http2.Frame), settings ...http2.Setting) string {
	return rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
		if _, err := io.CopyN(io.Discard, r, int64(len(http2.ClientPreface))); err != nil {
			return
		}
		f := http2.NewFramer(c, r)
		_ = f.WriteSettings(settings...)
		for {
			fr, err := f.ReadFrame()
			if err != nil {
				return
			}
			if s, ok := fr.(*http2.SettingsFrame); !ok {
				told(f, fr)
			} else if !s.IsAck() {
				_ = f.WriteSettingsAck()
			}
		}
	})
}

// answerFrame writes the head of a response that ends the stream.
func answerFrame(f *http2.Framer, id uint32, status string, fields ...hpack.HeaderField) {
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	for _, field := range append([]hpack.HeaderField{{Name: ":status", Value: status}}, fields...) {
		_ = e.WriteField(field)
	}
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true})
}

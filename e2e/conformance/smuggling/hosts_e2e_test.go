//go:build e2e

package smuggling

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/hauberk-mesh/hauberk/e2e/conformance/bed"
)

// TestHosts lets a hostile host of HTTP/2 answer clients of HTTP/1, and looks at what
// TestResponses does. A malformed head ends the host's connection, or its stream where so
// configured; what comes behind a good one ends its stream, for others share the connection.
func TestHosts(t *testing.T) {
	t.Run("by connection", func(t *testing.T) { testHosts(t, "{}", false) })
	t.Run("by stream", func(t *testing.T) { testHosts(t, "{override_stream_error_on_invalid_http_message: true}", true) })
}

func testHosts(t *testing.T, options string, byStream bool) {
	h := newHostile(t, (*hostile).serveHTTP2)
	h.byStream = byStream
	h.after = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nafter"
	l := bed.Listener{Addr: bed.Addr(t), Options: bed.Mesh}
	s := bed.StartWith(t, []bed.Cluster{{Name: "origin", Addr: h.addr, HTTP2: options}}, l)
	began := time.Now()
	for _, c := range load(t, "hosts") {
		if t.Failed() && time.Since(began) > 30*time.Second {
			t.Fatal("given up")
		}
		if err := h.response(c, l.Addr); err != nil {
			t.Errorf("%s: %s (%s): %v", c.where, c.name, c.cite, err)
			s.Alive()
		}
	}
}

func (h *hostile) serveHTTP2(conn net.Conn) {
	defer conn.Close()
	if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	r := http2.NewFramer(conn, conn)
	r.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err := errors.Join(r.WriteSettings(), r.WriteSettingsAck()); err != nil {
		return
	}
	for {
		f, err := r.ReadFrame()
		if err != nil {
			return
		}
		head, ok := f.(*http2.MetaHeadersFrame)
		if !ok {
			continue
		}
		c := h.came(head.PseudoValue("path"), conn)
		if c == nil {
			c = &testCase{frames: []frame{{'H', ":status: 200 | content-length: 5"}, {'D', "after"}}}
		}
		var out bytes.Buffer
		w := http2.NewFramer(&out, nil)
		w.AllowIllegalWrites = true
		err = writeCase(w, head.StreamID, c, func() {
			_, _ = out.WriteTo(conn)
			time.Sleep(20 * time.Millisecond)
		})
		if err != nil {
			return
		}
		if _, err := out.WriteTo(conn); err != nil || c.end {
			return
		}
	}
}

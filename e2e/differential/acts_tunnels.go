//go:build e2e

package differential

import (
	"bufio"
	"crypto/sha1" // what RFC 6455 asks for
	"encoding/base64"
	"errors"
	"io"
)

// A request for a tunnel is "c CONNECT /" or "c WEBSOCKET /path", in the words of either version. An
// answer of 101 has what the request's key asks for. Behind them "data" is bytes, and "end" the end of
// one half.

const tunnelAuthority = "test.example:80"

// tunnelHead is head for one that asks for a tunnel, or agrees to one.
func (a *actor) tunnelHead(t *turn, words []string, start []Header, line string, fields []Header) ([]Header, string, []Header) {
	switch {
	case a.server && words[0] == "101":
		fields = append(fields, Header{"Upgrade", "websocket"}, Header{"Connection", "Upgrade"})
		if key, ok := t.m.get("sec-websocket-key"); ok {
			sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
			fields = append(fields, Header{"Sec-WebSocket-Accept", base64.StdEncoding.EncodeToString(sum[:])})
		}
	case a.server:
	case words[0] == "CONNECT":
		start = []Header{{":method", "CONNECT"}, {":authority", tunnelAuthority}}
		line = "CONNECT " + tunnelAuthority + " HTTP/1.1\r\nHost: " + tunnelAuthority + "\r\n"
	case a.h2:
		start[0].Value = "CONNECT"
		start = append(start, Header{":protocol", "websocket"})
		fields = append(fields, Header{"sec-websocket-version", "13"})
	default:
		line = "GET " + words[1] + " HTTP/1.1\r\nHost: test.example\r\n"
		fields = append(fields, Header{"Upgrade", "websocket"}, Header{"Connection", "Upgrade"}, Header{"Sec-WebSocket-Version", "13"}, Header{"Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="})
	}
	return start, line, fields
}

// readBytes is a host that gets the tunnel's bytes alone.
func (a *actor) readBytes() {
	t := newTurn(a, 1)
	a.s.set(func() {
		t.tunnel, t.m = true, &Message{Start: "bytes"}
		a.turns[t.id] = t
		a.s.hosts = append(a.s.hosts, t)
	})
	t.readTunnel(a.r)
}

// readTunnel reads to the end of the other end's half.
func (t *turn) readTunnel(r *bufio.Reader) {
	b := make([]byte, 16<<10)
	for {
		n, err := r.Read(b)
		t.a.s.set(func() { t.take(b[:n]) })
		if err == nil {
			continue
		}
		t.a.s.set(func() {
			if t.end = "cut"; errors.Is(err, io.EOF) {
				t.end = "whole"
			}
		})
		return
	}
}

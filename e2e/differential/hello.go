//go:build e2e

package differential

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// segmentPause is long enough for what was sent to be read alone.
const segmentPause = 20 * time.Millisecond

// encoded are the bytes of the records.
func (h *Hello) encoded() ([]byte, error) {
	if h.Bytes != "" {
		return hex.DecodeString(h.Bytes)
	}
	message, err := h.message()
	if err != nil {
		return nil, err
	}
	out, err := hex.DecodeString(h.Before)
	if err != nil {
		return nil, err
	}
	record := func(b []byte) { out = append(append(out, 22, 3, 1), vector(2, b)...) }
	if h.Empty == "before" {
		record(nil)
	}
	size := len(message)
	if h.Record > 0 {
		size = h.Record
	}
	for part := range slices.Chunk(message, size) {
		record(part)
		if h.Empty == "after" && len(part) < len(message) {
			record(nil)
		}
	}
	return out, nil
}

// message is the handshake message.
func (h *Hello) message() ([]byte, error) {
	session := cmp.Or(h.Session, strings.Repeat("5e", 32))
	ciphers := cmp.Or(h.Ciphers, "130113021303c02bc02f")
	body := append([]byte{3, 3}, make([]byte, 32)...)
	for _, field := range []struct {
		size int
		text string
	}{{1, session}, {2, ciphers}, {1, cmp.Or(h.Compressions, "00")}} {
		b, err := hex.DecodeString(strings.TrimPrefix(field.text, "none"))
		if err != nil {
			return nil, err
		}
		body = append(body, vector(field.size, b)...)
	}
	var extensions []byte
	for _, text := range h.Extensions {
		b, err := extension(text)
		if err != nil {
			return nil, err
		}
		extensions = append(extensions, b...)
	}
	const headers = 4 + 2 + 4 // of the message, of the list and of the extension
	if pad := h.Pad - len(body) - len(extensions) - headers; pad >= 0 {
		extensions = append(append(extensions, 0, 21), vector(2, make([]byte, pad))...)
	}
	if extensions != nil {
		body = append(body, vector(2, extensions)...)
	}
	return append([]byte{1}, vector(3, body)...), nil
}

// vector puts a length of so many bytes before the content.
func vector(size int, b []byte) []byte {
	out := make([]byte, size, size+len(b))
	for i := range size {
		out[i] = byte(len(b) >> (8 * (size - 1 - i)))
	}
	return append(out, b...)
}

func extension(text string) ([]byte, error) {
	words := strings.Fields(text)
	var kind uint64
	var body []byte
	switch words[0] {
	case "sni":
		for _, name := range words[1:] {
			b, err := serverName(name)
			if err != nil {
				return nil, err
			}
			body = append(body, b...)
		}
		body = vector(2, body)
	case "alpn":
		kind = 16
		for _, protocol := range words[1:] {
			body = append(body, vector(1, []byte(protocol))...)
		}
		body = vector(2, body)
	case "versions":
		kind, body = 43, []byte{4, 3, 4, 3, 3}
	case "groups":
		kind, body = 10, []byte{0, 2, 0, 29}
	case "signatures":
		kind, body = 13, []byte{0, 4, 4, 3, 8, 4}
	default:
		var err error
		if kind, err = strconv.ParseUint(words[0], 16, 16); err != nil {
			return nil, fmt.Errorf("extension %q: %w", text, err)
		}
		if body, err = hex.DecodeString(strings.Join(words[1:], "")); err != nil {
			return nil, fmt.Errorf("extension %q: %w", text, err)
		}
	}
	return append([]byte{byte(kind >> 8), byte(kind)}, vector(2, body)...), nil
}

// serverName is an entry of the list (RFC 6066 3). A name in quotes has escapes.
func serverName(name string) ([]byte, error) {
	kind := uint64(0)
	if before, after, ok := strings.Cut(name, ":"); ok && len(before) == 1 {
		var err error
		if kind, err = strconv.ParseUint(before, 10, 8); err != nil {
			return nil, err
		}
		name = after
	}
	if strings.HasPrefix(name, `"`) {
		var err error
		if name, err = strconv.Unquote(name); err != nil {
			return nil, fmt.Errorf("name %s: %w", name, err)
		}
	}
	return append([]byte{byte(kind)}, vector(2, []byte(sized(name)))...), nil
}

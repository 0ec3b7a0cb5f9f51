//go:build e2e

package differential

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Message is an HTTP/1 message as it was on the wire.
type Message struct {
	Start    string // request or status line
	Headers  []Header
	Body     string
	Trailers []Header
	Framing  string // none, length, chunked, close
	Broken   string // why the body ended early
	// Said is what the connection's beginning said, at the origin that listens to that.
	Said string
}

// Header is one field line.
type Header struct{ Name, Value string }

func (m *Message) get(name string) (string, bool) {
	for _, h := range m.Headers {
		if strings.EqualFold(h.Name, name) {
			return h.Value, true
		}
	}
	return "", false
}

// readHead reads a start line and header lines.
func readHead(r *bufio.Reader) (*Message, error) {
	line, err := readLine(r)
	if err != nil {
		return nil, err
	}
	m := &Message{Start: line, Framing: "none"}
	m.Headers, err = readFields(r)
	return m, err
}

func readLine(r *bufio.Reader) (string, error) {
	s, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	return strings.TrimRight(s, "\r\n"), nil
}

func readFields(r *bufio.Reader) (out []Header, err error) {
	for {
		line, err := readLine(r)
		if err != nil || line == "" {
			return out, err
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return out, fmt.Errorf("field line %q", line)
		}
		out = append(out, Header{name, strings.TrimSpace(value)})
	}
}

// readBody reads what the head says. untilClose is a response without framing.
func (m *Message) readBody(r *bufio.Reader, untilClose bool) {
	var err error
	if te, ok := m.get("transfer-encoding"); ok && strings.EqualFold(te, "chunked") {
		m.Framing = "chunked"
		err = m.readChunks(r)
	} else if cl, ok := m.get("content-length"); ok {
		m.Framing = "length"
		var size uint64
		if size, err = strconv.ParseUint(cl, 10, 31); err == nil {
			b := make([]byte, size)
			var n int
			n, err = io.ReadFull(r, b)
			m.Body = string(b[:n])
		}
	} else if untilClose {
		m.Framing = "close"
		var b []byte
		b, err = io.ReadAll(r)
		m.Body = string(b)
	}
	if err != nil {
		m.Broken = "cut off"
	}
}

func (m *Message) readChunks(r *bufio.Reader) error {
	for {
		line, err := readLine(r)
		if err != nil {
			return err
		}
		size, _, _ := strings.Cut(line, ";")
		n, err := strconv.ParseInt(strings.TrimSpace(size), 16, 32)
		if err != nil {
			return err
		}
		if n == 0 {
			m.Trailers, err = readFields(r)
			return err
		}
		b := make([]byte, n+2)
		if _, err := io.ReadFull(r, b); err != nil {
			return err
		}
		if string(b[n:]) != "\r\n" {
			return errors.New("a chunk does not end")
		}
		m.Body += string(b[:n])
	}
}

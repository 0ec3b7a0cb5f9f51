//go:build e2e

package differential

import (
	"io"
	"sync"
)

// tap keeps what came on a connection to an origin since the case began.
type tap struct {
	from io.Reader

	mu sync.Mutex
	b  []byte
}

// Read implements io.Reader.
func (t *tap) Read(p []byte) (int, error) {
	n, err := t.from.Read(p)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p[:n]...)
	return n, err
}

// take is what came so far; nothing of it is kept.
func (t *tap) take() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.b
	t.b = nil
	return string(b)
}

// tapped is a connection whose bytes are kept.
func (o *origins) tapped(c io.Reader) *tap {
	t := &tap{from: c}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.taps = append(o.taps, t)
	return t
}

// wires are the bytes of each connection since the case began, of those that had any.
func (o *origins) wires() (out []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, t := range o.taps {
		if b := t.take(); b != "" {
			out = append(out, b)
		}
	}
	return out
}

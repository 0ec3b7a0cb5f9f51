package stream

import (
	"crypto/x509"
	"sync"

	"github.com/hauberk-mesh/hauberk/sidecar/record"
)

// shaking is what a recordConn has while crypto/tls makes the handshake: what is read from the
// socket goes on to it record by record, so that it has none of those that come after.
type shaking struct {
	secrets record.Secrets
	// pooled is the memory of what was read and has not gone on, which is the prefix.
	pooled *[shakingSize]byte
	// issuer vouched for the peer's certificate, where certificates are kept.
	issuer *x509.Certificate
}

// shakingSize has room for what a peer mostly sends at once.
const shakingSize = 4 << 10

var shakingBuffers = sync.Pool{New: func() any { return new([shakingSize]byte) }}

// readShaking reads no further than to the end of a record.
func (c *recordConn) readShaking(p []byte) (int, error) {
	s := c.shaking
	if len(c.prefix) == 0 {
		if s.pooled == nil {
			s.pooled = shakingBuffers.Get().(*[shakingSize]byte)
		}
		var err error
		if c.prefix, err = c.receive(s.pooled[:]); err != nil {
			return 0, err
		}
	}
	n := copy(p[:min(len(p), c.missing())], c.prefix)
	c.prefix = c.prefix[n:]
	c.track(p[:n])
	return n, nil
}

// missing is what is to come of the header of the current record, or else of the record.
func (c *recordConn) missing() int {
	if c.header < 5 {
		return 5 - c.header
	}
	return c.need
}

// shaken ends it. What came with the handshake's last record is kept.
func (c *recordConn) shaken() {
	s := c.shaking
	c.shaking = nil
	if len(c.prefix) > 0 {
		c.prefix = append([]byte(nil), c.prefix...)
		c.leftover = true
	} else {
		c.prefix = nil
	}
	if s.pooled != nil {
		shakingBuffers.Put(s.pooled)
		s.pooled = nil
	}
}

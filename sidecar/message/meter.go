package message

import "sync/atomic"

// Meter counts what one side of an exchange puts on the wire and gets from it: bytes of the exchange
// alone, without what TLS adds. A nil Meter counts nothing. Safe for concurrent use.
type Meter struct {
	// WireSent and WireReceived are all bytes: heads, framing and bodies.
	WireSent, WireReceived atomic.Int64
	// HeaderSent and HeaderReceived are those of heads and trailers among them; of HTTP/1 without
	// first lines, and what is received without white space around values.
	HeaderSent, HeaderReceived atomic.Int64
	// PlainSent and PlainReceived are the same before HPACK: names and values alone.
	PlainSent, PlainReceived atomic.Int64
}

// Reset forgets all.
func (m *Meter) Reset() {
	for _, n := range m.all() {
		n.Store(0)
	}
}

func (m *Meter) all() [6]*atomic.Int64 {
	return [...]*atomic.Int64{&m.WireSent, &m.WireReceived, &m.HeaderSent, &m.HeaderReceived, &m.PlainSent, &m.PlainReceived}
}

// Sent counts bytes that go out.
func (m *Meter) Sent(n int) {
	if m != nil {
		m.WireSent.Add(int64(n))
	}
}

// Received counts bytes that came.
func (m *Meter) Received(n int) {
	if m != nil {
		m.WireReceived.Add(int64(n))
	}
}

// HeadSent counts header bytes that go out, which Sent counts too, and how many they are before HPACK.
func (m *Meter) HeadSent(n, plain int) {
	if m != nil {
		m.HeaderSent.Add(int64(n))
		m.PlainSent.Add(int64(plain))
	}
}

// HeadReceived counts header bytes that came.
func (m *Meter) HeadReceived(n, plain int) {
	if m != nil {
		m.HeaderReceived.Add(int64(n))
		m.PlainReceived.Add(int64(plain))
	}
}

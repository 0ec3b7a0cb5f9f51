package record

// Messages of the handshake protocol that may come after it (RFC 8446 4.6).
const (
	messageNewSessionTicket = 4
	messageKeyUpdate        = 24
)

// message is one that is being read, which may be divided between records.
type message struct {
	header [4]byte
	have   int
	// rest is how much of its body is to come.
	rest int
}

// begun: there is a part of it.
func (m *message) begun() bool { return m.have > 0 }

// maxTicket bounds a session ticket: of its fields the longest two have 2^16 bytes each.
const maxTicket = 1 << 17

// handshake reads messages: tickets are passed over, since no session is ever resumed.
func (c *Conn) handshake(content []byte) error {
	m := &c.in.post
	for ended := 0; len(content) > 0; {
		if m.have < len(m.header) {
			n := copy(m.header[m.have:], content)
			m.have += n
			content = content[n:]
			if m.have < len(m.header) {
				return nil
			}
			m.rest = int(m.header[1])<<16 | int(m.header[2])<<8 | int(m.header[3])
			if !c.expected(m.header[0], m.rest) {
				return c.refuse(alertUnexpectedMessage)
			}
		}
		n := min(m.rest, len(content))
		body := content[:n]
		content = content[n:]
		if m.rest -= n; m.rest > 0 {
			continue
		}
		kind := m.header[0]
		*m = message{}
		if kind == messageKeyUpdate {
			// Another key holds from the next record on: nothing may follow in this one
			// (RFC 8446 5.1).
			if len(content) > 0 {
				return c.refuse(alertUnexpectedMessage)
			}
			return c.updated(body[0])
		}
		if ended++; ended > 1 {
			c.in.idle++ // the record has counted for the first
		}
		if c.in.idle > maxIdle {
			return c.refuse(alertUnexpectedMessage)
		}
	}
	return nil
}

// expected tells whether a message may come here, with so long a body.
func (c *Conn) expected(kind byte, size int) bool {
	switch kind {
	case messageKeyUpdate:
		return size == 1
	case messageNewSessionTicket:
		return c.client && size > 0 && size <= maxTicket
	}
	return false
}

// updated goes on with the peer's next key, and owes it ours where it asks (RFC 8446 4.6.3).
func (c *Conn) updated(request byte) error {
	if request > 1 {
		return c.refuse(alertIllegalParameter)
	}
	if err := c.in.update(); err != nil {
		return c.refuse(alertInternalError)
	}
	if request == 1 {
		c.out.owed.Store(true)
	}
	return nil
}

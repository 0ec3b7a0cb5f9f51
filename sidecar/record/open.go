package record

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
)

// opener is the reading half.
type opener struct {
	protection
	// pooled is the memory of buf, nil where buf is a part of a record that waits for the rest.
	pooled *[readSize]byte
	// parked: the record has waited so. slow: more than once, and is completed where it is.
	parked, slow bool
	// buf[at:] was received and not opened yet.
	buf []byte
	at  int
	// plain is what is left of the last record, in memory of pooled.
	plain []byte
	// err is what ended it.
	err error
	// post is the message of the handshake protocol that is being read.
	post message
	// idle counts records and messages since the last with data.
	idle int
}

// maxIdle is how many records without data may follow one another: they cost the peer nothing.
const maxIdle = 16

// Read implements io.Reader, and returns what is left of one record, or of the next: p is
// the memory in which that is opened, where it is long enough. ErrWouldBlock and
// os.ErrDeadlineExceeded are not the end, any other error is.
func (c *Conn) Read(p []byte) (int, error) {
	in := &c.in
	for len(in.plain) == 0 {
		if in.err != nil {
			return 0, in.err
		}
		sealed, err := c.received()
		n := 0
		if err == nil {
			n, err = c.open(p, sealed)
		}
		if n > 0 || err != nil {
			in.release()
			return n, err
		}
	}
	n := copy(p, in.plain)
	in.plain = in.plain[n:]
	in.release()
	return n, nil
}

// received returns the next record that is whole, header and all.
func (c *Conn) received() ([]byte, error) {
	in := &c.in
	for {
		if have := in.buf[in.at:]; len(have) >= headerSize {
			size, alert := lengthOf(have)
			if alert != 0 {
				return nil, c.refuse(alert)
			}
			if len(have) >= headerSize+size {
				in.at += headerSize + size
				in.parked, in.slow = false, false
				return have[:headerSize+size], nil
			}
		}
		n, err := c.Transport.ReadLent((*lent)(in))
		if err != nil {
			(*lent)(in).DropBuffer()
			if err == ErrWouldBlock || errors.Is(err, os.ErrDeadlineExceeded) {
				return nil, err
			}
			if err == io.EOF && len(in.buf) > in.at {
				err = io.ErrUnexpectedEOF
			}
			in.err = err
			return nil, err
		}
		in.buf = in.buf[:len(in.buf)+n]
	}
}

// lengthOf is how long a record is that begins with a header. An alert, which is not 0, is what it is
// refused with: all records are of protected data here (RFC 8446 5.2).
func lengthOf(header []byte) (size int, alert byte) {
	size = int(header[3])<<8 | int(header[4])
	switch {
	case contentType(header[0]) != typeData:
		return 0, alertUnexpectedMessage
	case header[1] != 3 || header[2] != 3:
		return 0, alertProtocolVersion
	case size > maxCipher:
		return 0, alertRecordOverflow
	case size < 1+tagSize:
		return 0, alertBadRecordMAC
	}
	return size, 0
}

// open opens a record. Its data is in p, n bytes of it, or is what is left as plain.
func (c *Conn) open(p, sealed []byte) (n int, err error) {
	in := &c.in
	header, body := sealed[:headerSize], sealed[headerSize:]
	dst := p
	if len(p) < len(body)-tagSize {
		dst = body
	}
	inner, err := in.aead.Open(dst[:0], in.next(), body, header)
	if err != nil {
		return 0, c.refuse(alertBadRecordMAC)
	}
	if len(inner) > maxPlain+1 {
		return 0, c.refuse(alertRecordOverflow)
	}
	end := len(inner) - 1
	for end >= 0 && inner[end] == 0 {
		end-- // padding
	}
	if end < 0 {
		return 0, c.refuse(alertUnexpectedMessage)
	}
	content := inner[:end]
	if t := contentType(inner[end]); t != typeData || end == 0 || in.post.begun() {
		return 0, c.control(t, content)
	}
	in.idle = 0
	if len(p) < len(body)-tagSize {
		in.plain = content
		return 0, nil
	}
	return end, nil
}

// control is told of a record that has no data.
func (c *Conn) control(t contentType, content []byte) error {
	if c.in.idle++; c.in.idle > maxIdle {
		return c.refuse(alertUnexpectedMessage)
	}
	switch {
	case t == typeHandshake && len(content) > 0:
		return c.handshake(content)
	case c.in.post.begun():
		// A message of the handshake is not to be interrupted (RFC 8446 5.1).
		return c.refuse(alertUnexpectedMessage)
	case t == typeData:
		return nil
	case t == typeAlert && len(content) == 2:
		return c.alerted(content[1])
	}
	return c.refuse(alertUnexpectedMessage)
}

// alerted is told of the peer's alert. Its level says nothing (RFC 8446 6), and user_canceled is
// followed by the end, where a peer does not mean something else by it.
func (c *Conn) alerted(alert byte) error {
	switch alert {
	case alertCloseNotify:
		c.in.err = io.EOF
	case alertUserCanceled:
	default:
		c.in.err = &net.OpError{Op: "remote error", Err: tls.AlertError(alert)}
	}
	return c.in.err
}

// lent lends an opener's memory for what is received.
type lent opener

// TakeBuffer returns room for more behind what is there.
func (l *lent) TakeBuffer() []byte {
	switch {
	case l.pooled == nil && l.slow:
		l.grow()
	case l.pooled == nil:
		l.pooled = readBuffers.Get().(*[readSize]byte)
		l.front()
	case l.at > 0:
		l.front()
	}
	return l.buf[len(l.buf):cap(l.buf)]
}

// front moves what is there to the front of pooled: the rest of a record has room behind it.
func (l *lent) front() {
	l.buf, l.at = l.pooled[:copy(l.pooled[:], l.buf[l.at:])], 0
}

// grow makes room behind a part of a record: for three times what has come, up to the record's end.
func (l *lent) grow() {
	if len(l.buf) < cap(l.buf) {
		return
	}
	room := max(4*len(l.buf), 512)
	if len(l.buf) >= headerSize {
		size, _ := lengthOf(l.buf)
		room = min(room, headerSize+size)
	}
	l.buf = append(make([]byte, 0, room), l.buf...)
}

// DropBuffer is called before a wait. A part of a record is kept in memory of its own size.
func (l *lent) DropBuffer() {
	l.plain = nil // of which nothing is left
	rest := l.buf[l.at:]
	switch {
	case len(rest) == 0:
		l.buf, l.at = nil, 0
	case l.pooled != nil:
		l.buf, l.at = bytes.Clone(rest), 0
		l.parked, l.slow = true, l.parked
	}
	if l.pooled != nil {
		readBuffers.Put(l.pooled)
		l.pooled = nil
	}
}

// release gives the memory back when nothing is left in it, or nothing counts any more.
func (in *opener) release() {
	if in.err != nil {
		in.plain, in.at = nil, len(in.buf)
	}
	if len(in.plain) == 0 && in.at == len(in.buf) {
		(*lent)(in).DropBuffer()
	}
}

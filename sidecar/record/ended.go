package record

import "encoding/binary"

// Farewell is how long the record of an alert is that has no padding: a header, two bytes, the type
// of the content and the tag (RFC 8446 5.2, 6).
const Farewell = headerSize + 2 + 1 + tagSize

// Ended tells whether nothing more will be read: the peer has said that it sends no more, or something
// else has ended the reading, and all that came before it was read. ahead is what the connection below
// has to be read next, as much of it as Farewell; it is not kept, and may be changed. Nothing is read, and
// nobody is answered: it may be called beside writers, but not beside a reader.
func (c *Conn) Ended(ahead []byte) bool {
	in := &c.in
	switch {
	case len(in.plain) > 0:
		return false
	case in.err != nil:
		return true
	case in.post.begun():
		return false // no alert interrupts a message: whoever reads it refuses it
	}
	if rest := in.buf[in.at:]; len(rest) > 0 {
		ahead = append(append(make([]byte, 0, 2*Farewell), rest[:min(len(rest), Farewell)]...), ahead...)
	}
	if len(ahead) < Farewell {
		return false
	}
	header, body := ahead[:headerSize], ahead[headerSize:Farewell]
	if size, alert := lengthOf(header); alert != 0 || size != len(body) {
		return false
	}
	nonce := in.nonce // next would count it
	binary.BigEndian.PutUint64(nonce[nonceSize-8:], in.iv^in.sequence)
	inner, err := in.aead.Open(body[:0], nonce[:], body, header)
	return err == nil && contentType(inner[2]) == typeAlert && inner[1] == alertCloseNotify
}

package http1

import (
	"bytes"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// maxExtensionBytes bounds the chunk extensions of one body, which carry nothing
// for us and cost whoever reads them.
const maxExtensionBytes = 4 << 10

// BodyDecoder finds a body's bytes and its end. The zero value is a finished
// decoder; Start begins a body.
type BodyDecoder struct {
	// Underscores is what happens to trailers of such names. Start leaves it.
	Underscores Underscores

	framing Framing
	state   chunkState
	left    int64 // of the body, or of the current chunk
	refused error
	// What follows is for chunks.
	digits     int
	extensions int
	limits     Limits
	trailer    trailerParser
}

type chunkState uint8

const (
	chunkSize      chunkState = iota
	extensionName             // behind ";": a token must begin
	extensionRest             // of the name
	extensionValue            // behind "=": a token or a quoted string must begin
	extensionToken            // rest of a token as the value
	extensionQuote            // within a quoted string
	extensionSlash            // behind a backslash in it
	extensionEnd              // behind a quoted string
	chunkSizeLF
	chunkData
	chunkDataCR
	chunkDataLF
	chunkTrailer
	bodyDone
)

// Start begins a body.
func (d *BodyDecoder) Start(f Framing, length int64, l Limits) {
	d.framing, d.state, d.left, d.refused = f, chunkSize, length, nil
	switch f {
	case NoBody:
		d.state = bodyDone
	case Chunked:
		d.left = 0 // of a chunk that has not begun
		d.digits, d.extensions, d.limits = 0, 0, l
		d.trailer.reset()
	}
}

// Done tells whether the body has ended.
func (d *BodyDecoder) Done() bool { return d.state == bodyDone }

// Framing is what Start was given.
func (d *BodyDecoder) Framing() Framing { return d.framing }

// Left is what is missing of a body with a length.
func (d *BodyDecoder) Left() int64 { return d.left }

// Decode looks at buf, the input from where the last call stopped. data is a part
// of buf and n is how much was consumed; with neither, more input is needed. done
// is set with the body's last byte or after it. Trailer fields are put into
// trailers once they are complete; they must then fit into one buf. An error stays:
// looking again, where the state is in the middle of what was refused, must not find
// another meaning in the same bytes.
func (d *BodyDecoder) Decode(buf []byte, trailers *message.Fields) (data []byte, n int, done bool, err error) {
	switch d.framing {
	case Length:
		n = int(min(d.left, int64(len(buf))))
		d.left -= int64(n)
		if d.left == 0 {
			d.state = bodyDone
		}
		return buf[:n], n, d.left == 0, nil
	case UntilClose:
		return buf, len(buf), false, nil
	case NoBody:
		return nil, 0, true, nil
	}
	if d.refused != nil {
		return nil, 0, false, d.refused
	}
	for n < len(buf) && d.state != bodyDone {
		switch d.state {
		case chunkData:
			k := int(min(d.left, int64(len(buf)-n)))
			data = buf[n : n+k]
			n += k
			if d.left -= int64(k); d.left == 0 {
				d.state = chunkDataCR
				// Going on over the line end lets the common last chunk be seen
				// as the last together with its data.
				if k, ok := d.peekEnd(buf[n:], trailers); ok {
					return data, n + k, true, nil
				}
			}
			return data, n, false, nil
		case chunkTrailer:
			k, err := d.trailer.parse(buf[n:], d.limits, d.Underscores, trailers)
			if err != nil || k == 0 {
				d.refused = err
				return nil, n, false, err
			}
			n += k
			d.state = bodyDone
		default:
			if err := d.control(buf[n]); err != nil {
				d.refused = err
				return nil, n, false, err
			}
			n++
		}
	}
	return nil, n, d.state == bodyDone, nil
}

// peekEnd recognises the plainest end: CRLF, "0", CRLF, no trailers.
func (d *BodyDecoder) peekEnd(rest []byte, trailers *message.Fields) (int, bool) {
	const end = "\r\n0\r\n\r\n"
	if len(rest) >= len(end) && string(rest[:len(end)]) == end {
		d.state = bodyDone
		trailers.Reset()
		return len(end), true
	}
	return 0, false
}

// control takes one byte outside of chunk data (RFC 9112 7.1).
func (d *BodyDecoder) control(c byte) error {
	if d.state >= extensionName && d.state <= extensionEnd {
		return d.extension(c)
	}
	switch d.state {
	case chunkSize:
		switch {
		case class[c]&isHex != 0:
			if d.digits++; d.digits > 16 || d.left > (1<<63-1)>>4 {
				return ErrChunkSize
			}
			d.left = d.left<<4 | hexValue(c)
			return nil
		case d.digits == 0:
			return ErrChunkSize
		case c == ';':
			d.state = extensionName
			return nil
		case c == '\r':
			d.state = chunkSizeLF
			return nil
		}
		return ErrChunkSize
	case chunkSizeLF:
		if c != '\n' {
			return ErrLineEnd
		}
		if d.left == 0 {
			d.state = chunkTrailer
		} else {
			d.state = chunkData
		}
		d.digits = 0
		return nil
	case chunkDataCR:
		if c != '\r' {
			return ErrChunkEnd
		}
		d.state = chunkDataLF
		return nil
	case chunkDataLF:
		if c != '\n' {
			return ErrChunkEnd
		}
		d.state, d.left = chunkSize, 0
		return nil
	}
	return ErrChunkSize
}

// extension takes one byte of the chunk extensions: *( ";" name [ "=" value ] ) with a
// token for the name and a token or a quoted string for the value (RFC 9112 7.1.1),
// without the whitespace that nobody may generate.
func (d *BodyDecoder) extension(c byte) error {
	if d.extensions++; d.extensions > maxExtensionBytes {
		return ErrExtensionsTooLong
	}
	token := class[c]&isToken != 0
	begun := d.state == extensionRest || d.state == extensionToken || d.state == extensionEnd
	switch {
	case d.state == extensionQuote && c == '"':
		d.state = extensionEnd
	case d.state == extensionQuote && c == '\\':
		d.state = extensionSlash
	case (d.state == extensionQuote || d.state == extensionSlash) && class[c]&isValue != 0:
		d.state = extensionQuote
	case begun && c == '\r':
		d.state = chunkSizeLF
	case begun && c == ';':
		d.state = extensionName
	case d.state == extensionRest && c == '=':
		d.state = extensionValue
	case d.state == extensionValue && c == '"':
		d.state = extensionQuote
	case d.state == extensionValue && token:
		d.state = extensionToken
	case d.state == extensionName && token:
		d.state = extensionRest
	case (d.state == extensionRest || d.state == extensionToken) && token:
	default:
		return ErrChunkExtension
	}
	return nil
}

func hexValue(c byte) int64 {
	switch {
	case c <= '9':
		return int64(c - '0')
	case c <= 'F':
		return int64(c-'A') + 10
	}
	return int64(c-'a') + 10
}

// trailerParser reads the trailer section when all of it is there.
type trailerParser struct{ scan, line int }

func (p *trailerParser) reset() { *p = trailerParser{} }

func (p *trailerParser) parse(buf []byte, l Limits, u Underscores, f *message.Fields) (n int, err error) {
	limit := min(max(l.TrailerBytes, 2), l.HeadBytes)
	for {
		nl := bytes.IndexByte(buf[p.scan:], '\n')
		if nl < 0 {
			if cr := bytes.IndexByte(buf[p.line:], '\r'); cr >= 0 && p.line+cr != len(buf)-1 {
				return 0, ErrLineEnd
			}
			p.scan = len(buf)
			if len(buf) > limit {
				return 0, ErrTrailersTooLarge
			}
			return 0, nil
		}
		end := p.scan + nl
		if end >= limit {
			return 0, ErrTrailersTooLarge
		}
		if end == p.line || bytes.IndexByte(buf[p.line:end], '\r') != end-1-p.line {
			return 0, ErrLineEnd
		}
		empty := end-1 == p.line
		p.scan, p.line = end+1, end+1
		if empty {
			return end + 1, p.load(buf[:end+1], l, u, f)
		}
	}
}

// load parses the whole section in one go.
func (p *trailerParser) load(section []byte, l Limits, u Underscores, f *message.Fields) error {
	f.Reset()
	for off := 0; ; {
		end := off + bytes.IndexByte(section[off:], '\n') - 1
		line := section[off:end]
		if len(line) == 0 {
			break
		}
		if f.Slots() >= l.Fields {
			return ErrTooManyFields
		}
		id, nameLen, v, e, err := splitField(line, u)
		if err != nil {
			return err
		}
		switch use := trailerUse(id); {
		case nameLen == 0: // dropped
		case use == refuse:
			return ErrTrailer
		case use == forward:
			f.Note(id, off, nameLen, off+v, e-v, false)
		}
		off = end + 2
	}
	f.Load(section)
	return nil
}

type use uint8

const (
	forward use = iota
	drop
	refuse
)

// trailerUse: fields that frame or route are an attack; those that authenticate
// or describe the content come too late to mean anything (RFC 9110 6.5.1).
func trailerUse(id message.ID) use {
	switch id {
	case message.ContentLength, message.TransferEncoding, message.Host, message.Connection, message.Trailer,
		message.TE, message.Upgrade, message.KeepAlive, message.ProxyConnection, message.Expect, message.HTTP2Settings,
		message.Fake:
		return refuse
	case message.Authorization, message.ProxyAuthenticate, message.ProxyAuthorization, message.Cookie,
		message.SetCookie, message.ContentType, message.ContentEncoding, message.ContentRange, message.CacheControl,
		message.MaxForwards, message.Location, message.RetryAfter, message.Date, message.WWWAuthenticate,
		message.XForwardedFor, message.XForwardedProto, message.XForwardedHost, message.XForwardedClientCert,
		message.Forwarded, message.XRequestID, message.XEnvoyOther, message.XEnvoyInternal, message.XEnvoyAttemptCount,
		message.XEnvoyOriginalPath, message.XEnvoyExternalAddress, message.XEnvoyExpectedTimeout,
		message.XEnvoyUpstreamServiceTime, message.XEnvoyOverloaded:
		return drop
	}
	return forward
}

package http1

import (
	"bytes"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// Limits bound what a peer may send. Zero members mean the defaults.
type Limits struct {
	HeadBytes    int // start line and fields: 60 KB
	LineBytes    int // request target: 8 KB, or HeadBytes if that is less
	Fields       int // 100
	TrailerBytes int // 8 KB
}

// WithDefaults fills in what is zero.
func (l Limits) WithDefaults() Limits {
	set := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	set(&l.HeadBytes, 60<<10)
	set(&l.LineBytes, min(8<<10, l.HeadBytes))
	set(&l.Fields, 100)
	set(&l.TrailerBytes, min(8<<10, l.HeadBytes))
	return l
}

// Underscores is what happens to field names with an underscore, which many
// origins cannot tell from a hyphen.
type Underscores uint8

// Envoy's HeadersWithUnderscoresAction values.
const (
	AllowUnderscores Underscores = iota
	RejectUnderscores
	DropUnderscores
)

// Framing says where a body ends.
type Framing uint8

// The framings.
const (
	NoBody Framing = iota
	Length
	Chunked
	UntilClose
)

// headParser reads a start line and fields from a buffer that starts with the
// message and grows between calls. Nothing is looked at twice.
type headParser struct {
	limits      Limits
	underscores Underscores

	line    int // where the current line starts
	scan    int // up to where no line end was found
	started bool
	skipped bool // one empty line before the start line

	// What the fields said about framing.
	length                int64
	lengths, codings      int
	hosts, expects, conns int
	codingOff, codingEnd  int
	expectOff, expectEnd  int
}

func (p *headParser) reset() {
	limits, underscores := p.limits, p.underscores
	*p = headParser{}
	p.limits, p.underscores = limits, underscores
}

// next returns the next line without its end; ok is false when it is not there
// yet.
func (p *headParser) next(buf []byte, limit int, tooLong *Error) (line []byte, off int, ok bool, err error) {
	nl := bytes.IndexByte(buf[p.scan:], '\n')
	if nl < 0 {
		// Waiting on for the end of a line that is broken already would only
		// hide the error behind a timeout.
		if cr := bytes.IndexByte(buf[p.line:], '\r'); cr >= 0 && p.line+cr != len(buf)-1 {
			return nil, 0, false, ErrLineEnd
		}
		p.scan = len(buf)
		if len(buf) > limit {
			return nil, 0, false, tooLong
		}
		return nil, 0, false, nil
	}
	end := p.scan + nl
	if end >= limit {
		return nil, 0, false, tooLong
	}
	if end == p.line || buf[end-1] != '\r' {
		return nil, 0, false, ErrLineEnd
	}
	off = p.line
	line = buf[off : end-1]
	p.line, p.scan = end+1, end+1
	return line, off, true, nil
}

// fields reads field lines up to the empty line.
func (p *headParser) fields(buf []byte, f *message.Fields) (done bool, err error) {
	for {
		line, off, ok, err := p.next(buf, p.limits.HeadBytes, ErrHeadTooLarge)
		if !ok {
			return false, err
		}
		if len(line) == 0 {
			return true, nil
		}
		if f.Slots() >= p.limits.Fields {
			return false, ErrTooManyFields
		}
		if err := p.field(buf, line, off, f); err != nil {
			return false, bareCR(line, err)
		}
	}
}

// bareCR gives a line that holds a CR the same name whether it was refused for that
// when it was whole or while it was still arriving.
func bareCR(line []byte, err error) error {
	if bytes.IndexByte(line, '\r') >= 0 {
		return ErrLineEnd
	}
	return err
}

// framingFields say where the message ends or the connection goes.
var framingFields = message.Set(message.Host, message.ContentLength, message.TransferEncoding, message.Expect, message.Connection)

func (p *headParser) field(buf, line []byte, off int, f *message.Fields) error {
	id, nameLen, v, end, err := splitField(line, p.underscores)
	if err != nil {
		return err
	}
	if nameLen == 0 {
		return nil // dropped
	}
	f.Note(id, off, nameLen, off+v, end-v, v == nameLen+2 && line[v-1] == ' ' && end == len(line))
	if !framingFields.Has(id) {
		return nil
	}
	switch id {
	case message.Host:
		p.hosts++
	case message.ContentLength:
		if p.lengths++; p.lengths > 1 {
			return ErrLengthRepeated
		}
		n, ok := parseLength(line[v:end])
		if !ok {
			return ErrLength
		}
		p.length = n
	case message.TransferEncoding:
		p.codings++
		p.codingOff, p.codingEnd = off+v, off+end
	case message.Expect:
		p.expects++
		p.expectOff, p.expectEnd = off+v, off+end
	case message.Connection:
		p.conns++
	}
	return nil
}

// splitField cuts a field line. nameLen 0 with a nil error means that the field is
// to be dropped.
func splitField(line []byte, u Underscores) (id message.ID, nameLen, v, end int, err error) {
	nameLen = bytes.IndexByte(line, ':')
	if nameLen > 0 {
		id = message.IDOf(message.View(line[:nameLen]))
	}
	underscore := false
	if id == message.Other || id == message.XEnvoyOther || id == message.Fake {
		// Not one of the known names, which are valid.
		if nameLen <= 0 || !all(line[:nameLen], isToken) {
			if line[0] == ' ' || line[0] == '\t' {
				return 0, 0, 0, 0, ErrFold
			}
			return 0, 0, 0, 0, ErrFieldName
		}
		underscore = u != AllowUnderscores && bytes.IndexByte(line[:nameLen], '_') >= 0
	}
	value := line[nameLen+1:]
	s, e := trim(value)
	if !validValue(value[s:e]) {
		return 0, 0, 0, 0, ErrFieldValue
	}
	if underscore {
		if u == RejectUnderscores {
			return 0, 0, 0, 0, ErrUnderscore
		}
		return 0, 0, 0, 0, nil
	}
	return id, nameLen, nameLen + 1 + s, nameLen + 1 + e, nil
}

// coding judges the one Transfer-Encoding there may be: chunked, once, alone.
func (p *headParser) coding(buf []byte, http10 bool) error {
	switch {
	case http10:
		return ErrCodingHTTP10
	case p.lengths > 0:
		return ErrLengthAndCoding
	case p.codings > 1:
		return ErrCoding
	}
	v := buf[p.codingOff:p.codingEnd]
	if equalFold(v, "chunked") {
		return nil
	}
	return judgeCoding(v)
}

// judgeCoding tells a coding we do not speak from one that nobody should.
func judgeCoding(v []byte) error {
	known := 0
	var last []byte
	for part := range bytes.SplitSeq(v, []byte{','}) {
		s, e := trim(part)
		last = part[s:e]
		switch {
		case equalFold(last, "gzip"), equalFold(last, "x-gzip"), equalFold(last, "deflate"),
			equalFold(last, "compress"), equalFold(last, "x-compress"):
			known++
		case equalFold(last, "chunked"):
		default:
			return ErrCoding
		}
	}
	if known == 0 || !equalFold(last, "chunked") || bytes.Count(v, []byte{','}) != known {
		return ErrCoding
	}
	return ErrUnknownCoding
}

// hopByHop are the fields that end here (RFC 9110 7.6.1). Content-Length stays
// visible to filters; the serialiser frames by itself. What authenticates at a proxy is
// between the client and the first proxy that asks for it (RFC 9110 11.7), and we do not.
// Expect is a request's alone, which is judged and removed by itself.
var hopByHop = [...]message.ID{
	message.Connection, message.KeepAlive, message.ProxyConnection, message.TE,
	message.TransferEncoding, message.Upgrade, message.HTTP2Settings,
}

var hopByHopSet = message.Set(hopByHop[:]...)

// protected fields are never removed because Connection lists them: a client
// could otherwise strip what the mesh or the application relies on.
func protected(name string) bool {
	switch message.IDOf(name) {
	case message.Host, message.ContentLength, message.TransferEncoding, message.Authorization, message.Cookie,
		message.SetCookie, message.ContentType, message.ContentEncoding, message.Forwarded, message.XRequestID,
		message.XForwardedFor, message.XForwardedProto, message.XForwardedHost, message.XForwardedClientCert,
		message.Traceparent, message.Tracestate, message.B3, message.Via, message.Date, message.Server,
		message.CacheControl, message.Location, message.Origin, message.XEnvoyOther, message.XEnvoyInternal,
		message.XEnvoyOriginalPath, message.XEnvoyExternalAddress, message.XEnvoyAttemptCount,
		message.XEnvoyExpectedTimeout, message.XEnvoyUpstreamServiceTime, message.XEnvoyOverloaded:
		return true
	}
	return false
}

// connection is what the Connection fields and those it governs said.
type connection struct {
	close, keepAlive, upgrade bool

	forwarded bool // a field was named that tells of the client
	host      bool // Host was named
	named     int  // options
}

// strip reads the Connection options, then removes everything hop-by-hop. Each option may
// name a field, which costs a look at all of them: there may be as many options as fields.
func strip(f *message.Fields, l *Limits) (c connection, err error) {
	if f.Has(message.Connection) {
		for i := f.Find(message.Connection, 0); i >= 0; i = f.Find(message.Connection, i+1) {
			_, v, _ := f.At(i)
			if err := c.options(f, v, l.Fields); err != nil {
				return c, err
			}
		}
	}
	if f.Has(message.ProxyConnection) {
		v, _ := f.Joined("proxy-connection")
		c.close = c.close || hasToken(v, "close") // what peers of old say to proxies
	}
	if f.HasAny(hopByHopSet) {
		for _, id := range hopByHop {
			f.DelID(id)
		}
	}
	return c, nil
}

// options reads a comma-separated list of option names.
func (c *connection) options(f *message.Fields, v string, most int) error {
	for start := 0; start <= len(v); {
		end := start
		for end < len(v) && v[end] != ',' {
			end++
		}
		s, e := trim(v[start:end])
		name := v[start+s : start+e]
		start = end + 1
		if name == "" {
			continue // an empty element means nothing, RFC 9110 5.6.1.2
		}
		if c.named++; c.named > most {
			return ErrConnection
		}
		switch {
		case equalFold(name, "close"):
			c.close = true
		case equalFold(name, "keep-alive"):
			c.keepAlive = true
		case equalFold(name, "upgrade"):
			c.upgrade = true
		case !all(name, isToken):
			return ErrConnection
		case !protected(name):
			f.DelName(name)
		case equalFold(name, "x-forwarded-for"), equalFold(name, "x-forwarded-host"), equalFold(name, "x-forwarded-proto"):
			c.forwarded = true
		case equalFold(name, "host"):
			c.host = true
		}
	}
	return nil
}

package http1

import (
	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// ResponseParser reads response heads.
type ResponseParser struct {
	head   headParser
	http10 bool
	reason [2]int
	status int
}

// Configure sets limits; it is called once, before the first message.
func (p *ResponseParser) Configure(l Limits) { p.head.limits = l.WithDefaults() }

// Reset prepares for the next message.
func (p *ResponseParser) Reset() {
	p.head.reset()
	p.http10 = false
}

// Started tells whether a byte of the message has been seen.
func (p *ResponseParser) Started() bool { return p.head.scan > 0 }

// Parse reads the head of the response to a request with the given method, as
// RequestParser.Parse does. An interim response (1xx) has no body; the final one
// follows after Reset.
func (p *ResponseParser) Parse(buf []byte, method string, resp *message.Response) (n int, body Framing, err error) {
	h := &p.head
	if !h.started {
		line, off, ok, err := h.next(buf, h.limits.HeadBytes, ErrHeadTooLarge)
		if !ok {
			return 0, NoBody, err
		}
		if err := p.statusLine(line, off); err != nil {
			return 0, NoBody, bareCR(line, err)
		}
		h.started = true
	}
	done, err := h.fields(buf, &resp.Fields)
	if !done {
		return 0, NoBody, err
	}
	body, err = p.finish(buf, method, resp)
	if err != nil {
		return 0, NoBody, err
	}
	return h.line, body, nil
}

// statusLine reads HTTP-version SP status-code [ SP reason-phrase ]. The second
// SP is missing in the wild when there is no phrase, which is harmless.
func (p *ResponseParser) statusLine(line []byte, off int) error {
	if len(line) < 12 || string(line[:5]) != "HTTP/" || line[6] != '.' || line[8] != ' ' {
		return ErrStatusLine
	}
	if line[5] != '1' || line[7] != '0' && line[7] != '1' {
		return ErrVersion
	}
	p.http10 = line[7] == '0'
	code := line[9:12]
	if !all(code, isDigit) || code[0] < '1' || code[0] > '5' {
		return ErrStatusLine
	}
	p.status = int(code[0]-'0')*100 + int(code[1]-'0')*10 + int(code[2]-'0')
	p.reason = [2]int{}
	if len(line) == 12 {
		return nil
	}
	if line[12] != ' ' || !validValue(line[13:]) {
		return ErrStatusLine
	}
	p.reason = [2]int{off + 13, len(line) - 13}
	return nil
}

func (p *ResponseParser) finish(buf []byte, method string, resp *message.Response) (Framing, error) {
	h, f := &p.head, &resp.Fields
	f.Load(buf[:h.line])
	f.JoinSingles(message.ResponseSingles)
	resp.Status = p.status
	resp.Reason = f.Span(p.reason[0], p.reason[1])
	if p.http10 {
		resp.Version = message.HTTP10
	}
	body, err := p.framing(buf, method, resp)
	if err != nil {
		return NoBody, err
	}
	if !f.HasAny(hopByHopSet) {
		resp.Close = body == UntilClose || p.http10
		return body, nil
	}
	upgrade, _ := f.Joined("upgrade")
	c, err := strip(f, &h.limits)
	if err != nil {
		return NoBody, err
	}
	resp.Close = c.close || body == UntilClose || p.http10 && !c.keepAlive
	if p.status == 101 && c.upgrade { // one that Connection does not name is as none
		resp.Upgrade = upgrade
	}
	return body, nil
}

// framing decides where the body ends (RFC 9112 6.3).
func (p *ResponseParser) framing(buf []byte, method string, resp *message.Response) (Framing, error) {
	h := &p.head
	if h.codings > 0 {
		if err := h.coding(buf, p.http10); err != nil {
			return NoBody, err
		}
	}
	resp.ContentLength = message.UnknownLength
	if h.lengths > 0 {
		resp.ContentLength = h.length
	}
	if method == "CONNECT" && p.status >= 200 && p.status < 300 {
		// A tunnel begins after the head, and what announces a body is wrong
		// (RFC 9110 9.3.6); to ignore it would be to guess.
		if h.codings > 0 || h.length > 0 {
			return NoBody, ErrBodyForbidden
		}
		resp.ContentLength = message.UnknownLength
		return UntilClose, nil
	}
	switch {
	case p.status < 200 || p.status == 204:
		// These have no body, and a sender that announces one disagrees with
		// whoever reads on (RFC 9110 8.6, RFC 9112 6.1).
		if h.codings > 0 || h.length > 0 {
			return NoBody, ErrBodyForbidden
		}
		resp.ContentLength = 0
		return NoBody, nil
	case method == "HEAD" || p.status == 304:
		return NoBody, nil
	case h.codings > 0:
		return Chunked, nil
	case h.lengths > 0:
		if h.length == 0 {
			return NoBody, nil
		}
		return Length, nil
	}
	return UntilClose, nil
}

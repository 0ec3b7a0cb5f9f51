package route

import (
	"math/bits"
	"net/netip"
	"slices"
	"strconv"

	"github.com/cespare/xxhash/v2"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// Client is who asks, as matches and hash policies see it. A nil *Client is one of
// whom nothing is known.
type Client struct {
	// Info is the connection's; nil for none.
	Info *stream.Info
	// Addr is the client's address, which a trusted hop may have named.
	Addr netip.Addr
	// Remote and Local are the connection's own; a generated cookie is made of them.
	Remote, Local netip.AddrPort
}

// maxHashed bounds how many fields of a name a header policy looks at.
const maxHashed = 16

// Hash64 computes the request's hash by policies as Envoy does, with XXH64; false when none
// gave one. It sees the request before it is rewritten. Cookies that the response has to set are
// appended to made.
func Hash64(by []HashPolicy, req *message.Request, c *Client, made []*CookieHash) (hash uint64, ok bool, cookies []*CookieHash) {
	return hashBy(by, req, c, c != nil && c.Remote.IsValid(), made)
}

// HashOf is the hash without cookies that the response has to set. req is nil where bytes are all
// there is.
func HashOf(by []HashPolicy, req *message.Request, c *Client) (hash uint64, ok bool) {
	hash, ok, _ = hashBy(by, req, c, false, nil)
	return hash, ok
}

func hashBy(by []HashPolicy, req *message.Request, c *Client, generate bool, made []*CookieHash) (hash uint64, ok bool, cookies []*CookieHash) {
	for i := range by {
		p := &by[i]
		h, hit := p.hash(req, c)
		if !hit && generate && p.Cookie != nil && p.Cookie.TTL != nil {
			value := c.cookie()
			h, hit = xxhash.Sum64(value[:]), true
			made = append(made, p.Cookie)
		}
		if hit {
			// The rotation keeps two equal policies from cancelling each other out.
			hash, ok = bits.RotateLeft64(hash, 1)^h, true
		}
		if p.Terminal && ok {
			break
		}
	}
	return hash, ok, made
}

func (p *HashPolicy) hash(req *message.Request, c *Client) (uint64, bool) {
	switch {
	case req == nil && !p.SourceIP:
		return 0, false
	case p.Header != "":
		return p.header(req)
	case p.Query != "":
		_, query := cut(req.Path)
		v, ok := parameter(query, p.Query)
		return xxhash.Sum64String(v), ok
	case p.Cookie != nil:
		v, _ := Cookie(&req.Fields, p.Cookie.Name)
		return xxhash.Sum64String(v), v != ""
	case p.SourceIP && c != nil && c.Addr.IsValid():
		var b [48]byte
		return xxhash.Sum64(c.Addr.AppendTo(b[:0])), true
	}
	return 0, false
}

// header hashes the values of a name in sorted order, so that the order in which
// they came does not matter; the hash of one is the seed of the next.
func (p *HashPolicy) header(req *message.Request) (uint64, bool) {
	var values [maxHashed]string
	n := 0
	for n < maxHashed {
		v, ok := req.HeaderValue(p.Header, n)
		if !ok {
			break
		}
		if p.HeaderRewrite != nil {
			v = string(p.HeaderRewrite.Append(nil, v))
		}
		values[n] = v
		n++
	}
	if n > 1 {
		slices.Sort(values[:n])
	}
	var hash uint64
	for _, v := range values[:n] {
		hash = seededHash(hash, v)
	}
	return hash, n > 0
}

func seededHash(seed uint64, s string) uint64 {
	if seed == 0 {
		return xxhash.Sum64String(s)
	}
	var d xxhash.Digest
	d.ResetWithSeed(seed)
	_, _ = d.WriteString(s)
	return d.Sum64()
}

// cookie is the same for all requests of a connection, so that those that race
// before the first answer agree.
func (c *Client) cookie() [16]byte {
	var b [128]byte
	seed := c.Local.AppendTo(c.Remote.AppendTo(b[:0]))
	h := xxhash.Sum64(seed)
	var out [16]byte
	for i := range out {
		out[i] = "0123456789abcdef"[h>>(60-4*i)&15]
	}
	return out
}

// AppendSetCookie appends the Set-Cookie value of a generated cookie.
func (c *CookieHash) AppendSetCookie(dst []byte, client *Client) []byte {
	value := client.cookie()
	dst = append(append(dst, c.Name...), `="`...)
	dst = append(append(dst, value[:]...), '"')
	if s := int64(c.TTL.Seconds()); s > 0 {
		dst = strconv.AppendInt(append(dst, "; Max-Age="...), s, 10)
	}
	if c.Path != "" {
		dst = append(append(dst, "; Path="...), c.Path...)
	}
	for _, a := range c.Attributes {
		dst = append(append(dst, "; "...), a.Name...)
		if a.Value != "" {
			dst = append(append(dst, '='), a.Value...)
		}
	}
	return append(dst, "; HttpOnly"...)
}

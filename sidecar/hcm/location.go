package hcm

import (
	"strings"

	"github.com/hauberk-mesh/hauberk/sidecar/http1"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// location is where a redirect leads, as the client's own request would say it. Authority and
// target are the answer's memory; the scheme, which is kept as it is, is not.
type location struct {
	scheme, authority, target string
}

// parseLocation reads an absolute URI of http or https (RFC 9110 4.2). What could not be the
// target of a request is refused, and so is a user (RFC 9110 4.2.4).
func parseLocation(uri string) (l location, ok bool) {
	scheme, rest, _ := strings.Cut(uri, "://")
	switch {
	case message.EqualFold(scheme, "http"):
		l.scheme = "http"
	case message.EqualFold(scheme, "https"):
		l.scheme = "https"
	default:
		return l, false
	}
	rest, _, _ = strings.Cut(rest, "#") // a fragment is for the client
	end := strings.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	l.authority, l.target = rest[:end], rest[end:]
	if l.target == "" || l.target[0] == '?' {
		l.target = "/" + l.target // RFC 9110 4.2.3
	}
	return l, http1.ValidAuthority(l.authority) && http1.ValidTarget(l.target)
}

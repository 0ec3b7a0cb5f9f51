package hcm

import (
	"strings"

	"github.com/hauberk-mesh/hauberk/sidecar/http1"
)

// location is where a redirect leads, as the client's own request would say it.
type location struct {
	scheme, authority, target string
}

// parseLocation reads an absolute URI of http or https (RFC 9110 4.2). What could not be the
// target of a request is refused, and so is a user (RFC 9110 4.2.4).
func parseLocation(uri string) (l location, ok bool) {
	scheme, rest, _ := strings.Cut(uri, "://")
	if l.scheme = strings.ToLower(scheme); l.scheme != "http" && l.scheme != "https" {
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

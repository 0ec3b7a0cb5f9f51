package http1

import "github.com/hauberk-mesh/hauberk/sidecar/message"

// What HTTP/2 shares with HTTP/1, so that both agree on it.

// ValidAuthority checks uri-host [ ":" port ] (RFC 9110 7.2): no user, no empty host.
func ValidAuthority(a string) bool { return validHost(a) }

// HasPort tells whether an authority names a port.
func HasPort(a string) bool { _, port := splitHost(a); return port != "" }

// ValidMethod checks a method (RFC 9110 9.1).
func ValidMethod(m string) bool { return m != "" && all(m, isToken) }

// ValidTarget checks the bytes of a path with query in HTTP/1.
func ValidTarget(p string) bool { return p != "" && all(p, isTarget) }

// ValidPath checks the bytes of a path with query in HTTP/2, and of what is written to a host
// in either version. fragment tells that a fragment is all that is wrong.
func ValidPath(p string) (ok, fragment bool) {
	for i := 0; i < len(p); i++ {
		if class[p[i]]&isPath == 0 {
			if p[i] != '#' {
				return false, false
			}
			fragment = true
		}
	}
	return p != "" && !fragment, fragment
}

// ValidValue checks a field value's bytes (RFC 9110 5.5).
func ValidValue(v []byte) bool { return validValue(v) }

// ParseLength reads a Content-Length (RFC 9110 8.6).
func ParseLength(v []byte) (int64, bool) { return parseLength(v) }

// SameHost compares authorities without case.
func SameHost(a, b string) bool { return sameHost(a, b, "") }

// Offers tells whether a value of Upgrade lists a protocol, which is given in lower case.
func Offers(upgrade, protocol string) bool { return hasToken(upgrade, protocol) }

// KeepTrailer tells whether a trailer field may be passed on; attack is set for
// one that frames or routes (RFC 9110 6.5.1).
func KeepTrailer(id message.ID) (keep, attack bool) {
	u := trailerUse(id)
	return u == forward, u == refuse
}

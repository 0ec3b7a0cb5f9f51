package message

import (
	"encoding/binary"
	"unsafe"
)

// ID names a well-known field, so that looking one up compares a byte instead
// of a string. Ids are computed once, while a message is parsed.
type ID uint8

// The well-known fields.
const (
	Other ID = iota
	Host
	ContentLength
	TransferEncoding
	Connection
	KeepAlive
	ProxyConnection
	TE
	Trailer
	Upgrade
	HTTP2Settings
	Expect
	ProxyAuthenticate
	ProxyAuthorization
	Authorization
	Cookie
	SetCookie
	ContentType
	ContentEncoding
	Accept
	AcceptEncoding
	UserAgent
	Referer
	Origin
	Date
	Server
	Via
	Location
	CacheControl
	RetryAfter
	MaxForwards
	Forwarded
	XRequestID
	XForwardedFor
	XForwardedProto
	XForwardedHost
	XForwardedClientCert
	XEnvoyOriginalPath
	XEnvoyUpstreamServiceTime
	XEnvoyAttemptCount
	XEnvoyExpectedTimeout
	XEnvoyOverloaded
	XEnvoyExternalAddress
	XEnvoyInternal
	// XEnvoyOther is every other name that starts with "x-envoy-".
	XEnvoyOther
	Traceparent
	Tracestate
	B3
	GRPCStatus
	GRPCMessage
	GRPCTimeout
	ContentRange
	WWWAuthenticate
	// Fake stands for names that a sender may not use as fields at all
	// (":path" and other pseudo-header names).
	Fake

	numIDs
)

var idNames = [numIDs]string{
	Host:                      "host",
	ContentLength:             "content-length",
	TransferEncoding:          "transfer-encoding",
	Connection:                "connection",
	KeepAlive:                 "keep-alive",
	ProxyConnection:           "proxy-connection",
	TE:                        "te",
	Trailer:                   "trailer",
	Upgrade:                   "upgrade",
	HTTP2Settings:             "http2-settings",
	Expect:                    "expect",
	ProxyAuthenticate:         "proxy-authenticate",
	ProxyAuthorization:        "proxy-authorization",
	Authorization:             "authorization",
	Cookie:                    "cookie",
	SetCookie:                 "set-cookie",
	ContentType:               "content-type",
	ContentEncoding:           "content-encoding",
	Accept:                    "accept",
	AcceptEncoding:            "accept-encoding",
	UserAgent:                 "user-agent",
	Referer:                   "referer",
	Origin:                    "origin",
	Date:                      "date",
	Server:                    "server",
	Via:                       "via",
	Location:                  "location",
	CacheControl:              "cache-control",
	RetryAfter:                "retry-after",
	MaxForwards:               "max-forwards",
	Forwarded:                 "forwarded",
	XRequestID:                "x-request-id",
	XForwardedFor:             "x-forwarded-for",
	XForwardedProto:           "x-forwarded-proto",
	XForwardedHost:            "x-forwarded-host",
	XForwardedClientCert:      "x-forwarded-client-cert",
	XEnvoyOriginalPath:        "x-envoy-original-path",
	XEnvoyUpstreamServiceTime: "x-envoy-upstream-service-time",
	XEnvoyAttemptCount:        "x-envoy-attempt-count",
	XEnvoyExpectedTimeout:     "x-envoy-expected-rq-timeout-ms",
	XEnvoyOverloaded:          "x-envoy-overloaded",
	XEnvoyExternalAddress:     "x-envoy-external-address",
	XEnvoyInternal:            "x-envoy-internal",
	Traceparent:               "traceparent",
	Tracestate:                "tracestate",
	B3:                        "b3",
	GRPCStatus:                "grpc-status",
	GRPCMessage:               "grpc-message",
	GRPCTimeout:               "grpc-timeout",
	ContentRange:              "content-range",
	WWWAuthenticate:           "www-authenticate",
}

// String returns the lower-case name, empty for Other and the two classes.
func (id ID) String() string { return idNames[id] }

// idTable is a hash table without collisions over length, first, last and
// middle byte; the test of this file fails when a new name breaks that.
var idTable [512]ID

func init() {
	for id, name := range idNames {
		if name != "" {
			idTable[idHash(name)] = ID(id)
		}
	}
}

// The factors were found by search.
const hashN, hashFirst, hashMid = 1, 2, 18

// idHash sees letters without their case.
func idHash(name string) uint {
	n := uint(len(name))
	first, mid, last := uint(name[0]|0x20), uint(name[n/2]|0x20), uint(name[n-1]|0x20)
	return (n*hashN + first*hashFirst + mid*hashMid + last) & 511
}

// IDOf returns the id of a field name in any case; Other when it has none.
func IDOf(name string) ID {
	if name == "" {
		return Other
	}
	if id := idTable[idHash(name)]; id != Other && foldKnown(name, idNames[id]) {
		return id
	}
	if len(name) > 8 && name[1] == '-' && foldKnown(name[:8], "x-envoy-") {
		return XEnvoyOther
	}
	if name[0] == ':' {
		return Fake
	}
	return Other
}

// Name is a field's name as it is looked for, with what a look needs of it: who asks for
// one name of many messages makes it once.
type Name struct {
	lower string
	id    ID
}

// NameOf returns a lower-case name, or that of a pseudo-header.
func NameOf(lower string) Name { return Name{lower, IDOf(lower)} }

// String returns the name in lower case.
func (n Name) String() string { return n.lower }

// foldKnown is EqualFold for a name of the table, eight bytes at a time. Those names
// have letters, digits and hyphens only; of these the letters alone have the bit 0x40,
// and only where they stand may the case bit differ. So whatever is not a known name is
// told from one, also bytes that no field name may hold.
func foldKnown(name, known string) bool {
	n := len(known)
	if len(name) != n {
		return false
	}
	a, b := unsafe.Slice(unsafe.StringData(name), n), unsafe.Slice(unsafe.StringData(known), n)
	switch {
	case n >= 8:
		for i := 0; i+8 < n; i += 8 {
			if !fold8(binary.LittleEndian.Uint64(a[i:]), binary.LittleEndian.Uint64(b[i:])) {
				return false
			}
		}
		return fold8(binary.LittleEndian.Uint64(a[n-8:]), binary.LittleEndian.Uint64(b[n-8:]))
	case n >= 4:
		return fold8(uint64(binary.LittleEndian.Uint32(a)), uint64(binary.LittleEndian.Uint32(b))) &&
			fold8(uint64(binary.LittleEndian.Uint32(a[n-4:])), uint64(binary.LittleEndian.Uint32(b[n-4:])))
	}
	for i := range n {
		if !fold8(uint64(a[i]), uint64(b[i])) {
			return false
		}
	}
	return true
}

// fold8 tells whether eight bytes are those of a known name in any case.
func fold8(name, known uint64) bool {
	const caseBits = 0x2020202020202020
	return (name^known)&^(known>>1&caseBits) == 0
}

// EqualFold compares a field name in any case with a lower-case one.
func EqualFold(name, lower string) bool {
	if len(name) != len(lower) {
		return false
	}
	for i := 0; i < len(name); i++ {
		c := name[i]
		if c != lower[i] && (c < 'A' || c > 'Z' || c|0x20 != lower[i]) {
			return false
		}
	}
	return true
}

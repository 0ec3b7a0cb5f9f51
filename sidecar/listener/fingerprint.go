package listener

import (
	"cmp"
	"crypto/md5"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"

	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// note returns what is noted of the connection, to add to it.
func (a *arrival) note() *stream.Noted {
	if a.noted == nil {
		a.noted = new(stream.Noted)
	}
	return a.noted
}

// fingerprint notes what tells kinds of clients apart, where a log shows it. b begins with a
// ClientHello that was read without an error.
func (a *arrival) fingerprint(f *Filter, b []byte) {
	if !f.JA3 && !f.JA4 || telemetry.Wanted()&telemetry.WantFingerprints == 0 {
		return
	}
	o, ok := offerOf(b)
	if !ok {
		return
	}
	if f.JA3 {
		a.note().JA3 = stream.FingerprintOf(o.ja3())
	}
	if f.JA4 {
		a.note().JA4 = stream.FingerprintOf(o.ja4())
	}
}

// offer is what a client offers, in its order and without GREASE.
type offer struct {
	version             int // legacy_version
	ciphers, extensions []uint16
	named               bool // by server_name
	// The bodies of extensions; nil for one that is not there.
	groups, points, signatures, protocols, versions []byte
}

// The extensions that fingerprints look into or leave out.
const (
	extensionServerName          = 0
	extensionGroups              = 10
	extensionPointFormats        = 11
	extensionSignatureAlgorithms = 13
	extensionALPN                = 16
	extensionVersions            = 43
)

func offerOf(b []byte) (o offer, ok bool) {
	message, err := firstMessage(b)
	if err != nil {
		return o, false
	}
	r := reader{message}
	if o.version, ok = r.uint16(); !ok || !r.skip(32) {
		return o, false
	}
	_, ok1 := r.vector8()
	ciphers, ok2 := r.vector16()
	_, ok3 := r.vector8()
	if !ok1 || !ok2 || !ok3 {
		return o, false
	}
	o.ciphers = withoutGrease(numbers(ciphers))
	if len(r.b) == 0 {
		return o, true
	}
	extensions, ok := r.vector16()
	for r = (reader{extensions}); ok && len(r.b) > 0; {
		ok = o.extension(&r)
	}
	return o, ok
}

// extension adds the next one.
func (o *offer) extension(r *reader) bool {
	kind, ok := r.uint16()
	if !ok {
		return false
	}
	body, ok := r.vector16()
	switch kind {
	case extensionServerName:
		o.named = true
	case extensionGroups:
		o.groups = body
	case extensionPointFormats:
		o.points = body
	case extensionSignatureAlgorithms:
		o.signatures = body
	case extensionALPN:
		o.protocols = body
	case extensionVersions:
		o.versions = body
	}
	if !isGrease(uint16(kind)) {
		o.extensions = append(o.extensions, uint16(kind))
	}
	return ok
}

// numbers reads numbers of two bytes.
func numbers(b []byte) []uint16 {
	out := make([]uint16, 0, len(b)/2)
	for ; len(b) >= 2; b = b[2:] {
		out = append(out, binary.BigEndian.Uint16(b))
	}
	return out
}

// withoutGrease leaves out what clients send so that servers go on to ignore what they do not know
// (RFC 8701): it differs from connection to connection.
func withoutGrease(list []uint16) []uint16 {
	return slices.DeleteFunc(list, isGrease)
}

func isGrease(n uint16) bool { return n&0x0f0f == 0x0a0a && n>>8 == n&0xff }

// listed are the numbers of two bytes that an extension begins with, after their length.
func listed(body []byte) []uint16 { return numbers(body[min(2, len(body)):]) }

// ja3 is the MD5 of version, ciphers, extensions, groups and point formats. GREASE among the groups
// counts, as in Envoy.
func (o *offer) ja3() string {
	const digits = 6 // of a number, and what stands between two
	groups, points := listed(o.groups), o.points[min(1, len(o.points)):]
	text := make([]byte, 0, digits*(1+len(o.ciphers)+len(o.extensions)+len(groups)+len(points)))
	text = strconv.AppendInt(text, int64(o.version), 10)
	for _, l := range [][]uint16{o.ciphers, o.extensions, groups} {
		text = appendDecimal(append(text, ','), l)
	}
	text = appendDecimal(append(text, ','), points)
	sum := md5.Sum(text)
	return hex.EncodeToString(sum[:])
}

func appendDecimal[N byte | uint16](dst []byte, list []N) []byte {
	for i, n := range list {
		if i > 0 {
			dst = append(dst, '-')
		}
		dst = strconv.AppendInt(dst, int64(n), 10)
	}
	return dst
}

// appendHexadecimal writes numbers of four digits each.
func appendHexadecimal(dst []byte, list []uint16) []byte {
	for i, n := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = hex.AppendEncode(dst, []byte{byte(n >> 8), byte(n)})
	}
	return dst
}

// ja4 is how many of what there are, and truncated SHA-256 of what is offered, sorted.
func (o *offer) ja4() string {
	named := "i"
	if o.named {
		named = "d"
	}
	const digits = 5 // of a number, and what stands between two
	algorithms := listed(o.signatures)
	text := make([]byte, 0, digits*max(len(o.ciphers), len(o.extensions)+len(algorithms)))
	sorted := slices.Clone(o.ciphers)
	slices.Sort(sorted)
	ciphers := shortHash(appendHexadecimal(text, sorted))
	sorted = append(sorted[:0], o.extensions...)
	slices.Sort(sorted)
	sorted = slices.DeleteFunc(sorted, func(n uint16) bool { return n == extensionServerName || n == extensionALPN })
	text = appendHexadecimal(text, sorted)
	if len(algorithms) > 0 {
		text = appendHexadecimal(append(text, '_'), algorithms)
	}
	return fmt.Sprintf("t%s%s%02d%02d%s_%s_%s", o.newest(), named, min(len(o.ciphers), 99), min(len(o.extensions), 99), o.protocol(), ciphers, shortHash(text))
}

// shortHash is of nothing zeros.
func shortHash(text []byte) string {
	const shown = 12
	if len(text) == 0 {
		return "000000000000"
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:shown/2])
}

// newest is the highest version that is offered.
func (o *offer) newest() string {
	r := reader{o.versions}
	list, whole := r.vector8()
	if o.versions != nil && !whole {
		return "00"
	}
	version := 0
	for _, v := range withoutGrease(numbers(list)) {
		version = max(version, int(v))
	}
	switch cmp.Or(version, o.version) {
	case 0x0304:
		return "13"
	case 0x0303:
		return "12"
	case 0x0302:
		return "11"
	case 0x0301:
		return "10"
	}
	return "00"
}

// protocol is the first and the last character of the first application protocol; where one of them
// is no letter or digit, the first half of the one byte and the second of the other, in hexadecimal.
func (o *offer) protocol() string {
	r := reader{o.protocols}
	if !r.skip(2) {
		return "00"
	}
	name, ok := r.vector8()
	if !ok || len(name) == 0 {
		return "00"
	}
	first, last := name[0], name[len(name)-1]
	if !alphanumeric(first) || !alphanumeric(last) {
		return fmt.Sprintf("%x%x", first>>4, last&15)
	}
	return string([]byte{first, last})
}

func alphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
}

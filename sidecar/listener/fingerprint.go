package listener

import (
	"cmp"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// note returns what is noted of the connection, to add to it.
func (a *arrival) note() *stream.Noted {
	if a.noted == nil {
		a.noted = new(stream.Noted)
	}
	return a.noted
}

// fingerprint notes what tells kinds of clients apart. b begins with a ClientHello that was read
// without an error.
func (a *arrival) fingerprint(f *Filter, b []byte) {
	o, ok := offerOf(b)
	if !ok {
		return
	}
	if f.JA3 {
		a.note().JA3 = o.ja3()
	}
	if f.JA4 {
		a.note().JA4 = o.ja4()
	}
}

// offer is what a client offers, in its order.
type offer struct {
	version    int // legacy_version
	ciphers    []int
	extensions []int
	bodies     map[int][]byte // of extensions
}

func offerOf(b []byte) (offer, bool) {
	message, err := firstMessage(b)
	if err != nil {
		return offer{}, false
	}
	o, r := offer{bodies: map[int][]byte{}}, reader{message}
	version, ok := r.uint16()
	if !ok || !r.skip(32) {
		return offer{}, false
	}
	_, ok1 := r.vector8()
	ciphers, ok2 := r.vector16()
	_, ok3 := r.vector8()
	if !ok1 || !ok2 || !ok3 {
		return offer{}, false
	}
	o.version, o.ciphers = version, withoutGrease(numbers(ciphers))
	if len(r.b) == 0 {
		return o, true
	}
	extensions, ok := r.vector16()
	for r = (reader{extensions}); ok && len(r.b) > 0; {
		var kind int
		if kind, ok = r.uint16(); ok {
			o.bodies[kind], ok = r.vector16()
		}
		o.extensions = append(o.extensions, kind)
	}
	o.extensions = withoutGrease(o.extensions)
	return o, ok
}

// numbers reads numbers of two bytes.
func numbers(b []byte) (out []int) {
	for r := (reader{b}); ; {
		n, ok := r.uint16()
		if !ok {
			return out
		}
		out = append(out, n)
	}
}

// withoutGrease leaves out what clients send so that servers go on to ignore what they do not know
// (RFC 8701): it differs from connection to connection.
func withoutGrease(list []int) []int {
	return slices.DeleteFunc(list, isGrease)
}

func isGrease(n int) bool { return n&0x0f0f == 0x0a0a && n>>8 == n&0xff }

// The extensions that fingerprints look into or leave out.
const (
	extensionServerName          = 0
	extensionGroups              = 10
	extensionPointFormats        = 11
	extensionSignatureAlgorithms = 13
	extensionALPN                = 16
	extensionVersions            = 43
)

// list is the list of numbers of size bytes each that an extension begins with, after its length.
func (o *offer) list(extension, size int) (out []int) {
	r := reader{o.bodies[extension]}
	if !r.skip(size) {
		return nil
	}
	if size == 2 {
		return numbers(r.b)
	}
	for _, c := range r.b {
		out = append(out, int(c))
	}
	return out
}

// ja3 is the MD5 of version, ciphers, extensions, groups and point formats. GREASE among the groups
// counts, as in Envoy.
func (o *offer) ja3() string {
	text := []string{strconv.Itoa(o.version)}
	for _, l := range [][]int{o.ciphers, o.extensions, o.list(extensionGroups, 2), o.list(extensionPointFormats, 1)} {
		text = append(text, joined(l, "-", "%d"))
	}
	sum := md5.Sum([]byte(strings.Join(text, ",")))
	return hex.EncodeToString(sum[:])
}

func joined(list []int, between, format string) string {
	out := make([]string, len(list))
	for i, n := range list {
		out[i] = fmt.Sprintf(format, n)
	}
	return strings.Join(out, between)
}

// ja4 is how many of what there are, and truncated SHA-256 of what is offered, sorted.
func (o *offer) ja4() string {
	named := "i"
	if _, ok := o.bodies[extensionServerName]; ok {
		named = "d"
	}
	ciphers := slices.Sorted(slices.Values(o.ciphers))
	kinds := slices.DeleteFunc(slices.Sorted(slices.Values(o.extensions)), func(n int) bool { return n == extensionServerName || n == extensionALPN })
	offered := joined(kinds, ",", "%04x")
	if algorithms := o.list(extensionSignatureAlgorithms, 2); len(algorithms) > 0 {
		offered += "_" + joined(algorithms, ",", "%04x")
	}
	return fmt.Sprintf("t%s%s%02d%02d%s_%s_%s", o.newest(), named, min(len(o.ciphers), 99), min(len(o.extensions), 99), o.protocol(),
		shortHash(joined(ciphers, ",", "%04x")), shortHash(offered))
}

// shortHash is of nothing zeros.
func shortHash(text string) string {
	const shown = 12
	if text == "" {
		return strings.Repeat("0", shown)
	}
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])[:shown]
}

// newest is the highest version that is offered.
func (o *offer) newest() string {
	body, ok := o.bodies[extensionVersions]
	r := reader{body}
	list, whole := r.vector8()
	if ok && !whole {
		return "00"
	}
	version := 0
	for _, v := range withoutGrease(numbers(list)) {
		version = max(version, v)
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
	r := reader{o.bodies[extensionALPN]}
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

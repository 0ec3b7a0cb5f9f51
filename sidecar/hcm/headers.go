package hcm

import (
	"encoding/binary"
	"math/rand/v2"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// forwardClientCert treats x-forwarded-client-cert by Envoy's modes.
func (x *exchange) forwardClientCert() {
	f := &x.req.Fields
	if x.m.cfg.ForwardClientCert == AlwaysForwardOnly {
		return
	}
	if !x.d.Info.TLS || x.d.Info.PeerCertHash == "" {
		f.DelID(message.XForwardedClientCert)
		return
	}
	switch x.m.cfg.ForwardClientCert {
	case Sanitize:
		f.DelID(message.XForwardedClientCert)
	case AppendForward:
		if v, ok := f.Joined("x-forwarded-client-cert"); ok {
			b := append(append(append(x.scratch[:0], v...), ','), x.xfcc...)
			x.scratch = b
			f.SetBytes("x-forwarded-client-cert", b)
			return
		}
		f.AddID(message.XForwardedClientCert, x.xfcc)
	case SanitizeSet:
		f.SetID(message.XForwardedClientCert, x.xfcc)
	}
}

const hexDigits = "0123456789abcdef"

// appendUUID appends a random UUID (RFC 9562 version 4).
func appendUUID(dst []byte) []byte {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:8], rand.Uint64())
	binary.LittleEndian.PutUint64(b[8:], rand.Uint64())
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	for i, c := range b {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			dst = append(dst, '-')
		}
		dst = append(dst, hexDigits[c>>4], hexDigits[c&15])
	}
	return dst
}

package hcm

import (
	"strconv"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// answerGRPC turns a local reply into what a gRPC client understands: a head that
// is trailers too, with the status in its own terms.
func (x *exchange) answerGRPC(status int, body string) {
	x.status = 200
	x.resp.Status = 200
	x.resp.ContentLength = 0
	f := &x.resp.Fields
	f.SetID(message.ContentType, "application/grpc")
	x.scratch = strconv.AppendInt(x.scratch[:0], int64(status), 10)
	f.SetIDBytes(message.GRPCStatus, x.scratch)
	if body != "" {
		x.scratch = appendGRPCMessage(x.scratch[:0], body)
		f.SetIDBytes(message.GRPCMessage, x.scratch)
	}
}

// grpcStatus is what a status of HTTP means in gRPC, as its mapping document has it.
func grpcStatus(http int) int {
	switch http {
	case 400:
		return 13 // internal
	case 401:
		return 16 // unauthenticated
	case 403:
		return 7 // permission denied
	case 404:
		return 12 // unimplemented
	case 429, 502, 503, 504:
		return 14 // unavailable
	}
	return 2 // unknown
}

// appendGRPCMessage percent-encodes what a field value may not hold.
func appendGRPCMessage(dst []byte, text string) []byte {
	for i := range len(text) {
		if c := text[i]; c < 0x20 || c > 0x7e || c == '%' {
			dst = append(dst, '%', upperHex[c>>4], upperHex[c&15])
		} else {
			dst = append(dst, c)
		}
	}
	return dst
}

const upperHex = "0123456789ABCDEF"

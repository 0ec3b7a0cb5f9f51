package hcm

import (
	"strconv"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// speaksGRPC tells whether the client does, by the request as it came: it is asked first
// before anything may change the request, and remembers.
func (x *exchange) speaksGRPC() bool {
	if !x.heard {
		x.heard, x.grpc = true, route.IsGRPC(x.req)
	}
	return x.grpc
}

// answerGRPC turns a local reply into what a gRPC client understands: a head that
// is trailers too, with the status in its own terms.
func (x *exchange) answerGRPC(status int, body string) {
	x.status = 200
	x.resp.Status = 200
	x.resp.ContentLength = 0
	f := &x.resp.Fields
	f.SetID(message.ContentType, "application/grpc")
	if own, _ := f.ByID(message.GRPCStatus); own == "" { // else it is what the route says
		x.scratch = strconv.AppendInt(x.scratch[:0], int64(status), 10)
		f.SetIDBytes(message.GRPCStatus, x.scratch)
	}
	if body != "" && x.req.Method != "HEAD" {
		x.scratch = appendGRPCMessage(x.scratch[:0], body)
		f.SetIDBytes(message.GRPCMessage, x.scratch)
	}
}

const grpcDeadlineExceeded = 4

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

// judgedBy is the status that counts of the host's answer, and the one by which outlier detection
// judges it: both are that of gRPC, where the head of the answer to a gRPC request has one. Of one
// in the trailers they are not told.
func (a *attempt) judgedBy() (status int, judged cluster.Outcome) {
	if v, ok := a.resp.Fields.ByID(message.GRPCStatus); ok && v != "" && route.IsGRPC(a.x.req) {
		status = httpStatus(v)
		return status, cluster.Outcome(status)
	}
	return a.resp.Status, a.x.cluster.Config().HTTP.Judged(a.resp)
}

// httpStatus is what a status of gRPC means in HTTP (google.rpc.Code).
func httpStatus(grpc string) int {
	n, err := strconv.ParseUint(grpc, 10, 32) // "04" is 4, as in Envoy
	if err != nil {
		return 500
	}
	switch n {
	case 0:
		return 200
	case 1: // cancelled
		return 499
	case 3, 9, 11: // invalid argument, failed precondition, out of range
		return 400
	case 4: // deadline exceeded
		return 504
	case 5: // not found
		return 404
	case 6, 10: // already exists, aborted
		return 409
	case 7: // permission denied
		return 403
	case 8: // resource exhausted
		return 429
	case 12: // unimplemented
		return 501
	case 14: // unavailable
		return 503
	case 16: // unauthenticated
		return 401
	}
	return 500 // unknown, internal, data loss, and what is no status
}

// appendGRPCMessage percent-encodes what a field value may not hold, nor begin or end with.
func appendGRPCMessage(dst []byte, text string) []byte {
	for i := range len(text) {
		if c := text[i]; c < 0x20 || c > 0x7e || c == '%' || c == ' ' && (i == 0 || i == len(text)-1) {
			dst = append(dst, '%', upperHex[c>>4], upperHex[c&15])
		} else {
			dst = append(dst, c)
		}
	}
	return dst
}

const upperHex = "0123456789ABCDEF"

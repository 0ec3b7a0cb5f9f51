package hcm

import (
	"strconv"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// countForward takes this forward off Max-Forwards, which a request has. Where none is left it
// answers as the last recipient and is false (RFC 9110 7.6.2). TRACE is not one of the methods
// that it serves: an echo would show what is not for whoever can have a client send one. What
// is not one number stays as it is.
func (x *exchange) countForward() bool {
	if m := x.req.Method; m != "OPTIONS" && m != "TRACE" {
		return true // others may have it and mean nothing by it
	}
	f := &x.req.Fields
	i := f.Find(message.MaxForwards, 0)
	if i < 0 || f.Find(message.MaxForwards, i+1) >= 0 {
		return true
	}
	_, value, _ := f.At(i)
	left, err := strconv.ParseUint(value, 10, 63)
	switch {
	case err != nil:
		return true
	case left > 0:
		x.scratch = strconv.AppendUint(x.scratch[:0], left-1, 10)
		f.SetAt(i, message.View(x.scratch))
		return true
	case x.req.Method == "TRACE":
		x.answer(501, "max_forwards")
	default:
		x.answer(200, "max_forwards")
	}
	return false
}

package http2

import (
	"unsafe"

	"github.com/hauberk-mesh/hauberk/sidecar/http1"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// Whatever a filter did to a message, nothing invalid is written. It is judged before
// the encoder's table could be changed.

func writableRequest(r *message.Request) bool {
	if !http1.ValidMethod(r.Method) || !http1.ValidAuthority(r.Authority) {
		return false
	}
	if r.Upgrade != "" {
		// An extended CONNECT takes the place of any method but of one that has no path.
		if r.Method == "CONNECT" || !http1.ValidMethod(r.Upgrade) {
			return false
		}
	} else if r.Method == "CONNECT" {
		return writableFields(&r.Fields)
	}
	valid, _ := http1.ValidPath(r.Path)
	return valid && writableFields(&r.Fields)
}

func writableResponse(r *message.Response) bool {
	return r.Status >= 100 && r.Status <= 599 && writableFields(&r.Fields)
}

func writableFields(f *message.Fields) bool {
	for i := range f.Slots() {
		if f.Checked(i) {
			continue
		}
		name, value, ok := f.At(i)
		if !ok || notSent.has(f.IDAt(i)) {
			continue
		}
		if !http1.ValidMethod(name) { // a token too
			return false
		}
		if n := len(value); n > 0 && (!http1.ValidValue(bytesOf(value)) || blank(value[0]) || blank(value[n-1])) {
			return false
		}
	}
	return true
}

func blank(c byte) bool { return c == ' ' || c == '\t' }

// bytesOf looks at a string as bytes that must not be changed.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

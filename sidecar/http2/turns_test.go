package http2

import (
	"io"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/fair/fairtest"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// ample is a client that always has more to say, until the bystander has run.
type ample struct {
	stream.Stream
	others *fairtest.Bystander
	said   []byte // what is left of its first words
}

func (a *ample) Read(p []byte) (int, error) {
	if len(a.said) > 0 {
		n := copy(p, a.said)
		a.said = a.said[n:]
		return n, nil
	}
	if !a.others.Worked() {
		return 0, io.EOF
	}
	n := 0
	for ; n+frameHeaderLen <= len(p); n += frameHeaderLen {
		appendFrameHeader(p[:n], 0, 0x7f, 0, 0) // of a type that nobody knows
	}
	return n, nil
}

// TestReaderTakesTurns: a client that never pauses does not keep who waits for the network
// from the processor.
func TestReaderTakesTurns(t *testing.T) {
	n := fairtest.Waited(t, func(others *fairtest.Bystander) {
		near, _ := sockets(t)
		words := appendFrameHeader([]byte(clientPreface), 0, frameSettings, 0, 0)
		_ = NewServer(&ample{near, others, words}, nil, handlerFunc(ok)).Serve(t.Context())
	})
	if n > 70 { // of 32 KB
		t.Errorf("%d reads before another ran", n)
	}
}

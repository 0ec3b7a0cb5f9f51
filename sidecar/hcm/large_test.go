package hcm

import (
	"bytes"
	"io"
	"net/http/httputil"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/http1"
)

// inPlace is a stream that counts what is written of piece from where that lies.
type inPlace struct {
	written
	piece []byte
	n     int
}

func (s *inPlace) Write(p []byte) (int, error) {
	if &p[0] == &s.piece[0] {
		s.n += len(p)
	}
	return s.written.Write(p)
}

// TestLargeChunks: the pieces of a body in chunks that a host of HTTP/2 sends faster than the
// client takes them are as large as a bulk block. Copied, each would need that much memory
// once more.
func TestLargeChunks(t *testing.T) {
	piece := bytes.Repeat([]byte("0123456789abcdef"), 16<<10)
	out := &inPlace{piece: piece}
	x, _ := countedClient()
	x.h1.c.d = downstream.New(downstream.Facts{Stream: out}, nil)
	x.h1.respFraming = http1.Chunked
	const times = 4
	for i := range times {
		if err := x.h1.data(x, piece, i == times-1, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := x.h1.flush(x); err != nil {
		t.Fatal(err)
	}
	if want := (times - 1) * len(piece); out.n != want { // the last waits until the host was left
		t.Errorf("%d bytes were not copied, want %d", out.n, want)
	}
	got, err := io.ReadAll(httputil.NewChunkedReader(&out.out))
	if err != nil || !bytes.Equal(got, bytes.Repeat(piece, times)) {
		t.Errorf("%d bytes arrive, %v", len(got), err)
	}
}

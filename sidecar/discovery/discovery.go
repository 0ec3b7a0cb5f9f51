// Package discovery says where discovered resources come from, for who names one.
package discovery

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sync"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/tlscontext"
)

// Source is where a resource comes from; the zero value is the aggregated stream, or the file
// that its name has in it.
type Source struct {
	// Stream is a service of this one type, nil for none.
	Stream *Stream `json:",omitempty"`
	// Wait bounds how long the first of it is waited for, 0 for ever; nil is as long as the
	// sidecar waits for anything.
	Wait *time.Duration `json:",omitempty"`
}

// Stream is a gRPC service that sends resources.
type Stream struct {
	// Cluster is the name of the static cluster that has it.
	Cluster string
	// Delta selects the incremental protocol.
	Delta bool
	// Metadata goes with each stream.
	Metadata []Metadata `json:",omitempty"`
}

// Metadata is a field of a gRPC call's metadata.
type Metadata struct {
	Key   string
	Value tlscontext.Secret
}

// Key tells one stream from another, and shows nothing of its metadata. It is of this process:
// its names are seen in dumps, logs and by other servers, where a plain hash would let a short
// token be guessed.
func (s *Stream) Key() string {
	if len(s.Metadata) == 0 {
		return s.service()
	}
	h := hmac.New(sha256.New, process())
	for _, f := range s.Metadata {
		fmt.Fprintf(h, "%q %q\n", f.Key, string(f.Value))
	}
	return s.service() + "/" + hex.EncodeToString(h.Sum(nil)[:8])
}

var process = sync.OnceValue(func() []byte {
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key)
	return key
})

// Kept names what is kept of the stream from one process to the next, where the values of its
// metadata may differ: tokens are rotated.
func (s *Stream) Kept() string {
	out := s.service()
	for _, f := range s.Metadata {
		out += fmt.Sprintf("/%q", f.Key)
	}
	return out
}

func (s *Stream) service() string {
	if s.Delta {
		return s.Cluster + "/delta"
	}
	return s.Cluster + "/sotw"
}

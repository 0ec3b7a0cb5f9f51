// Package discovery says where discovered resources come from, for who names one.
package discovery

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
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

// Key tells one stream from another, and shows nothing of its metadata.
func (s *Stream) Key() string {
	protocol := "sotw"
	if s.Delta {
		protocol = "delta"
	}
	key := s.Cluster + "/" + protocol
	if len(s.Metadata) == 0 {
		return key
	}
	h := sha256.New()
	for _, f := range s.Metadata {
		fmt.Fprintf(h, "%q %q\n", f.Key, string(f.Value))
	}
	return key + "/" + hex.EncodeToString(h.Sum(nil)[:8])
}

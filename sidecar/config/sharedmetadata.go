package config

import (
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"

	"github.com/hauberk-mesh/hauberk/xds/names"
)

// sharedMetadata has the metadata of the endpoints of one resource, of which there is one copy of
// those that are equal: control planes say the same of thousands, and nobody changes what was read.
// It knows them by how they are encoded, which costs less than to compare them, or to read them again.
type sharedMetadata struct {
	whole   map[digest]map[string]map[string]any
	parts   map[digest]map[string]any // of one namespace each
	encoded []byte
}

type digest [sha256.Size]byte

func (s *sharedMetadata) of(m *corev3.Metadata) map[string]map[string]any {
	var namespaces []string
	for _, namespace := range slices.Sorted(maps.Keys(m.GetFilterMetadata())) {
		if namespace != names.MetadataNamespace {
			namespaces = append(namespaces, namespace)
		}
	}
	if len(namespaces) == 0 {
		return nil
	}
	if s.whole == nil {
		s.whole, s.parts = map[digest]map[string]map[string]any{}, map[digest]map[string]any{}
	}
	var said []byte
	known := make([]digest, len(namespaces))
	for i, namespace := range namespaces {
		var err error
		if s.encoded, err = (proto.MarshalOptions{Deterministic: true}).MarshalAppend(s.encoded[:0], m.GetFilterMetadata()[namespace]); err != nil {
			return metadataOf(m) // of what is no text there is no encoding
		}
		known[i] = sha256.Sum256(s.encoded)
		said = append(binary.BigEndian.AppendUint64(said, uint64(len(namespace))), namespace...)
		said = append(said, known[i][:]...)
	}
	all := digest(sha256.Sum256(said))
	if out := s.whole[all]; out != nil {
		return out
	}
	out := make(map[string]map[string]any, len(namespaces))
	for i, namespace := range namespaces {
		if s.parts[known[i]] == nil {
			s.parts[known[i]] = m.GetFilterMetadata()[namespace].AsMap()
		}
		out[namespace] = s.parts[known[i]]
	}
	s.whole[all] = out
	return out
}

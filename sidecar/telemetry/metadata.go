package telemetry

import (
	"slices"
	"strings"

	"github.com/hauberk-mesh/hauberk/xds/logformat"
)

// The namespaces of metadata that something writes, by Envoy's names.
const (
	// MetadataRBAC is what the RBAC filters of HTTP found: texts.
	MetadataRBAC = logformat.MetadataRBAC
	// MetadataCommon has LogHint alone, a truth value.
	MetadataCommon = "envoy.common"
	LogHint        = "access_log_hint"
)

// Metadata is what filters said of a request, which Envoy calls dynamic metadata. A nil Metadata
// holds nothing.
type Metadata struct{ values []metadatum }

type metadatum struct{ namespace, prefix, key, value string }

// Set replaces the value of a key, which begins with a prefix. What another filter said under
// other keys stays.
func (m *Metadata) Set(namespace, prefix, key, value string) {
	v := metadatum{namespace, prefix, key, value}
	for i := range m.values {
		if old := &m.values[i]; old.namespace == namespace && old.prefix == prefix && old.key == key {
			*old = v
			return
		}
	}
	m.values = append(m.values, v)
}

// SetFlag is Set of a truth value.
func (m *Metadata) SetFlag(namespace, key string, value bool) {
	text := "false"
	if value {
		text = "true"
	}
	m.Set(namespace, "", key, text)
}

// Get finds a value; a truth value is true or false.
func (m *Metadata) Get(namespace, key string) (value string, ok bool) {
	if m == nil {
		return "", false
	}
	i := slices.IndexFunc(m.values, func(v metadatum) bool {
		rest, ok := strings.CutPrefix(key, v.prefix)
		return ok && v.namespace == namespace && v.key == rest
	})
	if i < 0 {
		return "", false
	}
	return m.values[i].value, true
}

// ShowMetadata has all that fill records keep metadata from now on.
func ShowMetadata() { want(WantMetadata) }

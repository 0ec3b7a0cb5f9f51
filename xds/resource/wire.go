package resource

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/anypb"
)

// PartialSuffix ends a delta response's system_version_info when more upserts of
// the type follow, so that our client knows when it has everything. The field is
// for debugging and other clients ignore it.
const PartialSuffix = ";partial"

// Version hashes canonical bytes as New does.
func Version(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:8])
}

// Received returns a resource as it came over the wire, its bytes unread. An
// empty version (state of the world sends none) is replaced by the hash.
func Received(name, version string, body *anypb.Any) *Resource {
	if version == "" {
		version = Version(body.GetValue())
	}
	return &Resource{Type: body.GetTypeUrl(), Name: name, Version: version, Body: body}
}

// NameOf reads the name out of a body. State of the world sends resources
// without their names; in each type the mesh uses, the name (an assignment's
// cluster_name) is field 1.
func NameOf(body *anypb.Any) (string, error) {
	switch body.GetTypeUrl() {
	case ClusterType, EndpointType, ListenerType, RouteType, SecretType:
	default:
		return "", fmt.Errorf("resource of type %q: not a type the mesh uses", body.GetTypeUrl())
	}
	name := ""
	for b := body.GetValue(); len(b) > 0; {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return "", fmt.Errorf("resource of type %q: %w", body.GetTypeUrl(), protowire.ParseError(n))
		}
		b = b[n:]
		if num == 1 && typ == protowire.BytesType {
			v, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return "", fmt.Errorf("resource of type %q: %w", body.GetTypeUrl(), protowire.ParseError(n))
			}
			name, b = string(v), b[n:]
			continue
		}
		if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
			return "", fmt.Errorf("resource of type %q: %w", body.GetTypeUrl(), protowire.ParseError(n))
		}
		b = b[n:]
	}
	if name == "" {
		return "", fmt.Errorf("resource of type %q has no name", body.GetTypeUrl())
	}
	return name, nil
}

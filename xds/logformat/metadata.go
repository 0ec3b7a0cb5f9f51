package logformat

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hauberk-mesh/hauberk/xds/names"
)

// The types of metadata, as METADATA names them.
const (
	MetadataDynamic = "DYNAMIC"
	MetadataCluster = "CLUSTER"
	MetadataHost    = "UPSTREAM_HOST"
	MetadataRoute   = "ROUTE"
)

// MetadataTypes are those that METADATA takes: what filters said of a request, and what is written
// into the configuration of what served it.
var MetadataTypes = []string{MetadataDynamic, MetadataCluster, MetadataRoute, MetadataHost, "LISTENER", "LISTENER_FILTER_CHAIN", "VIRTUAL_HOST"}

// MetadataPath is where a Metadata operator finds its value. Without Keys that is the whole namespace.
type MetadataPath struct {
	Type, Namespace string
	Keys            []string
}

// MetadataOf reads the argument of a Metadata operator.
func MetadataOf(name, argument string) (MetadataPath, error) {
	words := strings.Split(argument, ":")
	p := MetadataPath{}
	switch name {
	case "DYNAMIC_METADATA":
		p.Type = MetadataDynamic
	case "CLUSTER_METADATA":
		p.Type = MetadataCluster
	case "UPSTREAM_METADATA":
		p.Type = MetadataHost
		if strings.HasPrefix(argument, "[") {
			return p, olderForm(argument)
		}
	default:
		if !slices.Contains(MetadataTypes, words[0]) {
			return p, fmt.Errorf("%q is none of %s", words[0], strings.Join(MetadataTypes, ", "))
		}
		p.Type, words = words[0], words[1:]
	}
	if len(words) == 0 || slices.Contains(words, "") {
		return p, errors.New("a namespace or key is empty: no value is there")
	}
	p.Namespace, p.Keys = words[0], words[1:]
	if p.Namespace == names.MetadataNamespace {
		return p, fmt.Errorf("%q is the mesh's own, and not shown", p.Namespace)
	}
	if p.Type == MetadataDynamic && (!ShowsMetadata(p.Namespace, true) || len(p.Keys) != 1) {
		return p, errors.New("only " + MetadataRBAC + ":KEY has values, which are texts, and of connections " + MetadataProxy + ":KEY and namespaces that rules of the PROXY protocol name")
	}
	return p, nil
}

// olderForm is why a list of a namespace and keys is refused, which is how Envoy's headers once wrote
// them: in the form that there is now it would name a namespace that nothing has.
func olderForm(list string) error {
	var words []string
	if json.Unmarshal([]byte(list), &words) != nil || len(words) == 0 {
		return fmt.Errorf("%q is a list; write NAMESPACE:KEY", list)
	}
	return fmt.Errorf("%s is a list, which is Envoy's older form; write %s", list, strings.Join(words, ":"))
}

// ofRequest refuses metadata that connections alone have.
func (p *Piece) ofRequest() error {
	if Operators[p.Name].Kind != Metadata {
		return nil
	}
	at, err := MetadataOf(p.Name, p.Argument)
	if err == nil && at.Type == MetadataDynamic && !ShowsMetadata(at.Namespace, false) {
		err = errors.New("only " + MetadataRBAC + ":KEY has values here; what rules of the PROXY protocol write is of connections, for the logs of listeners and TCP proxies")
	}
	return err
}

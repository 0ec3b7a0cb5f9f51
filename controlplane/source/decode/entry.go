package decode

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
)

// Entry decodes a config entry. The key is valid as far as kind and name could
// be read, also when there is an error.
func Entry(n *Node, mode Mode) (api.ConfigEntry, catalog.EntryKey, error) {
	var key catalog.EntryKey
	o, ok := n.Value.(*Object)
	if !ok {
		return nil, key, Errors{{n.Line, "", "want a config entry, have " + n.describe()}}
	}
	kindNode, _ := o.Get("Kind")
	if kindNode == nil {
		return nil, key, Errors{{n.Line, "Kind", "must be set"}}
	}
	kind, ok := kindNode.Value.(string)
	if !ok {
		return nil, key, Errors{{kindNode.Line, "Kind", "want a string, have " + kindNode.describe()}}
	}
	name := ""
	if nameNode, _ := o.Get("Name"); nameNode != nil {
		name, _ = nameNode.Value.(string)
	}
	key = entryKey(kind, name)
	if !slices.Contains(catalog.Kinds, kind) {
		return nil, key, Errors{{kindNode.Line, "Kind", unknownKind(kind)}}
	}
	e, err := api.MakeConfigEntry(kind, name)
	if err != nil {
		return nil, key, Errors{{kindNode.Line, "Kind", err.Error()}}
	}
	if mode == Server {
		// A digest of the entry, for the server's replication.
		o = o.Without("Hash")
	}
	if kind == api.MeshConfig {
		// The struct has neither: there is one mesh entry.
		if name != "" && name != api.MeshConfigMesh {
			return nil, key, Errors{{n.Line, "Name", fmt.Sprintf("%q: the one mesh entry needs no name", name)}}
		}
		o = o.Without("Kind", "Name")
	}
	if err := Into(&Node{n.Line, o}, e, mode); err != nil {
		return nil, key, err
	}
	if p, ok := e.(*api.ProxyConfigEntry); ok && p.Name == "" {
		p.Name = api.ProxyConfigGlobal
	}
	return e, catalog.KeyOf(e), nil
}

func entryKey(kind, name string) catalog.EntryKey {
	switch kind {
	case api.MeshConfig:
		name = api.MeshConfigMesh
	case api.ProxyDefaults:
		name = api.ProxyConfigGlobal
	}
	return catalog.Entry(kind, name)
}

func unknownKind(kind string) string {
	for _, k := range catalog.Kinds {
		if edits(reduce(strings.ReplaceAll(kind, "-", "")), strings.ReplaceAll(k, "-", ""), 2) <= 2 {
			return fmt.Sprintf("%q is not supported; did you mean %s?", kind, k)
		}
	}
	return fmt.Sprintf("%q is not supported; supported are %s", kind, strings.Join(catalog.Kinds, ", "))
}

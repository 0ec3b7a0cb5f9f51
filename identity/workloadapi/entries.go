package workloadapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"sigs.k8s.io/yaml"

	"github.com/hauberk-mesh/hauberk/identity/selector"
	"github.com/hauberk-mesh/hauberk/identity/spiffe"
)

// Entry says that processes which match all selectors may have an identity.
type Entry struct {
	// ID is the identity; zero where Service names it.
	ID spiffeid.ID
	// Service and Namespace name the one identity of the node's that is of this
	// service, so that one file does for hosts of any trust domain.
	Service, Namespace string
	// Selectors is never empty.
	Selectors selector.Set
	// Hint tells several identities of one caller apart (Workload API, 4.2.2).
	Hint string
	// Default: of several identities of one caller, this is the one meant where
	// none is named.
	Default bool
}

// Names reports whether the entry is about the ID.
func (e Entry) Names(id spiffeid.ID) bool {
	if !e.ID.IsZero() {
		return e.ID == id
	}
	of, err := spiffe.Of(id)
	return err == nil && of.Kind == spiffe.Service && of.Service == e.Service && of.Namespace == e.Namespace
}

func (e Entry) String() string {
	if !e.ID.IsZero() {
		return e.ID.String()
	}
	return "service " + e.Namespace + "/" + e.Service
}

// maxHint is the Workload API's limit, in bytes.
const maxHint = 1024

// entryJSON is an Entry in a file.
type entryJSON struct {
	SPIFFEID  string   `json:"spiffe_id"`
	Service   string   `json:"service"`
	Namespace string   `json:"namespace"`
	Selectors []string `json:"selectors"`
	Hint      string   `json:"hint"`
	Default   bool     `json:"default"`
}

// ParseEntries reads the file of workloads, YAML or JSON:
//
//	workloads:
//	- service: web                # or spiffe_id: spiffe://prod.example.com/ns/…
//	  selectors: [uid=1001]       # all must hold; another entry is an alternative
//	  hint: internal              # optional
//	  default: true               # optional
//
// A key that is unknown or appears twice is refused, with its path.
func ParseEntries(data []byte) ([]Entry, error) {
	asJSON, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return nil, err
	}
	var file map[string]json.RawMessage
	if err := json.Unmarshal(asJSON, &file); err != nil || file == nil {
		return nil, errors.New("want a mapping with the key workloads")
	}
	if err := known(file, "", "workloads"); err != nil {
		return nil, err
	}
	var list []map[string]json.RawMessage
	if raw, ok := file["workloads"]; ok {
		if err := json.Unmarshal(raw, &list); err != nil {
			return nil, errors.New("workloads: want a list of mappings")
		}
	}
	var out []Entry
	for i, m := range list {
		path := fmt.Sprintf("workloads[%d]", i)
		if err := known(m, path+".", "spiffe_id", "service", "namespace", "selectors", "hint", "default"); err != nil {
			return nil, err
		}
		e, err := parseEntry(m)
		if err != nil {
			return nil, fmt.Errorf("%s.%w", path, err)
		}
		out = append(out, e)
	}
	return out, conflicts(out)
}

func known(m map[string]json.RawMessage, path string, keys ...string) error {
	for k := range m {
		if !slices.Contains(keys, k) {
			return fmt.Errorf("%s%s: unknown key; known are %s", path, k, strings.Join(keys, ", "))
		}
	}
	return nil
}

// field decodes one key; the error names it.
func field(m map[string]json.RawMessage, key, want string, v any) error {
	raw, ok := m[key]
	if !ok {
		return nil
	}
	if string(raw) == "null" || json.Unmarshal(raw, v) != nil {
		return fmt.Errorf("%s: want %s", key, want)
	}
	return nil
}

func parseEntry(m map[string]json.RawMessage) (Entry, error) {
	var j entryJSON
	for _, f := range []struct {
		key, want string
		v         any
	}{
		{"spiffe_id", "a SPIFFE ID", &j.SPIFFEID}, {"service", "a service's name", &j.Service},
		{"namespace", "a namespace's name", &j.Namespace}, {"selectors", "a list such as [uid=1001]", &j.Selectors},
		{"hint", "a text", &j.Hint}, {"default", "true or false", &j.Default},
	} {
		if err := field(m, f.key, f.want, f.v); err != nil {
			return Entry{}, err
		}
	}
	e := Entry{Hint: j.Hint, Default: j.Default}
	if err := e.name(j); err != nil {
		return Entry{}, err
	}
	var err error
	if e.Selectors, err = selector.ParseSet(j.Selectors); err != nil {
		return Entry{}, fmt.Errorf("selectors: %w", err)
	}
	if len(e.Selectors) == 0 {
		return Entry{}, fmt.Errorf("selectors: %s is for nobody without one of uid=, gid= and unit=", e)
	}
	if len(j.Hint) > maxHint {
		return Entry{}, fmt.Errorf("hint: it has %d bytes, at most %d are allowed", len(j.Hint), maxHint)
	}
	return e, nil
}

func (e *Entry) name(j entryJSON) error {
	switch {
	case (j.SPIFFEID == "") == (j.Service == ""):
		return errors.New("spiffe_id: give either it or service")
	case j.Service != "":
		e.Service, e.Namespace = j.Service, "default"
		if j.Namespace != "" {
			e.Namespace = j.Namespace
		}
		if err := spiffe.CheckName("service", e.Service); err != nil {
			return fmt.Errorf("service: %w", err)
		}
		if err := spiffe.CheckName("namespace", e.Namespace); err != nil {
			return fmt.Errorf("namespace: %w", err)
		}
		return nil
	case j.Namespace != "":
		return errors.New("namespace: it goes with service, a spiffe_id says everything")
	}
	id, err := spiffeid.FromString(j.SPIFFEID)
	if err != nil {
		return fmt.Errorf("spiffe_id: %w", err)
	}
	if id.Path() == "" || spiffe.Reserved(id) {
		return fmt.Errorf("spiffe_id: %s is no workload's", id)
	}
	e.ID = id
	return nil
}

// conflicts refuses what could not be told apart when served.
func conflicts(entries []Entry) error {
	type key struct{ name, set string }
	seen := map[key]bool{}
	for i, e := range entries {
		k := key{e.String(), e.Selectors.String()}
		if seen[k] {
			return fmt.Errorf("workloads[%d]: %s for %s is there already", i, k.name, k.set)
		}
		seen[k] = true
	}
	return nil
}

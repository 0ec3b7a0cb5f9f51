package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"sigs.k8s.io/yaml"
)

// maxBootstrap bounds a bootstrap file; YAML aliases could make more of it.
const maxBootstrap = 8 << 20

// A bootstrap is read with a tidier heap from a size on at which that matters; it
// costs some tenths of a second of start.
const largeBootstrap, readingGC = 1 << 20, 25

// LoadBootstrap reads an Envoy bootstrap in YAML or JSON. An error names the
// file and the field.
func LoadBootstrap(file string) (*Bootstrap, error) {
	b, err := readBootstrap(file)
	if err != nil {
		return nil, fmt.Errorf("bootstrap: %w", err)
	}
	if len(b) > largeBootstrap {
		// The heap's peak stays with the process as the runtime's own records of it.
		defer debug.SetGCPercent(debug.SetGCPercent(readingGC))
	}
	out, err := ParseBootstrap(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return out, nil
}

// readBootstrap reads no more than a bootstrap may have, also of what never ends.
func readBootstrap(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxBootstrap+1))
}

// ParseBootstrap reads an Envoy bootstrap in YAML or JSON.
func ParseBootstrap(b []byte) (*Bootstrap, error) {
	if len(b) > maxBootstrap {
		return nil, fmt.Errorf("is longer than %d bytes", maxBootstrap)
	}
	tree, err := readTree(b)
	if err != nil {
		return nil, discreet(err)
	}
	refused := removeUnknownTypes(tree)
	m := &bootstrapv3.Bootstrap{}
	if err := unmarshalKnown(tree, m); err != nil {
		return nil, discreet(together(append(refused, err)))
	}
	out, err := decodeBootstrap(m, refused)
	return out, discreet(err)
}

// readTree reads YAML or JSON.
func readTree(b []byte) (map[string]any, error) {
	var perhaps unclear
	if err := oneDocument(b); err != nil && !errors.As(err, &perhaps) {
		return nil, err
	}
	// Strict: a key that is there twice would silently lose one of its values.
	j, err := yaml.YAMLToJSONStrict(b)
	if err != nil {
		text := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "yaml: "), "unmarshal errors:\n  ")
		return nil, errors.New(unwritten(strings.ReplaceAll(text, "\n  ", "; ")))
	}
	if perhaps.error != nil {
		return nil, perhaps.error
	}
	if bytes.Equal(bytes.TrimSpace(j), []byte("null")) {
		return nil, errors.New("is empty")
	}
	var tree any
	dec := json.NewDecoder(bytes.NewReader(j))
	dec.UseNumber() // a float64 does not hold every number of 64 bits
	if err := dec.Decode(&tree); err != nil {
		return nil, err
	}
	out, ok := tree.(map[string]any)
	if !ok {
		return nil, errors.New("is not a mapping of fields")
	}
	if !nested(out, maxNesting) {
		return nil, fmt.Errorf("is nested deeper than %d levels", maxNesting)
	}
	return out, nil
}

// unmarshalTree makes a message of what a file says of it.
func unmarshalTree(tree map[string]any, m proto.Message) error {
	if refused := removeUnknownTypes(tree); len(refused) > 0 {
		return refused[0]
	}
	return unmarshalKnown(tree, m)
}

func unmarshalKnown(tree map[string]any, m proto.Message) error {
	asLists(tree, m.ProtoReflect().Descriptor())
	// Each value on its own line, so that a position in an error is a line of one field.
	j, err := json.MarshalIndent(tree, "", "")
	if err != nil {
		return err
	}
	if err := (protojson.UnmarshalOptions{Resolver: resolver{}}).Unmarshal(j, m); err != nil {
		return locate(j, err)
	}
	return nil
}

// asLists makes a list of what stands alone where a field is a list, as Envoy reads it:
// Consul writes the one gRPC service of its bootstrap so.
func asLists(tree map[string]any, d protoreflect.MessageDescriptor) {
	if url, ok := tree["@type"].(string); ok {
		t, err := resolver{}.FindMessageByURL(url)
		if err != nil {
			return
		}
		d = t.Descriptor()
	}
	if strings.HasPrefix(string(d.FullName()), "google.protobuf.") {
		return // has a form of its own in JSON
	}
	for key, v := range tree {
		f := d.Fields().ByJSONName(key)
		if f == nil {
			f = d.Fields().ByTextName(key)
		}
		if f == nil || v == nil {
			continue
		}
		list, isList := v.([]any)
		if f.IsList() && !isList {
			list, isList = []any{v}, true
			tree[key] = list
		}
		of := f.Message()
		fields, isMap := v.(map[string]any)
		switch {
		case of == nil:
		case f.IsMap():
			if of = f.MapValue().Message(); of != nil && isMap {
				for _, e := range fields {
					asListsIn(e, of)
				}
			}
		case isList:
			for _, e := range list {
				asListsIn(e, of)
			}
		default:
			asListsIn(v, of)
		}
	}
}

func asListsIn(v any, d protoreflect.MessageDescriptor) {
	if fields, ok := v.(map[string]any); ok {
		asLists(fields, d)
	}
}

// resolver knows the extensions of the table and nothing else.
type resolver struct{}

func (resolver) FindMessageByName(n protoreflect.FullName) (protoreflect.MessageType, error) {
	if !slices.Contains(extensionTypes(), n) {
		return nil, protoregistry.NotFound
	}
	return protoregistry.GlobalTypes.FindMessageByName(n)
}

func (r resolver) FindMessageByURL(url string) (protoreflect.MessageType, error) {
	return r.FindMessageByName(protoreflect.FullName(url[strings.LastIndexByte(url, '/')+1:]))
}

func (resolver) FindExtensionByName(protoreflect.FullName) (protoreflect.ExtensionType, error) {
	return nil, protoregistry.NotFound
}

func (resolver) FindExtensionByNumber(protoreflect.FullName, protoreflect.FieldNumber) (protoreflect.ExtensionType, error) {
	return nil, protoregistry.NotFound
}

// removeUnknownTypes takes extensions that nothing implements out of a file, and says
// what they are. It comes before the JSON decoder, which would stop at the first of them
// and knows neither the path nor the extension's name.
func removeUnknownTypes(tree map[string]any) []error {
	var refused []error
	if err := unknownType(tree, "", nil); err != nil {
		refused = append(refused, err)
	}
	removeUnknownBelow(tree, "", false, &refused)
	return refused
}

// removeUnknownBelow is removeUnknownTypes of a part of it, which may be what filters are overridden with.
func removeUnknownBelow(v any, path string, overrides bool, refused *[]error) {
	switch v := v.(type) {
	case []any:
		for i, e := range v {
			here := at(path, i)
			if err := unknownType(e, here, nil); err != nil {
				*refused = append(*refused, err)
				v[i] = map[string]any{} // what comes next keeps its place
				continue
			}
			removeUnknownBelow(e, here, false, refused)
		}
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			here, name := under(path, k), any(nil)
			if overrides && passedOver(v[k]) {
				delete(v, k)
				continue
			}
			if k == "typed_config" {
				here, name = path, v["name"]
			}
			if err := unknownType(v[k], here, name); err != nil {
				*refused = append(*refused, err)
				delete(v, k)
				continue
			}
			removeUnknownBelow(v[k], under(path, k), !overrides && (k == "typed_per_filter_config" || k == "typedPerFilterConfig"), refused)
		}
	}
}

// unknownType refuses an extension that nothing implements. The name is that of what it configures.
func unknownType(v any, path string, name any) error {
	fields, _ := v.(map[string]any)
	url, ok := fields["@type"].(string)
	if !ok {
		return nil
	}
	t := protoreflect.FullName(url[strings.LastIndexByte(url, '/')+1:])
	if slices.Contains(extensionTypes(), t) {
		return nil
	}
	if n, ok := name.(string); ok {
		return fail(path, "unsupported extension %q (type %s); %s", n, t, withoutExtension(t))
	}
	return fail(path, "unsupported extension type %q; %s", string(t), withoutExtension(t))
}

// passedOver tells whether a value is an optional override of a filter that is not here, which has no effect.
func passedOver(v any) bool {
	fields, _ := v.(map[string]any)
	url, _ := fields["@type"].(string)
	if protoreflect.FullName(url[strings.LastIndexByte(url, '/')+1:]) != (&routev3.FilterConfig{}).ProtoReflect().Descriptor().FullName() {
		return false
	}
	optional := fields["is_optional"] == true || fields["isOptional"] == true
	return optional && fields["disabled"] != true && unknownType(fields["config"], "", nil) != nil
}

// withoutExtension says what to do about an extension that is not there. Those that
// protect something are not to be just taken out.
func withoutExtension(t protoreflect.FullName) string {
	for part, advice := range map[string]string{
		".ext_authz.": noAuthorizer, ".jwt_authn.": noAuthorizer, ".oauth2.": noAuthorizer,
		".basic_auth.": noAuthorizer, ".api_key_auth.": noAuthorizer,
		"http.ratelimit.":    "without it nothing would be limited: envoy.filters.http.local_ratelimit does without a service",
		"network.ratelimit.": "without it nothing would be limited: envoy.filters.network.local_ratelimit does without a service",
	} {
		if strings.Contains(string(t), part) {
			return advice
		}
	}
	return "remove it"
}

const noAuthorizer = "without it everybody would be let in: envoy.filters.http.rbac decides by identity, headers, path and address"

var position = regexp.MustCompile(`\(line (\d+):(\d+)\): `)

// locate replaces the position in the JSON decoder's error by the field there.
func locate(j []byte, err error) error {
	text := strings.TrimPrefix(strings.ReplaceAll(err.Error(), "\u00a0", " "), "proto: ")
	m := position.FindStringSubmatch(text)
	if m == nil {
		return errors.New(unwritten(strings.TrimPrefix(text, "syntax error ")))
	}
	line, _ := strconv.Atoi(m[1])
	column, _ := strconv.Atoi(m[2])
	offset := 0
	for range line - 1 {
		offset += bytes.IndexByte(j[offset:], '\n') + 1
	}
	reason := unwritten(strings.TrimPrefix(position.ReplaceAllString(text, ""), "syntax error "))
	if strings.HasPrefix(reason, "unknown field") {
		reason += "; remove it, or correct its name: Envoy's v3 API has none such here"
	}
	return fail(pathAt(j, offset+column-1), "%s", reason)
}

// pathAt returns the path of the value or key at an offset of a JSON text.
func pathAt(j []byte, offset int) string {
	type frame struct {
		array bool
		index int
		key   string
		value bool // the key has been read
	}
	var stack []frame
	path := func() string {
		p := ""
		for i, f := range stack {
			switch {
			case f.array:
				p = at(p, f.index)
			case f.key != "" && (f.value || i == len(stack)-1):
				p = under(p, f.key)
			}
		}
		return p
	}
	dec := json.NewDecoder(bytes.NewReader(j))
	for {
		tok, err := dec.Token()
		if err != nil {
			return path()
		}
		if d, ok := tok.(json.Delim); ok && (d == '}' || d == ']') {
			stack = stack[:len(stack)-1]
		} else if n := len(stack); n > 0 && !stack[n-1].array && !stack[n-1].value {
			stack[n-1].key, stack[n-1].value = tok.(string), true
			if int(dec.InputOffset()) > offset {
				return path()
			}
			continue
		} else {
			if int(dec.InputOffset()) > offset {
				return path()
			}
			if ok {
				stack = append(stack, frame{array: d == '['})
				continue
			}
		}
		if n := len(stack); n > 0 {
			if stack[n-1].array {
				stack[n-1].index++
			} else {
				stack[n-1].value = false
			}
		}
	}
}

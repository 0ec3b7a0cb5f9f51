package config

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/envoyproxy/go-control-plane/envoy/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/anypb"
)

var update = flag.Bool("update", false, "rewrite golden files and docs/FIELDS.md")

func newMessage(t testing.TB, name protoreflect.FullName) protoreflect.Message {
	t.Helper()
	mt, err := protoregistry.GlobalTypes.FindMessageByName(name)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return mt.New()
}

// Every name in the table is a field of its message; nothing is listed twice.
func TestTableNamesFields(t *testing.T) {
	for name, r := range fields {
		d := newMessage(t, name).Descriptor()
		listed := slices.Collect(maps.Keys(r.implemented))
		for f := range r.ignore {
			listed = append(listed, protoreflect.Name(f))
		}
		for f := range r.instead {
			listed = append(listed, protoreflect.Name(f))
		}
		for f := range r.but {
			if !r.implemented[protoreflect.Name(f)] {
				t.Errorf("%s: what is refused of %s, which is not implemented, is said twice", name, f)
			}
		}
		seen := map[protoreflect.Name]bool{}
		for _, f := range listed {
			if d.Fields().ByName(f) == nil {
				t.Errorf("%s has no field %s", name, f)
			}
			if seen[f] {
				t.Errorf("%s: %s is listed twice", name, f)
			}
			seen[f] = true
		}
		// An implemented field must be one the walk can go into.
		for f := range r.implemented {
			if fd := d.Fields().ByName(f); fd != nil {
				if m := valueMessage(fd); m != nil && m.FullName() != "google.protobuf.Any" &&
					!opaque[m.FullName()] && fields[m.FullName()] == nil {
					t.Errorf("%s.%s: its type %s is not in the table", name, f, m.FullName())
				}
			}
		}
	}
	for field, p := range extensions {
		for typ := range p.types {
			if fields[typ] == nil {
				t.Errorf("%s takes %s, which is not in the table", field, typ)
			}
		}
	}
}

func valueMessage(fd protoreflect.FieldDescriptor) protoreflect.MessageDescriptor {
	if fd.IsMap() {
		fd = fd.MapValue()
	}
	return fd.Message()
}

// populate sets a field to something other than its default.
func populate(m protoreflect.Message, fd protoreflect.FieldDescriptor) {
	scalar := func(fd protoreflect.FieldDescriptor) protoreflect.Value {
		switch fd.Kind() {
		case protoreflect.BoolKind:
			return protoreflect.ValueOfBool(true)
		case protoreflect.EnumKind:
			return protoreflect.ValueOfEnum(1)
		case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
			return protoreflect.ValueOfInt32(1)
		case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
			return protoreflect.ValueOfInt64(1)
		case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
			return protoreflect.ValueOfUint32(1)
		case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
			return protoreflect.ValueOfUint64(1)
		case protoreflect.FloatKind:
			return protoreflect.ValueOfFloat32(1)
		case protoreflect.DoubleKind:
			return protoreflect.ValueOfFloat64(1)
		case protoreflect.StringKind:
			return protoreflect.ValueOfString("x")
		case protoreflect.BytesKind:
			return protoreflect.ValueOfBytes([]byte("x"))
		}
		panic(fd.Kind())
	}
	switch {
	case fd.IsMap():
		v := m.NewField(fd)
		key := scalar(fd.MapKey()).MapKey()
		if fd.MapValue().Message() != nil {
			v.Map().Set(key, v.Map().NewValue())
		} else {
			v.Map().Set(key, scalar(fd.MapValue()))
		}
		m.Set(fd, v)
	case fd.IsList():
		v := m.NewField(fd)
		if fd.Message() != nil {
			v.List().Append(v.List().NewElement())
		} else {
			v.List().Append(scalar(fd))
		}
		m.Set(fd, v)
	case fd.Message() != nil:
		m.Set(fd, m.NewField(fd))
	default:
		m.Set(fd, scalar(fd))
	}
}

// Whatever the table does not list is refused with its path, in every message.
func TestUnlistedFieldsAreRefused(t *testing.T) {
	refused := 0
	for name, r := range fields {
		ds := newMessage(t, name).Descriptor().Fields()
		for i := range ds.Len() {
			fd := ds.Get(i)
			m := newMessage(t, name)
			populate(m, fd)
			c := &checker{unpacked: map[*anypb.Any]proto.Message{}}
			err := c.message(m, "at")
			if r.of(fd.Name()) == unsupported {
				refused++
				if err == nil || !strings.HasPrefix(err.Error(), "at."+string(fd.Name())+": unsupported; remove the field") {
					t.Errorf("%s.%s: %v", name, fd.Name(), err)
				}
			} else if r.of(fd.Name()) == noEffect && err != nil {
				t.Errorf("%s.%s is accepted without effect, yet: %v", name, fd.Name(), err)
			}
		}
		m := newMessage(t, name)
		m.SetUnknown(protoreflect.RawFields{0xf8, 0xff, 0x07, 0x01})
		if err := (&checker{}).message(m, "at"); err == nil || !strings.Contains(err.Error(), "does not know") {
			t.Errorf("%s: unknown bytes: %v", name, err)
		}
	}
	if refused < 190 { // there are fewer the more is implemented
		t.Errorf("only %d fields were tried", refused)
	}
}

// docs/FIELDS.md says what the table says.
func TestFieldsDocument(t *testing.T) {
	const file = "../../docs/FIELDS.md"
	want := document(t)
	if *update {
		if err := os.MkdirAll("../../docs", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is out of date; run go test ./sidecar/config -run TestFieldsDocument -update", file)
	}
}

// The document has a row for each field that a message of the table has in the
// descriptors, so that what a new go-control-plane brings shows by itself.
func TestDocumentIsComplete(t *testing.T) {
	data, err := os.ReadFile("../../docs/FIELDS.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]bool{}
	var message string
	for line := range strings.Lines(string(data)) {
		if name, ok := strings.CutPrefix(line, "### "); ok {
			message = strings.TrimSpace(name)
		} else if name, ok := strings.CutPrefix(line, "| `"); ok {
			field, _, _ := strings.Cut(name, "`")
			rows[message+"."+field] = true
		}
	}
	for name := range fields {
		ds := newMessage(t, name).Descriptor().Fields()
		for i := range ds.Len() {
			full := string(ds.Get(i).FullName())
			if !rows[full] {
				t.Errorf("%s has no row", full)
			}
			delete(rows, full)
		}
	}
	for full := range rows {
		t.Errorf("%s has a row, and is no field of the table", full)
	}
}

func document(t *testing.T) string {
	var b strings.Builder
	b.WriteString(`# Envoy fields that the sidecar takes

Generated from the table of ` + "`sidecar/config`" + `; do not edit. The sidecar reads Envoy's v3 API, by xDS or from a
bootstrap file. Every field of every message that it takes is here, as go-control-plane's descriptors have them. A
refused one is refused with its path, wherever it is set, as is what has no message here. Absent fields have Envoy's
defaults, but for a listener's ` + "`enable_reuse_port`" + `, which is off.
`)
	sections := map[string][]protoreflect.FullName{}
	for name, r := range fields {
		sections[r.section] = append(sections[r.section], name)
	}
	for _, section := range slices.Sorted(maps.Keys(sections)) {
		fmt.Fprintf(&b, "\n## %s\n", section)
		slices.Sort(sections[section])
		for _, name := range sections[section] {
			r := fields[name]
			fmt.Fprintf(&b, "\n### %s\n\n", name)
			ds := newMessage(t, name).Descriptor().Fields()
			if ds.Len() == 0 {
				b.WriteString("No fields: the message itself is the setting.\n")
				continue
			}
			b.WriteString("| field | |\n|---|---|\n")
			for i := range ds.Len() {
				fmt.Fprintf(&b, "| `%s` | %s |\n", ds.Get(i).Name(), r.meaning(ds.Get(i)))
			}
		}
	}
	return b.String()
}

// meaning is what a row says of a field.
func (r *rules) meaning(fd protoreflect.FieldDescriptor) string {
	name := string(fd.Name())
	switch r.of(fd.Name()) {
	case implemented:
		if but := r.but[name]; but != "" {
			return takes(fd) + ", but " + but
		}
		return takes(fd)
	case noEffect:
		return "accepted, without effect: " + r.ignore[name]
	}
	switch {
	case r.instead[name] != "":
		return "refused: " + r.instead[name]
	case proto.GetExtension(fd.Options(), annotations.E_DisallowedByDefault).(bool):
		return "refused: deprecated, and refused by Envoy"
	case fd.Options().(*descriptorpb.FieldOptions).GetDeprecated():
		return "refused: deprecated"
	}
	return "refused"
}

func takes(fd protoreflect.FieldDescriptor) string {
	p := extensions[fd.FullName()]
	if p == nil {
		return "implemented"
	}
	var names []string
	for n := range p.types {
		names = append(names, "`"+string(n)+"`")
	}
	slices.Sort(names)
	return "implemented: " + strings.Join(names, ", ")
}

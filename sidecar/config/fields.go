package config

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// status is what a populated field means to the sidecar.
type status uint8

const (
	unsupported status = iota
	implemented
	noEffect
)

// rules say what the fields of one message type mean. A field that is in
// neither list is refused wherever it is populated.
type rules struct {
	// section is the chapter of docs/FIELDS.md.
	section string
	// use lists the implemented fields, separated by spaces.
	use string
	// ignore lists fields that may be set and change nothing, with the reason.
	ignore map[string]string
	// instead says, for some unsupported fields, what to use.
	instead map[string]string
	// but says, for some implemented fields, which of their values are refused.
	but map[string]string

	implemented map[protoreflect.Name]bool
}

func (r *rules) of(name protoreflect.Name) status {
	if r.implemented[name] {
		return implemented
	}
	if _, ok := r.ignore[string(name)]; ok {
		return noEffect
	}
	return unsupported
}

func (r *rules) hint(name protoreflect.Name) string {
	if h := r.instead[string(name)]; h != "" {
		return ": " + h
	}
	return ""
}

// fields is the whole table by message type.
var fields = map[protoreflect.FullName]*rules{}

// point is a place that takes extensions: an Any field, and the types it takes.
type point struct {
	noun  string
	types map[protoreflect.FullName]func() proto.Message
}

// extensions is keyed by the Any field's full name.
var extensions = map[protoreflect.FullName]*point{}

// opaque messages are values: nothing below them is a field of Envoy's.
var opaque = map[protoreflect.FullName]bool{
	"google.protobuf.Duration":    true,
	"google.protobuf.Struct":      true,
	"google.protobuf.Value":       true,
	"google.protobuf.BoolValue":   true,
	"google.protobuf.UInt32Value": true,
	"google.protobuf.UInt64Value": true,
	"google.protobuf.DoubleValue": true,
	"google.protobuf.StringValue": true,
}

// declare adds the messages of a section to the table.
func declare(section string, messages map[protoreflect.FullName]*rules) {
	for name, r := range messages {
		if fields[name] != nil {
			panic("config: " + string(name) + " is declared twice")
		}
		r.section = section
		r.implemented = map[protoreflect.Name]bool{}
		for f := range strings.FieldsSeq(r.use) {
			r.implemented[protoreflect.Name(f)] = true
		}
		fields[name] = r
	}
}

// extend adds to what an Any field takes. A field that several kinds of extension
// share takes all of them; each decoder refuses those that are not its own.
func extend(field protoreflect.FullName, noun string, types ...proto.Message) {
	p := extensions[field]
	if p == nil {
		p = &point{noun: noun, types: map[protoreflect.FullName]func() proto.Message{}}
	}
	for _, t := range types {
		d := t.ProtoReflect()
		p.types[d.Descriptor().FullName()] = func() proto.Message { return d.New().Interface() }
	}
	extensions[field] = p
}

// extensionTypes lists the message types that are taken anywhere in an Any.
func extensionTypes() []protoreflect.FullName {
	var out []protoreflect.FullName
	for _, p := range extensions {
		for n := range p.types {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

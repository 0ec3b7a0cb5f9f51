package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/hauberk-mesh/hauberk/sidecar/fair"
	"github.com/hauberk-mesh/hauberk/sidecar/tlscontext"
)

// FieldError says what is wrong with one field. Path is as in the resource's
// JSON form, with proto field names.
type FieldError struct {
	Path   string
	Reason string
}

func (e *FieldError) Error() string {
	if e.Path == "" {
		return e.Reason
	}
	return e.Path + ": " + e.Reason
}

func fail(path, format string, args ...any) error {
	return &FieldError{Path: path, Reason: fmt.Sprintf(format, args...)}
}

// under appends a field to a path.
func under(path, field string) string {
	if path == "" {
		return field
	}
	return path + "." + field
}

func at(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// checker walks a resource against the table. It keeps the extensions that it
// unpacked, so that the decoder does not do it again.
type checker struct {
	unpacked map[*anypb.Any]proto.Message
	// all has the walk go on behind a refusal; refused are those so far.
	all     bool
	refused []error
}

// refuse ends the walk, unless everything that is refused is asked for.
func (c *checker) refuse(err error) error {
	if !c.all {
		return err
	}
	c.refused = append(c.refused, err)
	return nil
}

// message checks m and everything below it.
func (c *checker) message(m protoreflect.Message, path string) error {
	fair.Background(fair.Message)
	name := m.Descriptor().FullName()
	if opaque[name] {
		return nil
	}
	if len(m.GetUnknown()) > 0 {
		return c.refuse(fail(path, "%s has fields that this version does not know; the sender is newer, or the bytes are damaged", name))
	}
	rules, ok := fields[name]
	if !ok {
		return c.refuse(fail(path, "unsupported: %s", name))
	}
	var err error
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		err = c.field(rules, m, fd, v, under(path, string(fd.Name())))
		return err == nil
	})
	return err
}

func (c *checker) field(rules *rules, m protoreflect.Message, fd protoreflect.FieldDescriptor, v protoreflect.Value, path string) error {
	switch rules.of(fd.Name()) {
	case noEffect:
		return nil
	case unsupported:
		return c.refuse(fail(path, "unsupported; remove the field%s", rules.hint(fd.Name())))
	}
	if fd.IsMap() {
		if fd.MapValue().Message() == nil {
			return nil
		}
		var err error
		v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
			err = c.value(m, fd, v.Message(), path+"["+strconv.Quote(k.String())+"]")
			return err == nil
		})
		return err
	}
	if fd.Message() == nil {
		if k := fd.Kind(); k == protoreflect.DoubleKind && !fd.IsList() && math.IsNaN(v.Float()) {
			// No rule of its message refuses it: it is neither less nor more than any limit.
			return c.refuse(fail(path, "is not a number"))
		}
		return nil
	}
	if fd.IsList() {
		for i := range v.List().Len() {
			if err := c.value(m, fd, v.List().Get(i).Message(), at(path, i)); err != nil {
				return err
			}
		}
		return nil
	}
	return c.value(m, fd, v.Message(), path)
}

func (c *checker) value(parent protoreflect.Message, fd protoreflect.FieldDescriptor, m protoreflect.Message, path string) error {
	if a, ok := m.Interface().(*anypb.Any); ok {
		return c.extension(parent, fd, a, path)
	}
	if r, ok := m.Interface().(*matcherv3.RegexMatcher); ok {
		if err := programSize(r, path); err != nil {
			return c.refuse(err)
		}
	}
	return c.message(m, path)
}

// extension unpacks an Any whose type is listed for the field it is in.
func (c *checker) extension(parent protoreflect.Message, fd protoreflect.FieldDescriptor, a *anypb.Any, path string) error {
	point, ok := extensions[fd.FullName()]
	if !ok {
		return c.refuse(fail(path, "unsupported: extensions are not taken here"))
	}
	url := a.GetTypeUrl()
	if fc, ok := parent.Interface().(*routev3.FilterConfig); ok && url == "" {
		return nil // an empty configuration switches a filter on
	} else if ok && fc.GetDisabled() {
		return nil // not looked at, as in Envoy
	}
	name := protoreflect.FullName(url[strings.LastIndexByte(url, '/')+1:])
	t, ok := point.types[name]
	if fc, filter := parent.Interface().(*routev3.FilterConfig); !ok && filter && fc.GetIsOptional() {
		return nil
	}
	if !ok {
		who := strconv.Quote(string(name))
		if nf := parent.Descriptor().Fields().ByName("name"); nf != nil && nf.Kind() == protoreflect.StringKind {
			if n := parent.Get(nf).String(); n != "" {
				who = strconv.Quote(n) + " (type " + string(name) + ")"
			}
		}
		return c.refuse(fail(strings.TrimSuffix(path, "."+string(fd.Name())), "unsupported %s %s; remove it", point.noun, who))
	}
	m := t()
	if err := proto.Unmarshal(a.GetValue(), m); err != nil {
		return c.refuse(fail(path, "cannot decode %s: %v", name, err))
	}
	if err := c.validate(m, path); err != nil {
		return err
	}
	c.unpacked[a] = m
	return c.message(m.ProtoReflect(), path)
}

// validate asks the message's own rules. Behind a refusal it does not: what was taken out
// of the message for it would be missed.
func (c *checker) validate(m proto.Message, path string) error {
	v, ok := m.(interface{ ValidateAll() error })
	if !ok || len(c.refused) > 0 {
		return nil
	}
	err := v.ValidateAll()
	if err == nil {
		return nil
	}
	for _, e := range violations(err, path) {
		if err := c.refuse(e); err != nil {
			return err
		}
	}
	return nil
}

// check validates a whole resource and returns a decoder for it. The error is of the
// first fault.
func check(m proto.Message) (*decoder, error) {
	return (&checker{}).check(m)
}

// checkAll is check, whose error has every fault, behind those that are known already.
func checkAll(m proto.Message, refused []error) (*decoder, error) {
	return (&checker{all: true, refused: refused}).check(m)
}

func (c *checker) check(m proto.Message) (*decoder, error) {
	c.unpacked = map[*anypb.Any]proto.Message{}
	if err := c.message(m.ProtoReflect(), ""); err != nil {
		return nil, err
	}
	// After the walk: an unsupported field is the better message of the two.
	if err := c.validate(m, ""); err != nil {
		return nil, err
	}
	if err := together(c.refused); err != nil {
		return nil, err
	}
	return &decoder{unpacked: c.unpacked}, nil
}

// decoder turns a checked resource into plain structs. Each of its methods
// still refuses values that the data path cannot honour.
type decoder struct {
	unpacked map[*anypb.Any]proto.Message
	// secrets are the static secrets of a bootstrap.
	secrets map[string]*tlscontext.Discovered
	// runtime is the bootstrap's; nil elsewhere.
	runtime *Runtime
	// metadata has what endpoints share of their metadata.
	metadata sharedMetadata
	// maxDirectBody is the route configuration's bound for direct responses.
	maxDirectBody int
	// connections: logs of connections are being read, not of requests.
	connections bool
}

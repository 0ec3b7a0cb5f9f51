package config

//lint:file-ignore SA1019 deprecated fields are in many configurations, and mean what they meant

import (
	"os"
	"strings"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	otelv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/open_telemetry/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	tagv3 "github.com/envoyproxy/go-control-plane/envoy/type/tracing/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/hauberk-mesh/hauberk/sidecar/fair"
	"github.com/hauberk-mesh/hauberk/xds/logformat"
)

// environment looks for what a resource reads of the process's environment, in which
// tokens and credentials are. A bootstrap may read it. What a control plane sends must not
// have it told to others, in a body, in a header, in a path or in the tag of a span; a log
// of this host and the keys of a TLS context stay here.
type environment struct {
	unpacked map[*anypb.Any]proto.Message
	// bootstrap is set for the host's own configuration.
	bootstrap bool
}

// environment refuses what a checked resource may not read.
func (d *decoder) environment(m proto.Message, bootstrap bool) error {
	return environment{d.unpacked, bootstrap}.message(m.ProtoReflect(), "")
}

const environmentReason = "the environment is read for a bootstrap only: what a control plane sends must not tell it to others"

func (e environment) message(m protoreflect.Message, path string) (err error) {
	fair.Background(fair.Message)
	switch t := m.Interface().(type) {
	case *accesslogv3.AccessLog:
		// OpenTelemetry's log is not of this host.
		if _, leaves := e.unpacked[t.GetTypedConfig()].(*otelv3.OpenTelemetryAccessLogConfig); !leaves && !e.bootstrap {
			return nil
		}
	case *tlsv3.DownstreamTlsContext, *tlsv3.UpstreamTlsContext:
		return nil // tlsSource refuses what is not set
	case *corev3.DataSource:
		err = e.source(t, path)
	case *structpb.Struct:
		return e.fields(structpb.NewStructValue(t), path)
	case *structpb.Value:
		return e.fields(t, path)
	case *tagv3.CustomTag:
		if t.GetEnvironment() != nil && !e.bootstrap {
			err = fail(path+".environment", environmentReason)
		}
	}
	if err != nil {
		return err
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		err = e.field(fd, v, under(path, string(fd.Name())))
		return err == nil
	})
	return err
}

func (e environment) field(fd protoreflect.FieldDescriptor, v protoreflect.Value, path string) (err error) {
	switch {
	case fd.IsMap():
		v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
			err = e.value(fd.MapValue(), v, path+"["+k.String()+"]")
			return err == nil
		})
	case fd.IsList():
		for i := range v.List().Len() {
			if err = e.value(fd, v.List().Get(i), at(path, i)); err != nil {
				return err
			}
		}
	default:
		err = e.value(fd, v, path)
	}
	return err
}

// value looks at one value of a field. Which texts are formats only those know who read
// them: what reads the environment as a format is refused wherever it stands.
func (e environment) value(fd protoreflect.FieldDescriptor, v protoreflect.Value, path string) error {
	switch fd.Kind() {
	case protoreflect.StringKind:
		return e.format(v.String(), path)
	case protoreflect.BytesKind:
		return e.format(string(v.Bytes()), path)
	case protoreflect.MessageKind:
	default:
		return nil
	}
	a, ok := v.Message().Interface().(*anypb.Any)
	if !ok {
		return e.message(v.Message(), path)
	}
	if inner := e.unpacked[a]; inner != nil {
		return e.message(inner.ProtoReflect(), path)
	}
	return nil
}

// source refuses a variable that is not set, as Envoy does: nothing is not what was meant.
func (e environment) source(s *corev3.DataSource, path string) error {
	name := s.GetEnvironmentVariable()
	if name == "" {
		return nil
	}
	if path += ".environment_variable"; !e.bootstrap {
		return fail(path, environmentReason)
	}
	if pasted(name) {
		return fail(path, "is PEM, or has several lines; write that into inline_string")
	}
	if _, set := os.LookupEnv(name); !set {
		return fail(path, "%s is not set", name)
	}
	return nil
}

// fields looks at the texts of a JSON format.
func (e environment) fields(v *structpb.Value, path string) error {
	switch k := v.GetKind().(type) {
	case *structpb.Value_StringValue:
		return e.format(k.StringValue, path)
	case *structpb.Value_StructValue:
		for name, v := range k.StructValue.GetFields() {
			if err := e.fields(v, under(path, name)); err != nil {
				return err
			}
		}
	case *structpb.Value_ListValue:
		for i, v := range k.ListValue.GetValues() {
			if err := e.fields(v, at(path, i)); err != nil {
				return err
			}
		}
	}
	return nil
}

// format leaves what is no format to those who use it.
func (e environment) format(text, path string) error {
	if e.bootstrap || strings.IndexByte(text, '%') < 0 {
		return nil
	}
	if pieces, err := logformat.ParseOfConnection(text); err == nil && readsEnvironment(pieces) {
		return fail(path, "%%ENVIRONMENT%%: "+environmentReason)
	}
	return nil
}

func readsEnvironment(pieces []logformat.Piece) bool {
	for _, p := range pieces {
		if p.Name == "ENVIRONMENT" {
			return true
		}
		if p.Name == "" || logformat.Operators[p.Name].Kind != logformat.First {
			continue
		}
		if within, err := logformat.Alternatives(p.Argument); err == nil && readsEnvironment(within) {
			return true
		}
	}
	return false
}

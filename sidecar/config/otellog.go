package config

//lint:file-ignore SA1019 deprecated fields are in many configurations, and mean what they meant

import (
	"math"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	otelv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/open_telemetry/v3"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/hauberk-mesh/hauberk/sidecar/otellog"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
	"github.com/hauberk-mesh/hauberk/sidecar/tracing"
)

const logsMethod = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"

func openTelemetryLog(m *otelv3.OpenTelemetryAccessLogConfig, path string) (_ *otellog.Config, err error) {
	common := m.GetCommonConfig()
	out := &otellog.Config{Name: m.GetLogName(), NoLabels: m.GetDisableBuiltinLabels(), StatPrefix: m.GetStatPrefix()}
	if err := logCollector(m, out, path); err != nil {
		return nil, err
	}
	if out.Name == "" {
		out.Name = common.GetLogName()
	}
	// Envoy reads the first two for HTTP alone, and the others for gRPC alone.
	interval, size, at := m.GetBufferFlushInterval(), m.GetBufferSizeBytes(), path
	if interval == nil && common.GetBufferFlushInterval() != nil {
		interval, at = common.GetBufferFlushInterval(), path+".common_config"
	}
	if size == nil {
		size = common.GetBufferSizeBytes()
	}
	if err = logBuffer(interval, size, out, at); err != nil {
		return nil, err
	}
	if out.Resource, err = logPairs(m.GetResourceAttributes(), false, path+".resource_attributes"); err != nil {
		return nil, err
	}
	if out.Body, err = logValue(m.GetBody(), true, path+".body"); err != nil {
		return nil, err
	}
	if out.Attributes, err = logPairs(m.GetAttributes(), true, path+".attributes"); err != nil {
		return nil, err
	}
	if out.Tags, err = customTags(m.GetCustomTags(), path+".custom_tags"); err != nil {
		return nil, err
	}
	if _, err := tracing.CompileTags(out.Tags); err != nil {
		return nil, fail(path+".custom_tags", "%v", err)
	}
	return out, nil
}

// logCollector reads the only service of several places.
func logCollector(m *otelv3.OpenTelemetryAccessLogConfig, out *otellog.Config, path string) (err error) {
	common := m.GetCommonConfig()
	services := map[string]*corev3.GrpcService{".grpc_service": m.GetGrpcService(), ".common_config.grpc_service": common.GetGrpcService()}
	switch v := common.GetTransportApiVersion(); v {
	case corev3.ApiVersion_AUTO, corev3.ApiVersion_V3:
	default:
		return fail(path+".common_config.transport_api_version", "is %s; use V3", v)
	}
	if s := m.GetHttpService(); s != nil {
		if out.Collector, err = httpCollector(s, path+".http_service"); err != nil {
			return err
		}
	}
	for _, at := range []string{".grpc_service", ".common_config.grpc_service"} {
		s := services[at]
		if s == nil {
			continue
		}
		if out.Collector != nil {
			return fail(path+at, "there is a second service; use one of grpc_service, http_service and common_config.grpc_service")
		}
		if out.Collector, err = grpcCollector(s, logsMethod, path+at); err != nil {
			return err
		}
	}
	if out.Collector == nil {
		return fail(path, "has no collector; use grpc_service or http_service")
	}
	return nil
}

func logBuffer(interval *durationpb.Duration, size *wrapperspb.UInt32Value, out *otellog.Config, path string) (err error) {
	if out.Interval, err = duration(interval, path+".buffer_flush_interval"); err != nil {
		return err
	}
	if interval == nil {
		out.Interval = otellog.DefaultInterval
	}
	if out.Size = otellog.DefaultSize; size != nil {
		out.Size = int(min(size.GetValue(), math.MaxInt32))
	}
	return nil
}

func logPairs(m *commonv1.KeyValueList, formats bool, path string) ([]otellog.KeyValue, error) {
	var out []otellog.KeyValue
	for i, kv := range m.GetValues() {
		here := at(path+".values", i)
		v, err := logValue(kv.GetValue(), formats, here+".value")
		if err != nil {
			return nil, err
		}
		if v == nil && formats {
			return nil, fail(here+".value", "is missing")
		}
		out = append(out, otellog.KeyValue{Key: kv.GetKey(), Value: v})
	}
	return out, nil
}

// logValue reads a value, nil for none. Where texts are formats there are no other kinds
// of single values, as in Envoy.
func logValue(m *commonv1.AnyValue, formats bool, path string) (any, error) {
	switch v := m.GetValue().(type) {
	case nil:
		return nil, nil
	case *commonv1.AnyValue_StringValue:
		if formats {
			if _, err := telemetry.ParseFormat(v.StringValue); err != nil {
				return nil, fail(path+".string_value", "%v", err)
			}
		}
		return v.StringValue, nil
	case *commonv1.AnyValue_KvlistValue:
		pairs, err := logPairs(v.KvlistValue, formats, path+".kvlist_value")
		if pairs == nil {
			pairs = []otellog.KeyValue{}
		}
		return pairs, err
	case *commonv1.AnyValue_ArrayValue:
		list := []any{}
		for i, e := range v.ArrayValue.GetValues() {
			here := at(path+".array_value.values", i)
			e, err := logValue(e, formats, here)
			if err != nil {
				return nil, err
			}
			if e == nil && formats {
				return nil, fail(here, "is missing")
			}
			list = append(list, e)
		}
		return list, nil
	}
	if formats {
		return nil, fail(path, "there are texts, lists and pairs only; use string_value")
	}
	return logScalar(m, path)
}

// logScalar reads what is as it is.
func logScalar(m *commonv1.AnyValue, path string) (any, error) {
	switch v := m.GetValue().(type) {
	case *commonv1.AnyValue_BoolValue:
		return v.BoolValue, nil
	case *commonv1.AnyValue_IntValue:
		return v.IntValue, nil
	case *commonv1.AnyValue_DoubleValue:
		if math.IsNaN(v.DoubleValue) || math.IsInf(v.DoubleValue, 0) {
			return nil, fail(path+".double_value", "is no number")
		}
		return v.DoubleValue, nil
	case *commonv1.AnyValue_BytesValue:
		return v.BytesValue, nil
	}
	return nil, fail(path, "is of an unknown kind; use string_value")
}

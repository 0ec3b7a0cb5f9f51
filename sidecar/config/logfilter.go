package config

import (
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	datalogv3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	typematcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
	"github.com/hauberk-mesh/hauberk/xds/logformat"
)

// logFilter reads what chooses the records of an access log, nil for all.
func (d *decoder) logFilter(m *accesslogv3.AccessLogFilter, path string) (telemetry.Filter, error) {
	if m == nil {
		return nil, nil
	}
	switch f := m.GetFilterSpecifier().(type) {
	case *accesslogv3.AccessLogFilter_StatusCodeFilter:
		op, value, err := d.comparison(f.StatusCodeFilter.GetComparison(), path+".status_code_filter.comparison")
		return telemetry.StatusFilter{Op: op, Value: value}, err
	case *accesslogv3.AccessLogFilter_DurationFilter:
		op, value, err := d.comparison(f.DurationFilter.GetComparison(), path+".duration_filter.comparison")
		return telemetry.DurationFilter{Op: op, Value: value}, err
	case *accesslogv3.AccessLogFilter_NotHealthCheckFilter:
		return telemetry.NotHealthCheckFilter{}, nil
	case *accesslogv3.AccessLogFilter_TraceableFilter:
		return telemetry.TraceableFilter{}, nil
	case *accesslogv3.AccessLogFilter_RuntimeFilter:
		return d.sampleFilter(f.RuntimeFilter, path+".runtime_filter")
	case *accesslogv3.AccessLogFilter_AndFilter:
		all, err := d.logFilters(f.AndFilter.GetFilters(), path+".and_filter.filters")
		return telemetry.All(all), err
	case *accesslogv3.AccessLogFilter_OrFilter:
		all, err := d.logFilters(f.OrFilter.GetFilters(), path+".or_filter.filters")
		return telemetry.Any(all), err
	case *accesslogv3.AccessLogFilter_HeaderFilter:
		h, err := headerMatch(f.HeaderFilter.GetHeader(), path+".header_filter.header")
		if err != nil {
			return nil, err
		}
		return route.HeaderFilter{Match: *h}, nil
	case *accesslogv3.AccessLogFilter_ResponseFlagFilter:
		return flagsFilter(f.ResponseFlagFilter, path+".response_flag_filter.flags")
	case *accesslogv3.AccessLogFilter_GrpcStatusFilter:
		out := telemetry.GRPCFilter{Exclude: f.GrpcStatusFilter.GetExclude()}
		for _, s := range f.GrpcStatusFilter.GetStatuses() {
			out.Statuses |= 1 << s
		}
		return out, nil
	case *accesslogv3.AccessLogFilter_LogTypeFilter:
		return typeFilter(f.LogTypeFilter, path+".log_type_filter.types")
	case *accesslogv3.AccessLogFilter_MetadataFilter:
		return d.metadataFilter(f.MetadataFilter, path+".metadata_filter")
	}
	return nil, fail(path, "has no filter")
}

func (d *decoder) logFilters(ms []*accesslogv3.AccessLogFilter, path string) ([]telemetry.Filter, error) {
	var out []telemetry.Filter
	for i, m := range ms {
		f, err := d.logFilter(m, at(path, i))
		if err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	return out, nil
}

func (d *decoder) comparison(m *accesslogv3.ComparisonFilter, path string) (telemetry.Comparison, int64, error) {
	value := int64(d.runtime.number32(m.GetValue().GetRuntimeKey(), m.GetValue().GetDefaultValue()))
	switch m.GetOp() {
	case accesslogv3.ComparisonFilter_EQ:
		return telemetry.Equal, value, nil
	case accesslogv3.ComparisonFilter_GE:
		return telemetry.GreaterOrEqual, value, nil
	case accesslogv3.ComparisonFilter_LE:
		return telemetry.LessOrEqual, value, nil
	case accesslogv3.ComparisonFilter_NE:
		return telemetry.NotEqual, value, nil
	}
	return 0, 0, fail(path+".op", "unknown value %d", m.GetOp())
}

func (d *decoder) sampleFilter(m *accesslogv3.RuntimeFilter, path string) (telemetry.Filter, error) {
	out := telemetry.SampleFilter{
		Numerator: uint64(m.GetPercentSampled().GetNumerator()), Denominator: 100, Independent: m.GetUseIndependentRandomness(),
	}
	if n, ok := d.runtime.integer(m.GetRuntimeKey()); ok {
		out.Numerator = n
	}
	switch m.GetPercentSampled().GetDenominator() {
	case typev3.FractionalPercent_HUNDRED:
	case typev3.FractionalPercent_TEN_THOUSAND:
		out.Denominator = 10_000
	case typev3.FractionalPercent_MILLION:
		out.Denominator = 1_000_000
	default:
		return nil, fail(path+".percent_sampled.denominator", "unknown value %d", m.GetPercentSampled().GetDenominator())
	}
	return out, nil
}

func flagsFilter(m *accesslogv3.ResponseFlagFilter, path string) (telemetry.Filter, error) {
	out := telemetry.FlagsFilter{Any: len(m.GetFlags()) == 0}
	for i, name := range m.GetFlags() {
		f, ok := telemetry.ParseFlag(name)
		if !ok {
			return nil, fail(at(path, i), "%q is no response flag", name)
		}
		out.Flags |= f
	}
	return out, nil
}

// typeFilter: types of records that never arise here may be named.
func typeFilter(m *accesslogv3.LogTypeFilter, path string) (telemetry.Filter, error) {
	out := telemetry.TypeFilter{Exclude: m.GetExclude()}
	for i, t := range m.GetTypes() {
		if _, ok := datalogv3.AccessLogType_name[int32(t)]; !ok {
			return nil, fail(at(path, i), "unknown value %d", t)
		}
		out.Types |= 1 << t
	}
	return out, nil
}

// metadataFilter takes what some filter of ours can say: another namespace, or a value that none has,
// would take or leave every record.
func (d *decoder) metadataFilter(m *accesslogv3.MetadataFilter, path string) (telemetry.Filter, error) {
	matcher, here := m.GetMatcher(), path+".matcher"
	if matcher == nil {
		return nil, fail(here, "is missing")
	}
	if len(matcher.GetPath()) != 1 {
		return nil, fail(here+".path", "has %d keys; values have no members, so it must be one", len(matcher.GetPath()))
	}
	out := route.MetadataFilter{
		Namespace: matcher.GetFilter(), Key: matcher.GetPath()[0].GetKey(),
		Missing: m.GetMatchIfKeyNotFound() == nil || m.GetMatchIfKeyNotFound().GetValue(),
	}
	if matcher.GetInvert() {
		return nil, fail(here+".invert", "Envoy's filter of logs does not heed it")
	}
	var err error
	flag := out.Namespace == telemetry.MetadataCommon && out.Key == telemetry.LogHint
	if !flag && !logformat.ShowsMetadata(out.Namespace, d.connections) {
		return nil, fail(here+".filter", "%q says nothing here; metadata are of %s, and %s of %s; of connections also of %s",
			out.Namespace, telemetry.MetadataRBAC, telemetry.LogHint, telemetry.MetadataCommon, logformat.MetadataProxy+" and what rules of the PROXY protocol name")
	}
	switch v := matcher.GetValue().GetMatchPattern().(type) {
	case *typematcherv3.ValueMatcher_StringMatch:
		if flag {
			return nil, fail(here+".value.string_match", "the value is true or false; use bool_match")
		}
		out.Text, err = stringMatch(v.StringMatch, here+".value.string_match")
	case *typematcherv3.ValueMatcher_BoolMatch:
		if !flag {
			return nil, fail(here+".value.bool_match", "the value is a text; use string_match")
		}
		out.Flag = &v.BoolMatch
	case *typematcherv3.ValueMatcher_PresentMatch:
		if !v.PresentMatch {
			return nil, fail(here+".value.present_match", "false takes no record that has the key; use match_if_key_not_found")
		}
	case *typematcherv3.ValueMatcher_OrMatch:
		return nil, fail(here+".value.or_match", "use or_filter")
	case nil:
	default:
		return nil, fail(here+".value", valuesReason)
	}
	if err == nil {
		telemetry.ShowMetadata()
	}
	return out, err
}

package config

//lint:file-ignore SA1019 deprecated fields are in many configurations, and mean what they meant

import (
	"math"
	"os"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tracev3 "github.com/envoyproxy/go-control-plane/envoy/config/trace/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	samplersv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/tracers/opentelemetry/samplers/v3"
	metadatav3 "github.com/envoyproxy/go-control-plane/envoy/type/metadata/v3"
	tagv3 "github.com/envoyproxy/go-control-plane/envoy/type/tracing/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/hauberk-mesh/hauberk/sidecar/hcm"
	"github.com/hauberk-mesh/hauberk/sidecar/tracing"
	"github.com/hauberk-mesh/hauberk/xds/logformat"
)

func (d *decoder) hcmTracing(m *hcmv3.HttpConnectionManager, out *hcm.Config, path string) (err error) {
	t := m.GetTracing()
	if t == nil {
		return nil
	}
	path += ".tracing"
	c := &tracing.Config{
		Verbose: t.GetVerbose(), MaxPath: tracing.DefaultMaxPath, SpawnUpstream: t.GetSpawnUpstreamSpan().GetValue(),
		Operation: t.GetOperation(), UpstreamOperation: t.GetUpstreamOperation(), NoPropagation: t.GetNoContextPropagation(),
	}
	if v := t.GetMaxPathTagLength(); v != nil {
		c.MaxPath = int(min(v.GetValue(), math.MaxInt32))
	}
	// As in Envoy, only the random share has parts of a percent.
	whole := func(p *typev3.Percent) tracing.Fraction {
		if p == nil {
			return tracing.Percent(100)
		}
		return tracing.Percent(uint32(p.GetValue()))
	}
	random := tracing.Percent(100)
	if p := t.GetRandomSampling(); p != nil {
		random = tracing.Fraction{N: uint32(math.Round(p.GetValue() * 100)), Of: 10000}
	}
	// By its older name the router has it.
	c.SpawnUpstream = c.SpawnUpstream || d.startsChildSpan(m)
	if c.Sampling, err = d.sampling(whole(t.GetClientSampling()), random, whole(t.GetOverallSampling())); err != nil {
		return err
	}
	if c.Tags, err = customTags(t.GetCustomTags(), path+".custom_tags"); err != nil {
		return err
	}
	if err = d.tracer(t.GetProvider(), c, path+".provider"); err != nil {
		return err
	}
	if err := c.Check(); err != nil {
		return fail(path, "%v", err)
	}
	out.Tracing = c
	return nil
}

// startsChildSpan tells whether the router is to make a span for each attempt.
func (d *decoder) startsChildSpan(m *hcmv3.HttpConnectionManager) bool {
	for _, f := range m.GetHttpFilters() {
		if r, ok := d.unpacked[f.GetTypedConfig()].(*routerv3.Router); ok && r.GetStartChildSpan() {
			return true
		}
	}
	return false
}

// sampling has the runtime's percentages count before the others.
func (d *decoder) sampling(client, random, overall tracing.Fraction) (out tracing.Sampling, err error) {
	if out.Client, err = d.fraction("tracing.client_enabled", client); err != nil {
		return out, err
	}
	if out.Random, err = d.fraction("tracing.random_sampling", random); err != nil {
		return out, err
	}
	out.Overall, err = d.fraction("tracing.global_enabled", overall)
	return out, err
}

func (d *decoder) fraction(key string, otherwise tracing.Fraction) (tracing.Fraction, error) {
	n, ok, err := d.runtime.number(key)
	switch {
	case err != nil || !ok:
		return otherwise, err
	case n < 0 || n != math.Trunc(n):
		return otherwise, fail(d.runtime.paths[key], "is no whole percentage")
	}
	return tracing.Percent(uint32(min(n, 100))), nil
}

// routeTracing reads what a route has instead of its connection manager's tracing, nil
// for nothing.
func (d *decoder) routeTracing(m *routev3.Tracing, path string) (_ *tracing.RouteConfig, err error) {
	if m == nil {
		return nil, nil
	}
	var shares [3]tracing.Fraction
	for i, s := range []struct {
		m    *typev3.FractionalPercent
		name string
	}{{m.GetClientSampling(), "client_sampling"}, {m.GetRandomSampling(), "random_sampling"}, {m.GetOverallSampling(), "overall_sampling"}} {
		shares[i] = tracing.Percent(100)
		if s.m != nil {
			of, ok := map[typev3.FractionalPercent_DenominatorType]uint32{
				typev3.FractionalPercent_HUNDRED: 100, typev3.FractionalPercent_TEN_THOUSAND: 10_000, typev3.FractionalPercent_MILLION: 1_000_000,
			}[s.m.GetDenominator()]
			if !ok {
				return nil, fail(path+"."+s.name+".denominator", "unknown value %d", s.m.GetDenominator())
			}
			shares[i] = tracing.Fraction{N: s.m.GetNumerator(), Of: of}
		}
	}
	out := &tracing.RouteConfig{Operation: m.GetOperation(), UpstreamOperation: m.GetUpstreamOperation()}
	if out.Sampling, err = d.sampling(shares[0], shares[1], shares[2]); err != nil {
		return nil, err
	}
	if out.Tags, err = customTags(m.GetCustomTags(), path+".custom_tags"); err != nil {
		return nil, err
	}
	if err := out.Compile(); err != nil {
		return nil, fail(path, "%v", err)
	}
	return out, nil
}

func decorator(m *routev3.Decorator) *tracing.Decorator {
	if m == nil {
		return nil
	}
	out := &tracing.Decorator{Operation: m.GetOperation(), Propagate: true}
	if p := m.GetPropagate(); p != nil {
		out.Propagate = p.GetValue()
	}
	return out
}

func customTags(ms []*tagv3.CustomTag, path string) ([]tracing.Tag, error) {
	var out []tracing.Tag
	for i, m := range ms {
		tag, err := customTag(m, at(path, i))
		if err != nil {
			return nil, err
		}
		out = append(out, *tag)
	}
	return out, nil
}

func customTag(m *tagv3.CustomTag, path string) (*tracing.Tag, error) {
	out := &tracing.Tag{Name: m.GetTag()}
	switch m.GetValueType() {
	case tagv3.CustomTag_UNSPECIFIED, tagv3.CustomTag_STRING:
	case tagv3.CustomTag_INT:
		out.Type = tracing.IntTag
	case tagv3.CustomTag_DOUBLE:
		out.Type = tracing.DoubleTag
	case tagv3.CustomTag_BOOL:
		out.Type = tracing.BoolTag
	default:
		return nil, fail(path+".value_type", "unknown value %d", m.GetValueType())
	}
	switch t := m.GetType().(type) {
	case *tagv3.CustomTag_Literal_:
		out.Literal, out.Value = true, t.Literal.GetValue()
	case *tagv3.CustomTag_Environment_:
		out.Literal = true
		var set bool
		if out.Value, set = os.LookupEnv(t.Environment.GetName()); !set {
			out.Value = t.Environment.GetDefaultValue()
		}
	case *tagv3.CustomTag_RequestHeader:
		out.Header, out.Default = strings.ToLower(t.RequestHeader.GetName()), t.RequestHeader.GetDefaultValue()
	case *tagv3.CustomTag_Value:
		out.Value = t.Value
	case *tagv3.CustomTag_Metadata_:
		var err error
		out.Default, out.Metadata = t.Metadata.GetDefaultValue(), true
		out.Value, err = metadataTag(t.Metadata, path+".metadata")
		return out, err
	default:
		return nil, fail(path, "has no value")
	}
	return out, nil
}

// metadataTag is the operator that has a tag's value.
func metadataTag(m *tagv3.CustomTag_Metadata, path string) (string, error) {
	words := []string{"", m.GetMetadataKey().GetKey()}
	switch m.GetKind().GetKind().(type) {
	case *metadatav3.MetadataKind_Request_:
		words[0] = logformat.MetadataDynamic
	case *metadatav3.MetadataKind_Route_:
		words[0] = logformat.MetadataRoute
	case *metadatav3.MetadataKind_Cluster_:
		words[0] = logformat.MetadataCluster
	case *metadatav3.MetadataKind_Host_:
		words[0] = logformat.MetadataHost
	default:
		return "", fail(path+".kind", "is missing")
	}
	if m.GetMetadataKey() == nil {
		return "", fail(path+".metadata_key", "is missing")
	}
	if words[0] == logformat.MetadataDynamic && !logformat.ShowsMetadata(words[1], false) {
		return "", fail(path+".metadata_key.key", "requests have metadata of %s alone", logformat.MetadataRBAC)
	}
	for _, p := range m.GetMetadataKey().GetPath() {
		words = append(words, p.GetKey())
	}
	for _, w := range words {
		if strings.ContainsAny(w, ":()%") {
			return "", fail(path+".metadata_key", "%q has one of the characters :()%%", w)
		}
	}
	value := "%METADATA(" + strings.Join(words, ":") + ")%"
	if _, err := logformat.MetadataOf("METADATA", strings.Join(words, ":")); err != nil {
		return "", fail(path, "%v", err)
	}
	return value, nil
}

func (d *decoder) tracer(m *tracev3.Tracing_Http, c *tracing.Config, path string) (err error) {
	if m == nil {
		d.runtime.defaultTracer(c)
		return nil
	}
	here := path + ".typed_config"
	switch t := d.unpacked[m.GetTypedConfig()].(type) {
	case *tracev3.OpenTelemetryConfig:
		return d.openTelemetry(t, &c.Provider, here)
	case *tracev3.ZipkinConfig:
		return zipkin(t, c, here)
	}
	return fail(path, "tracer %q has no typed_config", m.GetName())
}

// bootstrapTracer reads the tracer of managers that name none.
func (d *decoder) bootstrapTracer(m *tracev3.Tracing) error {
	if m.GetHttp() == nil {
		return nil
	}
	c := &tracing.Config{MaxPath: tracing.DefaultMaxPath}
	const path = "tracing.http"
	if err := d.tracer(m.GetHttp(), c, path); err != nil {
		return err
	}
	if err := c.Check(); err != nil {
		return fail(path, "%v", err)
	}
	d.runtime.tracer = c
	return nil
}

const (
	spansMethod    = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
	maxCachedSpans = 1 << 20
)

func (d *decoder) openTelemetry(m *tracev3.OpenTelemetryConfig, out *tracing.Provider, path string) (err error) {
	out.Service = m.GetServiceName()
	off := func(b interface{ GetValue() bool }, set bool) bool { return set && !b.GetValue() }
	out.NoSDK = off(m.GetSetTelemetrySdkResourceAttributes(), m.GetSetTelemetrySdkResourceAttributes() != nil)
	out.NoService = off(m.GetSetServiceNameResourceAttribute(), m.GetSetServiceNameResourceAttribute() != nil)
	out.NoScope = off(m.GetSetInstrumentationScope(), m.GetSetInstrumentationScope() != nil)
	if s := m.GetSampler(); s != nil {
		if _, out.AlwaysOn = d.unpacked[s.GetTypedConfig()].(*samplersv3.AlwaysOnSamplerConfig); !out.AlwaysOn {
			return fail(path+".sampler", "%q is no sampler that is implemented; use AlwaysOnSamplerConfig, or client_sampling, random_sampling and overall_sampling", s.GetName())
		}
	}
	if n := m.GetMaxCacheSize(); n != nil {
		if n.GetValue() < 1 || n.GetValue() > maxCachedSpans {
			return fail(path+".max_cache_size", "is not from 1 to %d", maxCachedSpans)
		}
		out.MaxSpans = int(n.GetValue())
	}
	switch {
	case m.GetGrpcService() != nil && m.GetHttpService() != nil:
		return fail(path+".http_service", "cannot be used together with grpc_service")
	case m.GetGrpcService() != nil:
		out.Collector, err = grpcCollector(m.GetGrpcService(), spansMethod, path+".grpc_service")
	case m.GetHttpService() != nil:
		out.Collector, err = httpCollector(m.GetHttpService(), path+".http_service")
	}
	return err
}

func zipkin(m *tracev3.ZipkinConfig, c *tracing.Config, path string) (err error) {
	out := &c.Provider
	out.Zipkin = &tracing.Zipkin{Wide: m.GetTraceId_128Bit(), Shared: true}
	if s := m.GetSharedSpanContext(); s != nil {
		out.Zipkin.Shared = s.GetValue()
	}
	switch m.GetTraceContextOption() {
	case tracev3.ZipkinConfig_USE_B3:
	case tracev3.ZipkinConfig_USE_B3_WITH_W3C_PROPAGATION:
		out.Zipkin.W3C = true
	default:
		return fail(path+".trace_context_option", "unknown value %d", m.GetTraceContextOption())
	}
	if v := m.GetCollectorEndpointVersion(); v != tracev3.ZipkinConfig_HTTP_JSON {
		return fail(path+".collector_endpoint_version", "is %s; use HTTP_JSON", v)
	}
	// Split spans are what spawn_upstream_span makes, by its old name.
	c.SpawnUpstream = c.SpawnUpstream || m.GetSplitSpansForRequest()
	if s := m.GetCollectorService(); s != nil {
		out.Collector, err = httpCollector(s, path+".collector_service")
		return err
	}
	out.Collector = &tracing.Collector{Cluster: m.GetCollectorCluster(), Authority: m.GetCollectorHostname(), Path: m.GetCollectorEndpoint()}
	switch {
	case out.Collector.Cluster == "":
		return fail(path+".collector_cluster", collectorAbsent)
	case !strings.HasPrefix(out.Collector.Path, "/"):
		return fail(path+".collector_endpoint", "%q is no path", out.Collector.Path)
	}
	return nil
}

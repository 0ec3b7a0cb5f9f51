package render

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tracev3 "github.com/envoyproxy/go-control-plane/envoy/config/trace/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tagv3 "github.com/envoyproxy/go-control-plane/envoy/type/tracing/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/catalog/opaque"
	"github.com/hauberk-mesh/hauberk/controlplane/compile"
	"github.com/hauberk-mesh/hauberk/xds/names"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

const (
	otlpTracer   = "envoy.tracers.opentelemetry"
	zipkinTracer = "envoy.tracers.zipkin"

	// collectorTimeout bounds one request to a collector.
	collectorTimeout = 5 * time.Second

	// The identities of both ends of a call are tags of its spans, under Istio's names.
	sourceTag, destinationTag = "source.principal", "destination.principal"
)

// Tracing is how a workload traces. The zero value is not at all. It is comparable,
// and two that are equal are rendered alike.
type Tracing struct {
	settings *opaque.Tracing
	// cluster is the collector's, authority the name it is called by.
	cluster, authority string
	grpc               bool
	// behind are the services that spans may end at, each between commas.
	behind string
}

// TracingOf reads what proxy-defaults and a registration say of tracing; nil is that
// nothing is traced.
func TracingOf(env *Environment, client Client, inst *catalog.Instance) (*opaque.Tracing, []Problem) {
	var central map[string]any
	if env.proxyDefaults != nil {
		central = env.proxyDefaults.Config
	}
	// What is wrong with a key is reported with the rest of the workload's Config.
	p, _ := opaque.ReadProxy(opaque.Merge(central, inst.Proxy.Config))
	t := p.Tracing
	if t == nil || t.Disabled {
		return nil, nil
	}
	where := inst.ID + " Proxy.Config."
	if bad := t.Check(); bad != nil {
		return nil, []Problem{{Path: where + bad.Key, Reason: bad.Reason + "; nothing is traced"}}
	}
	if !client.Can(names.CapTracing) {
		reason := "this sidecar takes no tracing from the control plane, so nothing is traced; upgrade it"
		if client.Dialect == Envoy {
			reason = fmt.Sprintf("tracing needs Envoy 1.%d or newer, so nothing is traced; upgrade it", TracingEnvoy)
		}
		return nil, []Problem{{Path: where + opaque.TracingKey, Reason: reason}}
	}
	for _, k := range sortedKeys(t.Tags) {
		if err := checkTag(k, t.Tags[k]); err != nil {
			return nil, []Problem{{Path: where + opaque.TracingKey + ".tags." + k, Reason: err.Error() + "; nothing is traced"}}
		}
	}
	if client.Dialect == Envoy {
		if why := envoyMayRefuse(t); why != "" {
			return nil, []Problem{{Path: where + opaque.TracingKey, Reason: why + "; nothing is traced"}}
		}
		return t, withoutUnknown(t.Tags, where+opaque.TracingKey+".tags.")
	}
	return t, nil
}

// envoyMayRefuse tells why an Envoy may refuse the collector's cluster. With Zipkin it then
// refuses the listener too, and with it the next change of authorization.
func envoyMayRefuse(t *opaque.Tracing) string {
	c := t.Collector()
	switch {
	case c.Service != "" || c.Insecure:
		return ""
	case t.Zipkin != nil:
		return "an Envoy that cannot read ca_file refuses the listener with the collector; use otlp, or a service of the mesh"
	case c.CAFile == "":
		return "an Envoy does not verify a collector by the host's roots; set ca_file, or use a service of the mesh"
	}
	return ""
}

// To is how calls of a service are traced: those of the collector are not.
func (t Tracing) To(service catalog.Name) Tracing {
	if strings.Contains(t.behind, ","+service.Service+",") {
		return Tracing{}
	}
	return t
}

// EndsAt tells whether spans may be delivered to a service.
func EndsAt(compiled *compile.Chain, service string) bool {
	return strings.Contains(behind(compiled), ","+service+",")
}

// behind names the collector's service and all that its resolver may lead to.
func behind(compiled *compile.Chain) string {
	names := []string{compiled.Service.Service}
	for _, t := range compiled.Targets {
		names = append(names, t.Service.Service)
	}
	slices.Sort(names)
	return "," + strings.Join(slices.Compact(names), ",") + ","
}

// refs are the resources that a listener with this tracing names.
func (t Tracing) refs() []resource.Ref {
	if t.settings == nil {
		return nil
	}
	return []resource.Ref{{Type: resource.ClusterType, Name: t.cluster}}
}

// checkTag refuses the tags that a sidecar would: with its listener refused, later
// changes of authorization would not reach it.
func checkTag(name, value string) error {
	if name == sourceTag || name == destinationTag || slices.Contains(names.SpanTags, name) {
		return fmt.Errorf("every span has a tag of this name; choose another")
	}
	operators, err := operatorsOf(value)
	if slices.Contains(operators, "ENVIRONMENT") {
		return fmt.Errorf("%%ENVIRONMENT%% would send the proxy's environment, and the secrets in it, to the collector; remove it")
	}
	return err
}

// AtAddress is tracing to a collector outside the mesh, in the cluster of its address.
func AtAddress(t *opaque.Tracing) Tracing {
	c := t.Collector()
	return Tracing{settings: t, cluster: collectorName(t), authority: hostPortOf(c), grpc: t.GRPC("")}
}

// AtService is tracing to a collector that is a service of the mesh, or why it cannot
// take spans. compiled is the service's chain and chain what was rendered of it for
// this workload alone: spans have no listener whose identity they could go under.
func AtService(t *opaque.Tracing, compiled *compile.Chain, chain *Chain) (Tracing, error) {
	service := t.Collector().Service
	switch protocol := compiled.Protocol; {
	case !compile.IsHTTP(protocol):
		return Tracing{}, fmt.Errorf("%s is %s; set Protocol in service-defaults/%s: grpc for OTLP over gRPC, otherwise http", service, protocol, service)
	case t.Zipkin != nil && protocol == "grpc":
		return Tracing{}, fmt.Errorf("%s is grpc and Zipkin's spans are posted over http; set Protocol in service-defaults/%s, or use otlp", service, service)
	case chain.Withheld != "":
		return Tracing{}, fmt.Errorf("%s", chain.Withheld)
	case chain.Only == "":
		return Tracing{}, fmt.Errorf("spans take no route: %s has a service-router or service-splitter; name a service that has a service-resolver at most", service)
	}
	return Tracing{settings: t, cluster: chain.Only, authority: service, grpc: t.GRPC(compiled.Protocol), behind: behind(compiled)}, nil
}

// direction is what the spans of a listener say of themselves.
type direction struct {
	// service reports the span, called is the one whose name the span has.
	service, called     string
	source, destination *tagv3.CustomTag
}

func (t Tracing) inbound(service, id string) (*hcmv3.HttpConnectionManager_Tracing, error) {
	return t.manager(direction{service: service, called: service,
		source: tagOf(sourceTag, "%DOWNSTREAM_PEER_URI_SAN%"), destination: literalTag(destinationTag, id)})
}

func (t Tracing) outbound(service, id, upstream string) (*hcmv3.HttpConnectionManager_Tracing, error) {
	return t.manager(direction{service: service, called: upstream,
		source: literalTag(sourceTag, id), destination: tagOf(destinationTag, "%UPSTREAM_PEER_URI_SAN%")})
}

// manager is what a connection manager traces: one span a request, so that a call has
// the caller's and the called one's.
func (t Tracing) manager(d direction) (*hcmv3.HttpConnectionManager_Tracing, error) {
	if t.settings == nil {
		return nil, nil
	}
	out := &hcmv3.HttpConnectionManager_Tracing{
		ClientSampling:    &typev3.Percent{Value: 100},
		RandomSampling:    &typev3.Percent{Value: float64(t.settings.Sampling) / 100},
		OverallSampling:   &typev3.Percent{Value: 100},
		SpawnUpstreamSpan: wrapperspb.Bool(false),
		CustomTags:        []*tagv3.CustomTag{d.source, d.destination},
		// What an application calls its upstream is an address on loopback.
		Operation: "%REQ(:METHOD)% " + d.called,
	}
	for _, k := range sortedKeys(t.settings.Tags) {
		out.CustomTags = append(out.CustomTags, tagOf(k, t.settings.Tags[k]))
	}
	name, config := otlpTracer, t.otlp(d.service)
	if t.settings.Zipkin != nil {
		name, config = zipkinTracer, t.zipkin()
	}
	any, err := toAny(config)
	if err != nil {
		return nil, err
	}
	out.Provider = &tracev3.Tracing_Http{Name: name, ConfigType: &tracev3.Tracing_Http_TypedConfig{TypedConfig: any}}
	return out, nil
}

// Valid renders the tracing once, so that what cannot be rendered costs spans and not
// the listeners that would have carried it.
func (t Tracing) Valid() error {
	m, err := t.outbound("service", "spiffe://mesh/service", "upstream")
	if err != nil || m == nil {
		return err
	}
	return m.ValidateAll()
}

func (t Tracing) otlp(service string) proto.Message {
	out := &tracev3.OpenTelemetryConfig{ServiceName: service}
	if t.grpc {
		out.GrpcService = &corev3.GrpcService{Timeout: duration(collectorTimeout), TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
			EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: t.cluster, Authority: t.authority}}}
	} else {
		out.HttpService = t.http()
	}
	return out
}

func (t Tracing) zipkin() proto.Message {
	return &tracev3.ZipkinConfig{
		CollectorCluster:         t.cluster,
		CollectorHostname:        t.authority,
		CollectorEndpoint:        t.settings.Zipkin.Path,
		CollectorEndpointVersion: tracev3.ZipkinConfig_HTTP_JSON,
		// As in W3C's model, each end of a call has a span of its own.
		TraceId_128Bit:     true,
		SharedSpanContext:  wrapperspb.Bool(false),
		TraceContextOption: tracev3.ZipkinConfig_USE_B3_WITH_W3C_PROPAGATION,
	}
}

func (t Tracing) http() *corev3.HttpService {
	return &corev3.HttpService{HttpUri: &corev3.HttpUri{
		Uri:              "http://" + t.authority + t.settings.Collector().Path,
		HttpUpstreamType: &corev3.HttpUri_Cluster{Cluster: t.cluster},
		Timeout:          duration(collectorTimeout),
	}}
}

// tagOf is a tag whose value is a text with operators.
func tagOf(name, value string) *tagv3.CustomTag {
	return &tagv3.CustomTag{Tag: name, Type: &tagv3.CustomTag_Value{Value: value}}
}

func literalTag(name, value string) *tagv3.CustomTag {
	return &tagv3.CustomTag{Tag: name, Type: &tagv3.CustomTag_Literal_{Literal: &tagv3.CustomTag_Literal{Value: value}}}
}

func hostPortOf(c *opaque.Collector) string {
	host := c.Host
	if a, err := netip.ParseAddr(host); err == nil && a.Is6() {
		host = "[" + host + "]"
	}
	return fmt.Sprintf("%s:%d", host, c.Port)
}

// collectorName says all that the cluster of a collector at an address is made of, so that
// two that differ have two.
func collectorName(t *opaque.Tracing) string {
	c, protocol := t.Collector(), "http"
	if t.GRPC("") {
		protocol = "grpc"
	}
	parts := []string{"collector", hostPortOf(c), protocol}
	if c.Insecure {
		return strings.Join(append(parts, "insecure"), ":")
	}
	if c.ServerName != "" {
		parts = append(parts, "server_name="+strconv.Quote(c.ServerName))
	}
	if c.CAFile != "" {
		parts = append(parts, "ca_file="+strconv.Quote(c.CAFile))
	}
	return strings.Join(parts, ":")
}

package render

import (
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	connectionlimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/connection_limit/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	networkrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	tlsInspectorFilter    = "envoy.filters.listener.tls_inspector"
	networkRBACFilter     = "envoy.filters.network.rbac"
	httpRBACFilter        = "envoy.filters.http.rbac"
	routerFilter          = "envoy.filters.http.router"
	hcmFilter             = "envoy.filters.network.http_connection_manager"
	tcpProxyFilter        = "envoy.filters.network.tcp_proxy"
	connectionLimitFilter = "envoy.filters.network.connection_limit"

	// inspectTimeout bounds the wait for a ClientHello, headersTimeout that for
	// a request's headers: a peer that sends nothing holds a connection no
	// longer.
	inspectTimeout    = 15 * time.Second
	headersTimeout    = 15 * time.Second
	idleConnection    = time.Hour
	drainConnection   = time.Second
	tcpConnectTries   = 3
	maxRequestHeaders = 60 // KiB, Envoy's default
)

func networkFilter(name string, m proto.Message) (*listenerv3.Filter, error) {
	any, err := toAny(m)
	if err != nil {
		return nil, err
	}
	return &listenerv3.Filter{Name: name, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: any}}, nil
}

func httpFilter(name string, m proto.Message) (*hcmv3.HttpFilter, error) {
	any, err := toAny(m)
	if err != nil {
		return nil, err
	}
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: any}}, nil
}

var tlsInspector = &listenerv3.ListenerFilter{
	Name:       tlsInspectorFilter,
	ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: mustAny(&tlsinspectorv3.TlsInspector{})},
}

// both runs f for the deny filter and then the allow filter, where rendered.
func (r *Rules) both(f func(stat string, rules *rbacconfigv3.RBAC) error) error {
	if r == nil {
		return nil
	}
	if r.Deny != nil {
		if err := f("intentions_deny", r.Deny); err != nil {
			return err
		}
	}
	if r.Allow != nil {
		return f("intentions_allow", r.Allow)
	}
	return nil
}

func networkRBAC(rules *Rules) ([]*listenerv3.Filter, error) {
	var out []*listenerv3.Filter
	err := rules.both(func(stat string, r *rbacconfigv3.RBAC) error {
		f, err := networkFilter(networkRBACFilter, &networkrbacv3.RBAC{StatPrefix: stat, Rules: r})
		out = append(out, f)
		return err
	})
	return out, err
}

func httpRBAC(rules *Rules) ([]*hcmv3.HttpFilter, error) {
	var out []*hcmv3.HttpFilter
	err := rules.both(func(stat string, r *rbacconfigv3.RBAC) error {
		f, err := httpFilter(httpRBACFilter, &httprbacv3.RBAC{Rules: r})
		out = append(out, f)
		return err
	})
	return out, err
}

// connectionLimit refuses connections above a number while they are open.
func connectionLimit(stat string, n int) (*listenerv3.Filter, error) {
	return networkFilter(connectionLimitFilter, &connectionlimitv3.ConnectionLimit{
		StatPrefix:     stat,
		MaxConnections: wrapperspb.UInt64(uint64(n)),
	})
}

// manager is what the two directions of HTTP connection managers differ in.
type manager struct {
	stat         string
	routeName    string                      // RDS, or
	routes       *routev3.RouteConfiguration // inline
	filters      []*hcmv3.HttpFilter
	logs         []*accesslogv3.AccessLog
	maxHeadersKB int
	forward      hcmv3.HttpConnectionManager_ForwardClientCertDetails
	forwardURI   bool
	http2        *corev3.Http2ProtocolOptions // nil where the client neither speaks it nor switches protocols
	tracing      *hcmv3.HttpConnectionManager_Tracing
}

func (e *Environment) httpManager(m manager) (*listenerv3.Filter, error) {
	router, err := httpFilter(routerFilter, &routerv3.Router{})
	if err != nil {
		return nil, err
	}
	if m.maxHeadersKB == 0 {
		m.maxHeadersKB = maxRequestHeaders
	}
	out := &hcmv3.HttpConnectionManager{
		StatPrefix:  m.stat,
		HttpFilters: append(m.filters, router),
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{
			IdleTimeout:                  duration(idleConnection),
			HeadersWithUnderscoresAction: e.http.underscores,
		},
		StreamIdleTimeout:     duration(streamIdleTimeout),
		RequestHeadersTimeout: duration(headersTimeout),
		MaxRequestHeadersKb:   u32(m.maxHeadersKB),
		AccessLog:             m.logs,
		// A sidecar is no edge: addresses and ids that peers set are kept.
		UseRemoteAddress:             wrapperspb.Bool(false),
		SkipXffAppend:                true,
		GenerateRequestId:            wrapperspb.Bool(true),
		ServerHeaderTransformation:   hcmv3.HttpConnectionManager_PASS_THROUGH,
		NormalizePath:                wrapperspb.Bool(e.http.normalizePath),
		MergeSlashes:                 e.http.mergeSlashes,
		PathWithEscapedSlashesAction: e.http.escapedSlashes,
		ForwardClientCertDetails:     m.forward,
		Tracing:                      m.tracing,
	}
	if m.forwardURI {
		out.SetCurrentClientCertDetails = &hcmv3.HttpConnectionManager_SetCurrentClientCertDetails{Uri: true}
	}
	if m.http2 != nil {
		// What came with HTTP/2; a sidecar without it does these things unasked.
		out.DrainTimeout = duration(drainConnection)
		out.Proxy_100Continue = true
		out.HttpProtocolOptions = &corev3.Http1ProtocolOptions{EnableTrailers: true, AllowCustomMethods: true}
		out.Http2ProtocolOptions = m.http2
		out.UpgradeConfigs = []*hcmv3.HttpConnectionManager_UpgradeConfig{{UpgradeType: "websocket"}}
	}
	if m.routes != nil {
		out.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: m.routes}
	} else {
		out.RouteSpecifier = &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{ConfigSource: adsSource(), RouteConfigName: m.routeName}}
	}
	return networkFilter(hcmFilter, out)
}

// relay is what the two directions of TCP proxies differ in.
type relay struct {
	stat       string
	legs       []Leg
	logs       []*accesslogv3.AccessLog
	tries      int
	idle       time.Duration
	hashSource bool
}

// tcpProxy relays to one cluster, or to weighted ones.
func tcpProxy(r relay) (*listenerv3.Filter, error) {
	out := &tcpproxyv3.TcpProxy{
		StatPrefix:         r.stat,
		AccessLog:          r.logs,
		IdleTimeout:        duration(r.idle),
		MaxConnectAttempts: u32(r.tries),
	}
	if r.hashSource {
		out.HashPolicy = []*typev3.HashPolicy{{PolicySpecifier: &typev3.HashPolicy_SourceIp_{SourceIp: &typev3.HashPolicy_SourceIp{}}}}
	}
	if len(r.legs) == 1 {
		out.ClusterSpecifier = &tcpproxyv3.TcpProxy_Cluster{Cluster: r.legs[0].Cluster}
	} else {
		w := &tcpproxyv3.TcpProxy_WeightedCluster{}
		for _, l := range r.legs {
			w.Clusters = append(w.Clusters, &tcpproxyv3.TcpProxy_WeightedCluster_ClusterWeight{Name: l.Cluster, Weight: l.Weight})
		}
		out.ClusterSpecifier = &tcpproxyv3.TcpProxy_WeightedClusters{WeightedClusters: w}
	}
	return networkFilter(tcpProxyFilter, out)
}

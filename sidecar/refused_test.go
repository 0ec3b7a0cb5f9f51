package sidecar

import (
	"log/slog"
	"strings"
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	bufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/buffer/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/hauberk-mesh/hauberk/sidecar/config"
	"github.com/hauberk-mesh/hauberk/sidecar/hcm"
	"github.com/hauberk-mesh/hauberk/sidecar/listener"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/tcp"
	"github.com/hauberk-mesh/hauberk/xds/client"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// idle is a sidecar that has been told nothing yet.
func idle(t *testing.T) *Sidecar {
	t.Helper()
	b, err := config.ParseBootstrap([]byte("static_resources: {}\n"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Build(Config{Bootstrap: b, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// TestRefusedRoutes: a listener whose routes cannot be served is refused by the path of
// what is wrong, by a control plane's update as in a bootstrap; the one in force stays.
func TestRefusedRoutes(t *testing.T) {
	s := idle(t)
	host := func(name, domain string) *routev3.VirtualHost {
		return &routev3.VirtualHost{Name: name, Domains: []string{domain}, Routes: []*routev3.Route{{
			Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
			Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: 200}}}}}
	}
	apply := func(hosts ...*routev3.VirtualHost) error {
		filter := func(name string, typed *anypb.Any) *hcmv3.HttpFilter {
			return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: typed}}
		}
		manager := &hcmv3.HttpConnectionManager{
			StatPrefix:     "x",
			RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{Name: "r", VirtualHosts: hosts}},
			HttpFilters:    []*hcmv3.HttpFilter{filter("f", anyOf(t, &faultv3.HTTPFault{})), filter("router", anyOf(t, &routerv3.Router{}))},
		}
		l := &listenerv3.Listener{Name: "in", Address: address(0), FilterChains: []*listenerv3.FilterChain{{
			Filters: []*listenerv3.Filter{{Name: "hcm", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: anyOf(t, manager)}}}}}}
		return s.state.Apply(client.Update{Type: resource.ListenerType, Upserts: []*resource.Resource{res(t, "in", l)}})["in"]
	}
	if err := apply(host("good", "*")); err != nil {
		t.Fatal(err)
	}
	good := s.listeners.Configs()[0]
	misfit := host("a", "x")
	misfit.Routes[0].TypedPerFilterConfig = map[string]*anypb.Any{"f": anyOf(t, &bufferv3.BufferPerRoute{
		Override: &bufferv3.BufferPerRoute_Buffer{Buffer: &bufferv3.Buffer{MaxRequestBytes: wrapperspb.UInt32(1)}}})}
	for want, hosts := range map[string][]*routev3.VirtualHost{
		`route_config: virtual_hosts[1].domains[0]: domain "x" is in more than one place`: {host("a", "x"), host("b", "x")},
		`route_config.virtual_hosts[0].routes[0].typed_per_filter_config["f"]: fault:`:    {misfit},
	} {
		if err := apply(hosts...); err == nil || !strings.Contains(err.Error(), `listener "in": filter_chains[0].filters[0].typed_config`) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
		if now := s.listeners.Configs(); len(now) != 1 || now[0] != good {
			t.Error("the listener in force did not stay")
		}
	}
}

// TestNoHandlerWithAnError: what only shows when the handler of a chain is built is an
// error of its listener too, and not the end of the process.
func TestNoHandlerWithAnError(t *testing.T) {
	s := idle(t)
	host := route.VirtualHost{Domains: []string{"x"}}
	for name, chain := range map[string]listener.FilterChain{
		"http": {HTTP: &hcm.Config{Routes: &route.Config{VirtualHosts: []route.VirtualHost{host, host}}}},
		"tcp":  {TCP: &tcp.Config{}},
	} {
		err := s.listeners.Apply(&listener.Config{Name: name, Network: "tcp", Address: "127.0.0.1:0", Chains: []listener.FilterChain{chain}})
		if err == nil || !strings.Contains(err.Error(), "listener "+name+": filter chain filter_chains[0]: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

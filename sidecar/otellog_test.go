package sidecar

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	otelv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/open_telemetry/v3"
	collectorv1 "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	"google.golang.org/protobuf/proto"

	"github.com/hauberk-mesh/hauberk/sidecar/config"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// TestExportedRecordsAtTheEnd: what waits when a sidecar ends is sent, the record of the
// admin listener too, and says whose it is.
func TestExportedRecordsAtTheEnd(t *testing.T) {
	got := make(chan *collectorv1.ExportLogsServiceRequest, 10)
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		in := &collectorv1.ExportLogsServiceRequest{}
		if err := proto.Unmarshal(b, in); err != nil {
			t.Error(err)
		}
		got <- in
	}))
	defer collector.Close()
	const log = `access_log: [{name: o, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig, stat_prefix: p, buffer_flush_interval: 3600s, http_service: {http_uri: {uri: "http://c/v1/logs", cluster: c, timeout: 5s}}, body: {string_value: "%REQ(:PATH)%"}}}]`
	b, err := config.ParseBootstrap([]byte(`
node: {id: n1, cluster: k1, locality: {zone: z1}}
admin: {` + log + `}
static_resources:
  clusters:
  - {name: c, load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: [` + endpoint(collector.Listener.Addr()) + `]}]}}
  listeners:
  - name: l
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: x
          ` + log + `
          http_filters: [{name: r, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
          route_config: {virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {prefix: /}, direct_response: {status: 200}}]}]}
`))
	if err != nil {
		t.Fatal(err)
	}
	if err := Check(b); err != nil {
		t.Error(err)
	}
	s, err := Build(Config{Bootstrap: b, Admin: "127.0.0.1:0", DrainTime: time.Second, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	page(t, s, "/certs")
	call(t, "GET", s.Addrs().Listeners["l"], "/request", "")
	stop()
	if err := errors.Join(<-done, s.Close()); err != nil {
		t.Error(err)
	}
	close(got)
	var paths []string
	for in := range got {
		for _, of := range in.ResourceLogs {
			if a := of.Resource.Attributes; len(a) != 4 || a[1].Value.GetStringValue() != "z1" || a[2].Value.GetStringValue() != "k1" || a[3].Value.GetStringValue() != "n1" {
				t.Error(a)
			}
			for _, r := range of.ScopeLogs[0].LogRecords {
				paths = append(paths, r.Body.GetStringValue())
			}
		}
	}
	if all := strings.Join(paths, " "); len(paths) != 2 || !strings.Contains(all, "/request") || !strings.Contains(all, "/certs") {
		t.Error(paths)
	}
	if n := s.metrics.LogRecords.With("p", "written").Value(); n != 2 {
		t.Errorf("%d records are written", n)
	}
}

// A cluster that only an access log names stays until the listener goes.
func TestRemovedCollectorStaysWhileNamed(t *testing.T) {
	r := newRig(t)
	log := &otelv3.OpenTelemetryAccessLogConfig{GrpcService: &corev3.GrpcService{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: "collector"}}}}
	logged := &listenerv3.Listener{}
	if err := tcpListener(t, "l", "c", corev3.TrafficDirection_OUTBOUND).Body.UnmarshalTo(logged); err != nil {
		t.Fatal(err)
	}
	logged.AccessLog = []*accesslogv3.AccessLog{{Name: "o", ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: anyOf(t, log)}}}
	r.put(t, edsCluster(t, "c"), assignment(t, "c", 80), edsCluster(t, "collector"), assignment(t, "collector", 81), res(t, "l", logged))
	if r.active() != "l" {
		t.Fatalf("in force: %s", r.active())
	}
	r.remove(resource.ClusterType, "collector")
	if r.clusters.Get("collector") == nil {
		t.Error("the cluster went before the listener that logs to it")
	}
	r.remove(resource.ListenerType, "l")
	if r.clusters.Get("collector") != nil {
		t.Error("the cluster stayed after nothing named it")
	}
}

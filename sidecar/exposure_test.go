package sidecar

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/config"
	"github.com/hauberk-mesh/hauberk/sidecar/hcm"
	"github.com/hauberk-mesh/hauberk/sidecar/listener"
	"github.com/hauberk-mesh/hauberk/sidecar/otellog"
	"github.com/hauberk-mesh/hauberk/sidecar/otlp"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
	"github.com/hauberk-mesh/hauberk/sidecar/tracing"
)

func TestParseSockets(t *testing.T) {
	const text = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   2: 0100007F:1F91 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   3: 00000000000000000000000001000000:0051 00000000000000000000000000000000:0000 0A 0 0 0 0 0 0
   4: 0000000000000000FFFF00000100007F:0052 00000000000000000000000000000000:0000 0A 0 0 0 0 0 0
   5: zz:0050 00000000:0000 0A
   6: 01:0050 00000000:0000 0A
`
	got, err := parseSockets(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"127.0.0.1:8080", "0.0.0.0:80", "[::1]:81", "127.0.0.1:82"}
	var have []string
	for _, a := range got {
		have = append(have, a.String())
	}
	if !slices.Equal(have, want) {
		t.Errorf("got %v, want %v", have, want)
	}
}

func TestListeningFindsThisProcess(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	all, err := listening()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) > 0 && !slices.Contains(all, ln.Addr().(*net.TCPAddr).AddrPort()) {
		t.Errorf("%v is not among %v", ln.Addr(), all)
	}
}

func FuzzParseSockets(f *testing.F) {
	f.Add("0: 0100007F:1F90 0:0 0A")
	f.Fuzz(func(t *testing.T, s string) {
		all, err := parseSockets(strings.NewReader(s))
		for _, a := range all {
			if err == nil && a == (netip.AddrPort{}) {
				t.Error("an address that is none")
			}
		}
	})
}

// An application is found beside the collectors of its spans and of its access log.
func TestApplicationsBesideCollectors(t *testing.T) {
	const id = "spiffe://td/ns/default/dc/dc1/svc/api"
	collector := &otlp.Collector{Cluster: "collector"}
	proxy := &hcm.Config{
		Routes:    &route.Config{VirtualHosts: []route.VirtualHost{{Routes: []route.Route{{Forward: &route.Forward{Cluster: "app"}}}}}},
		Tracing:   &tracing.Config{Provider: tracing.Provider{Collector: collector}},
		AccessLog: []telemetry.AccessLogConfig{{Export: &otellog.Config{Collector: collector}}},
	}
	app := &cluster.Config{Name: "app", Endpoints: &cluster.Assignment{Localities: []cluster.Locality{{Endpoints: []cluster.Endpoint{{Host: "127.0.0.1", Port: 80}}}}}}
	s := &state{
		inForce:        map[string]*listener.Config{"in": {Workload: id, Direction: listener.Inbound, Chains: []listener.FilterChain{{HTTP: proxy}}}},
		clusterConfigs: map[string]*cluster.Config{"app": app},
	}
	if got := s.applications(); got[id] != netip.MustParseAddrPort("127.0.0.1:80") {
		t.Error(got)
	}
	if refs := config.ListenerRefs(s.inForce["in"]); !slices.Equal(refs.Collectors, []string{"collector"}) {
		t.Error(refs)
	}
}

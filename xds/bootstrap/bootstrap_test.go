package bootstrap

import (
	"flag"
	"net/netip"
	"os"
	"strings"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/testing/protocmp"
)

var update = flag.Bool("update", false, "rewrite golden files")

func full() Envoy {
	return Envoy{
		NodeID: "host-1", Cluster: "web", AgentSocket: "/run/hauberk/agent.sock",
		Workloads: []string{"web-1-sidecar-proxy"}, Metadata: map[string]any{"owner": "team-a"},
		Region: "eu", Zone: "eu-1", Admin: netip.MustParseAddrPort("127.0.0.1:15000"),
	}
}

func TestGolden(t *testing.T) {
	b, err := full().Proto()
	if err != nil {
		t.Fatal(err)
	}
	got, err := YAML(b)
	if err != nil {
		t.Fatal(err)
	}
	const file = "testdata/envoy.yaml"
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

func TestJSONReadsBackAsTheSame(t *testing.T) {
	b, err := full().Proto()
	if err != nil {
		t.Fatal(err)
	}
	j, err := JSON(b)
	if err != nil {
		t.Fatal(err)
	}
	var again bootstrapv3.Bootstrap
	if err := protojson.Unmarshal(j, &again); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(b, &again, protocmp.Transform()); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Envoy)
		want   string
	}{
		"no node":             {func(e *Envoy) { e.NodeID = "" }, "node id is empty"},
		"relative socket":     {func(e *Envoy) { e.AgentSocket = "agent.sock" }, "not an absolute path"},
		"long socket":         {func(e *Envoy) { e.AgentSocket = "/" + strings.Repeat("a", 107) }, "longer than the 107 bytes"},
		"public admin":        {func(e *Envoy) { e.Admin = netip.MustParseAddrPort("0.0.0.0:15000") }, "loopback"},
		"two admins":          {func(e *Envoy) { e.AdminSocket = "/run/a" }, "exclude each other"},
		"relative admin":      {func(e *Envoy) { e.Admin = netip.AddrPort{}; e.AdminSocket = "a" }, "not an absolute path"},
		"reserved metadata":   {func(e *Envoy) { e.Metadata = map[string]any{"hauberk.entitled": "x"} }, "reserved"},
		"unmarshalable value": {func(e *Envoy) { e.Metadata = map[string]any{"a": make(chan int)} }, "metadata"},
	} {
		t.Run(name, func(t *testing.T) {
			e := full()
			c.change(&e)
			_, err := e.Proto()
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one about %q", err, c.want)
			}
		})
	}
}

func TestVariants(t *testing.T) {
	e := full()
	e.SotW, e.Admin, e.AdminSocket, e.Cluster = true, netip.AddrPort{}, "/run/hauberk/admin.sock", ""
	b, err := e.Proto()
	if err != nil {
		t.Fatal(err)
	}
	if got := b.GetDynamicResources().GetAdsConfig().GetApiType().String(); got != "GRPC" {
		t.Errorf("api_type %s, want GRPC", got)
	}
	if p := b.GetAdmin().GetAddress().GetPipe(); p.GetPath() != "/run/hauberk/admin.sock" || p.GetMode() != 0o600 {
		t.Errorf("admin %v", p)
	}
	if b.GetNode().GetCluster() != "host-1" {
		t.Errorf("cluster %q, want the node's id", b.GetNode().GetCluster())
	}
}

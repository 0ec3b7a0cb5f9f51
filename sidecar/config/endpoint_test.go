package config

import (
	"strconv"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
)

// TestAssignmentPolicy reads what an assignment of EDS says beside its endpoints.
func TestAssignmentPolicy(t *testing.T) {
	type policy = endpointv3.ClusterLoadAssignment_Policy
	drop := func(n uint32, of typev3.FractionalPercent_DenominatorType) *policy {
		return &policy{DropOverloads: []*endpointv3.ClusterLoadAssignment_Policy_DropOverload{
			{Category: "c", DropPercentage: &typev3.FractionalPercent{Numerator: n, Denominator: of}},
		}}
	}
	for name, tc := range map[string]struct {
		policy *policy
		drop   uint32
		stale  time.Duration
		fails  string
	}{
		"nothing":       {},
		"a percentage":  {policy: drop(30, typev3.FractionalPercent_HUNDRED), drop: 300_000},
		"ten thousand":  {policy: drop(30, typev3.FractionalPercent_TEN_THOUSAND), drop: 3_000},
		"a million":     {policy: drop(30, typev3.FractionalPercent_MILLION), drop: 30},
		"all":           {policy: drop(100, typev3.FractionalPercent_HUNDRED), drop: 1_000_000},
		"none":          {policy: drop(0, typev3.FractionalPercent_HUNDRED)},
		"no percentage": {policy: &policy{DropOverloads: []*endpointv3.ClusterLoadAssignment_Policy_DropOverload{{Category: "c"}}}},
		"too many":      {policy: drop(101, typev3.FractionalPercent_HUNDRED), fails: `"c": policy.drop_overloads[0].drop_percentage.numerator: 101`},
		"stale":         {policy: &policy{EndpointStaleAfter: durationpb.New(90*time.Second + time.Microsecond)}, stale: 90 * time.Second},
		"stale never":   {policy: &policy{EndpointStaleAfter: &durationpb.Duration{Seconds: 315576000000}}, stale: never},
		"no duration":   {policy: &policy{EndpointStaleAfter: &durationpb.Duration{Seconds: 1, Nanos: -1}}, fails: "policy.endpoint_stale_after: "},
		"not stale":     {policy: &policy{EndpointStaleAfter: durationpb.New(999 * time.Microsecond)}},
		"at once":       {policy: &policy{EndpointStaleAfter: durationpb.New(0)}, fails: "policy.endpoint_stale_after: value must be greater than 0s"},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := proto.Marshal(&endpointv3.ClusterLoadAssignment{ClusterName: "c", Policy: tc.policy})
			if err != nil {
				t.Fatal(err)
			}
			a, err := Assignment(b)
			switch {
			case tc.fails != "":
				if err == nil || !strings.Contains(err.Error(), tc.fails) {
					t.Errorf("got %v", err)
				}
			case err != nil:
				t.Error(err)
			case a.DropPerMillion != tc.drop || a.StaleAfter != tc.stale:
				t.Errorf("drops %d, stale after %v", a.DropPerMillion, a.StaleAfter)
			}
		})
	}
}

// TestDropLimit reads the runtime's bound of what is dropped.
func TestDropLimit(t *testing.T) {
	for value, want := range map[string]string{
		"0": "0", "40": "40", "100": "100", `"25"`: "25", "101": "is no whole percentage from 0 to 100", "-1": "is no whole percentage", "0.5": "is no whole percentage", "x": "is not a number",
	} {
		out, err := ParseBootstrap([]byte("layered_runtime: {layers: [{name: s, static_layer: {load_balancing_policy: {drop_overload_limit: " + value + "}}}]}\n"))
		var got string
		switch {
		case err != nil:
			got = err.Error()
		case out.MostDropped == nil:
			got = "nothing"
		default:
			got = strconv.Itoa(int(*out.MostDropped))
		}
		if got != want && (err == nil || !strings.Contains(got, `layered_runtime.layers[0].static_layer["load_balancing_policy"]["drop_overload_limit"]: `+want)) {
			t.Errorf("%s: %s, want %s", value, got, want)
		}
	}
}

// TestExtensionsOfHosts: what is announced of one host is read, and what would not be is refused.
func TestExtensionsOfHosts(t *testing.T) {
	const namespace = "envoy.transport_sockets.proxy_protocol"
	read := func(m proto.Message) (*cluster.Endpoint, error) {
		packed, err := anypb.New(m)
		if err != nil {
			t.Fatal(err)
		}
		return (&decoder{}).endpoint(&endpointv3.LbEndpoint{
			Metadata:       &corev3.Metadata{TypedFilterMetadata: map[string]*anypb.Any{namespace: packed}},
			HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: "/s"}}}}},
		}, "e", false)
	}
	e, err := read(&corev3.PerHostConfig{AddedTlvs: []*corev3.TlvEntry{{Type: 0xd0, Value: []byte("a")}, {Type: 0xd0, Value: []byte("b")}}})
	if err != nil || e.Extensions.List() != "\xd0\x00\x01a\xd0\x00\x01b" {
		t.Errorf("%+v, %v", e, err)
	}
	for want, m := range map[string]proto.Message{
		"]: is no PerHostConfig":                     &corev3.TlvEntry{},
		"]: invalid ":                                &corev3.PerHostConfig{AddedTlvs: []*corev3.TlvEntry{{Type: 256, Value: []byte("a")}}},
		"].added_tlvs[0].format_string: unsupported": &corev3.PerHostConfig{AddedTlvs: []*corev3.TlvEntry{{Type: 1, Value: []byte("a"), FormatString: &corev3.SubstitutionFormatString{}}}},
		"].added_tlvs[0].value: is missing":          &corev3.PerHostConfig{AddedTlvs: []*corev3.TlvEntry{{Type: 1}}},
	} {
		if _, err := read(m); err == nil || !strings.HasPrefix(err.Error(), `e.metadata.typed_filter_metadata["`+namespace+`"`+want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

package resource

import (
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

func TestNameOfEveryType(t *testing.T) {
	for _, m := range []proto.Message{
		&clusterv3.Cluster{Name: "x", AltStatName: "y"},
		&endpointv3.ClusterLoadAssignment{ClusterName: "x", Endpoints: []*endpointv3.LocalityLbEndpoints{{Priority: 1}}},
		&listenerv3.Listener{Name: "x", StatPrefix: "y"},
		&routev3.RouteConfiguration{Name: "x", InternalOnlyHeaders: []string{"y"}},
		&tlsv3.Secret{Name: "x"},
	} {
		r, err := New("x", m)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := NameOf(r.Body); err != nil || got != "x" {
			t.Errorf("%T: %q, %v", m, got, err)
		}
		if again := Received("x", "", r.Body); again.Version != r.Version || again.Type != r.Type {
			t.Errorf("%T: received with version %s, made with %s", m, again.Version, r.Version)
		}
	}
}

func TestNameOfRefuses(t *testing.T) {
	for want, body := range map[string]*anypb.Any{
		"not a type the mesh uses": {TypeUrl: "type.googleapis.com/envoy.config.core.v3.Node", Value: []byte{10, 1, 'x'}},
		"has no name":              {TypeUrl: ClusterType},
		"unexpected EOF":           {TypeUrl: ClusterType, Value: []byte{10, 5, 'x'}},
	} {
		if name, err := NameOf(body); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q, %v; want an error about %q", name, err, want)
		}
	}
}

func TestNewRefusesWhatItsValidationRefuses(t *testing.T) {
	if _, err := New("", &clusterv3.Cluster{}); err == nil || !strings.Contains(err.Error(), "Name") {
		t.Errorf("%v", err)
	}
}

func TestSameContentSameVersion(t *testing.T) {
	make := func(v string) string {
		r, err := New("x", &clusterv3.Cluster{Name: "x", AltStatName: v})
		if err != nil {
			t.Fatal(err)
		}
		return r.Version
	}
	if first, again := make("1"), make("1"); first != again || first == make("2") {
		t.Error("the version is not the content's")
	}
}

// FuzzNameOf: the name read from the wire is the one protobuf reads.
func FuzzNameOf(f *testing.F) {
	f.Add([]byte{10, 1, 'x'})
	f.Add([]byte{10, 1, 'x', 10, 1, 'y'})
	f.Add([]byte{18, 0, 10, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var m clusterv3.Cluster
		if proto.Unmarshal(b, &m) != nil {
			_, _ = NameOf(&anypb.Any{TypeUrl: ClusterType, Value: b})
			return
		}
		got, err := NameOf(&anypb.Any{TypeUrl: ClusterType, Value: b})
		if got != m.GetName() {
			t.Fatalf("%q, %v; protobuf reads %q", got, err, m.GetName())
		}
	})
}

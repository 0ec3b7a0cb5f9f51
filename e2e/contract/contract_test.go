// Package contract holds the two sides of the wire to each other: what the
// control plane renders for our sidecar, the sidecar takes, field by field.
package contract

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	// Extensions that are rendered for Envoy only; without them its golden files
	// could not be read.
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/connection_limit/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"

	"github.com/hauberk-mesh/hauberk/sidecar/config"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// rendered is one resource of a golden file of the control plane.
type rendered struct {
	kind, name string
	body       []byte
}

// read returns the resources of a golden file and whether they are for Envoy.
func read(t *testing.T, file string) (out []rendered, envoy bool) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, want, ok := strings.Cut(string(b), "-- want --\n")
	if !ok {
		t.Fatalf("%s has no section want", file)
	}
	for block := range strings.SplitSeq(want, "\n\n") {
		start := strings.Index(block, "\n{")
		if start < 0 {
			continue
		}
		kind, name, _ := strings.Cut(strings.TrimSpace(strings.SplitN(strings.TrimSpace(block), "\n", 2)[0]), " ")
		name = strings.TrimSuffix(name, " (urgent)")
		out = append(out, rendered{kind, name, []byte(block[start+1:])})
	}
	return out, strings.Contains(head, `"envoy":true`)
}

func accept(t *testing.T, r rendered) error {
	t.Helper()
	m := map[string]proto.Message{
		"Cluster": &clusterv3.Cluster{}, "ClusterLoadAssignment": &endpointv3.ClusterLoadAssignment{},
		"Listener": &listenerv3.Listener{}, "RouteConfiguration": &routev3.RouteConfiguration{},
	}[r.kind]
	if m == nil {
		t.Fatalf("unknown kind %q of %q", r.kind, r.name)
	}
	if err := protojson.Unmarshal(r.body, m); err != nil {
		t.Fatalf("%s %s: %v", r.kind, r.name, err)
	}
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	switch r.kind {
	case "Cluster":
		_, err = config.Cluster(b)
	case "ClusterLoadAssignment":
		_, err = config.Assignment(b)
	case "Listener":
		_, err = config.Listener(b)
	case "RouteConfiguration":
		var c *route.Config
		if c, err = config.Route(b); err == nil {
			_, err = route.Compile(c)
		}
	}
	return err
}

func TestTheSidecarTakesWhatIsRendered(t *testing.T) {
	files, err := filepath.Glob("../../controlplane/view/testdata/*.golden")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files of the control plane: %v", err)
	}
	total := 0
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			resources, envoy := read(t, file)
			if envoy {
				// For Envoy more is rendered than a sidecar announces. It may refuse
				// that, but never misread it: a refusal names a field.
				for _, r := range resources {
					if err := accept(t, r); err != nil && !strings.Contains(err.Error(), ": ") {
						t.Errorf("%s %s: %v", r.kind, r.name, err)
					}
				}
				return
			}
			for _, r := range resources {
				total++
				if err := accept(t, r); err != nil {
					t.Errorf("%s %s: %v", r.kind, r.name, err)
				}
				if !json.Valid(r.body) {
					t.Errorf("%s %s is not JSON", r.kind, r.name)
				}
			}
		})
	}
	if total < 20 {
		t.Errorf("only %d resources were tried", total)
	}
}

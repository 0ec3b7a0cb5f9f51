package sidecar

import (
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

func TestHostObserverCounts(t *testing.T) {
	m := telemetry.NewMetrics()
	o := hostObserver{m}
	o.Connections(3)
	o.Connections(2)
	o.Refused()
	o.Ended("/SpiffeWorkloadAPI/FetchX509SVID", "PermissionDenied")
	var out strings.Builder
	if err := m.Registry.WritePrometheus(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"hauberk_host_socket_connections_open 2\n", "hauberk_host_socket_connections_refused_total 1\n",
		`hauberk_host_socket_calls_total{method="/SpiffeWorkloadAPI/FetchX509SVID",code="PermissionDenied"} 1` + "\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not among the metrics", want)
		}
	}
}

package listener

import (
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// TestEndsAreCounted: who ended a connection is told of each.
func TestEndsAreCounted(t *testing.T) {
	m := newTestManager(t, nil)
	mustApply(t, m, echoConfig("l"))
	left, ended := dial(t, m, "l"), dial(t, m, "l")
	for _, c := range []interface {
		Write([]byte) (int, error)
		Read([]byte) (int, error)
	}{left, ended} {
		if _, err := c.Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
	}
	_ = left.Close()
	counted := func(end string) func() bool {
		return func() bool {
			var text strings.Builder
			if err := m.opts.Metrics.Registry.WriteUsed(&text); err != nil {
				t.Fatal(err)
			}
			return strings.Contains(text.String(), `hauberk_connections_ended_total{listener="l",end="`+end+`"} 1`)
		}
	}
	waitFor(t, counted("remote"))
	m.CloseConns(func(string, *stream.Info) bool { return true }, "withdrawn")
	waitFor(t, counted("local"))
}

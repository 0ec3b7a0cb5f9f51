package listener

import (
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
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

// closed is a socket that its handler has closed: it looks like one that the client has left.
type closed struct{ stream.Stream }

func (closed) Gone() bool  { return true }
func (closed) Quiet() bool { return false }

// TestEndsAreTheHandlers: what a handler knows of who ended a connection counts, whatever the socket
// looks like by then.
func TestEndsAreTheHandlers(t *testing.T) {
	m := newTestManager(t, nil)
	l := newListener(m, "l")
	defer l.stop()
	for _, peer := range []bool{false, true} {
		c := downstream.New(downstream.Facts{Stream: closed{}}, nil)
		c.EndedBy(peer)
		c.EndedBy(!peer) // what follows from it
		l.countEnd(c)
	}
	l.countEnd(downstream.New(downstream.Facts{Stream: closed{}}, nil))
	var text strings.Builder
	if err := m.opts.Metrics.Registry.WriteUsed(&text); err != nil {
		t.Fatal(err)
	}
	for end, n := range map[string]string{"local": "1", "remote": "2"} {
		if want := `hauberk_connections_ended_total{listener="l",end="` + end + `"} ` + n + "\n"; !strings.Contains(text.String(), want) {
			t.Errorf("no %s in %s", want, text.String())
		}
	}
}

//go:build e2e

package mesh

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	consulapi "github.com/hashicorp/consul/api"
)

// greeter speaks first, then echoes lines.
func greeter(c net.Conn) {
	defer c.Close()
	fmt.Fprintln(c, "hello")
	_, _ = io.Copy(c, c)
}

func (w *workload) dial(t *testing.T, upstream string) (net.Conn, *bufio.Reader, error) {
	t.Helper()
	c, err := net.Dial("tcp", w.upstreams[upstream])
	if err != nil {
		return nil, nil, err
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	line, err := r.ReadString('\n')
	if err == nil && line != "hello\n" {
		err = fmt.Errorf("greeted with %q", line)
	}
	return c, r, err
}

func TestDenyClosesLiveTCP(t *testing.T) {
	m := newMesh(t)
	m.entry(&consulapi.ServiceConfigEntry{Kind: consulapi.ServiceDefaults, Name: "db", Protocol: "tcp"})
	m.allow("web", "db")
	web := m.workload(spec{id: "web-1", service: "web", upstreams: []string{"db"}})
	m.workload(spec{id: "db-1", service: "db", tcp: greeter})
	var c net.Conn
	var r *bufio.Reader
	m.eventually(5*second, "web reaches db", func() (err error) {
		c, r, err = web.dial(t, "db")
		return err
	})
	fmt.Fprintln(c, "still here")
	if s, err := r.ReadString('\n'); err != nil || s != "still here\n" {
		t.Fatalf("echo: %q %v", s, err)
	}
	m.entry(&consulapi.ServiceIntentionsConfigEntry{Kind: consulapi.ServiceIntentions, Name: "db",
		Sources: []*consulapi.SourceIntention{{Name: "web", Action: consulapi.IntentionActionDeny}}})
	began := time.Now()
	if _, err := r.ReadString('\n'); err == nil {
		t.Fatal("the connection still delivers")
	}
	took := time.Since(began)
	t.Logf("a deny closed the live connection after %v", took)
	if took > second {
		t.Errorf("the connection lived on for %v", took)
	}
	if _, _, err := web.dial(t, "db"); err == nil {
		t.Error("a new connection got through")
	}
}

func TestTwoServicesBehindOneSidecar(t *testing.T) {
	m := newMesh(t)
	m.entry(&consulapi.ServiceIntentionsConfigEntry{Kind: consulapi.ServiceIntentions, Name: "api",
		Sources: []*consulapi.SourceIntention{{Name: "web", Action: consulapi.IntentionActionAllow}, {Name: "job", Action: consulapi.IntentionActionAllow}}})
	web := m.register(spec{id: "web-1", service: "web", upstreams: []string{"api"}, node: "host-1"})
	job := m.register(spec{id: "job-1", service: "job", upstreams: []string{"api"}, node: "host-1"})
	m.sidecarFor("host-1", web, job)
	api := m.workload(spec{id: "api-1", service: "api"})
	web.answers(5*second, "api", "/from-web", 200, "api-1")
	job.answers(5*second, "api", "/from-job", 200, "api-1")
	m.eventually(2*second, "the upstream's log shows two identities on two connections", func() error {
		ids, conns := map[any]bool{}, map[any]bool{}
		for _, r := range api.records(func(r map[string]any) bool { return r["code"] == float64(200) }) {
			ids[r["src.id"]] = true
			conns[r["connection"]] = true
		}
		if len(ids) != 2 || len(conns) < 2 {
			return fmt.Errorf("ids %v, connections %v", ids, conns)
		}
		return nil
	})
}

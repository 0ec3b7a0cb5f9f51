package cluster

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// TestCheckEvents: a cluster's logs are opened with it and closed with it, and one that cannot
// be opened leaves in force what was.
func TestCheckEvents(t *testing.T) {
	dir := t.TempDir()
	logs := telemetry.NewLogs(nil)
	t.Cleanup(logs.Close)
	m := newManager(t, Options{Logs: logs})
	check := every(&HTTPCheck{Path: "/"})
	config := func(paths ...string) *Config {
		own := *check
		for _, path := range paths {
			own.Events = append(own.Events, CheckLog{path, "the field"})
		}
		a := &Assignment{Cluster: "c", Localities: []Locality{{Region: "r", Endpoints: []Endpoint{{
			Pipe: filepath.Join(dir, "none.sock"), Metadata: map[string]map[string]any{lbNamespace: {"k": "<"}},
		}}}}}
		return &Config{Name: "c", HealthCheck: &own, Endpoints: a}
	}
	lines := func(path string) []string {
		for end, tick := time.Now().Add(10*time.Second), time.Tick(5*time.Millisecond); ; <-tick {
			logs.Flush()
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if len(b) > 0 || time.Now().After(end) {
				return strings.Split(strings.TrimSpace(string(b)), "\n")
			}
		}
	}
	one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
	three, updated := filepath.Join(dir, "three"), make(chan error, 1)
	c := mustUpdate(t, m, config(one, two))
	for _, path := range []string{one, two} {
		var e checkEvent
		if err := json.Unmarshal([]byte(lines(path)[0]), &e); err != nil {
			t.Fatal(err)
		}
		if e.Host.Pipe == nil || e.Host.Pipe.Path != filepath.Join(dir, "none.sock") || e.Host.Socket != nil ||
			e.Failure == nil || !*e.Failure.First || e.Failure.Type != "NETWORK" || e.Locality.Region != "r" ||
			e.Metadata.Filter[lbNamespace]["k"] != "<" || time.Since(e.Timestamp.Time) > time.Minute {
			t.Errorf("%s: %+v", path, e)
		}
	}
	if err := m.Update(config(one, filepath.Join(dir, "no", "where"))); err == nil || !strings.Contains(err.Error(), "the field: cannot open") {
		t.Errorf("a log that cannot be opened: %v", err)
	}
	if len(c.events) != 2 || len(c.Config().HealthCheck.Events) != 2 {
		t.Error("what was refused is in force")
	}
	h := c.hosts()[0]
	if err := os.Remove(one); err != nil {
		t.Fatal(err)
	}
	logs.Reopen()
	logs.Flush()
	c.mu.Lock()
	c.checkMissed(c.checks[h], verdict{err: errAskedOut, passive: true})
	h.check.clear(checkFailed)
	c.checkMissed(c.checks[h], verdict{err: errAskedOut, passive: true})
	c.mu.Unlock()
	if last := lines(one); !strings.Contains(last[len(last)-1], `"eject_unhealthy_event":{"failure_type":"PASSIVE","http_status_code":0}`) {
		t.Errorf("after the logs were opened anew: %v", last)
	}
	func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		go func() { updated <- m.Update(config(one, two, three)) }()
		waitFor(t, func() bool { _, err := os.Stat(three); return err == nil }) // files are slow, and requests take the lock
	}()
	if err := <-updated; err != nil || len(c.events) != 3 {
		t.Errorf("%d logs, %v", len(c.events), err)
	}
	m.Remove("c")
	if c.events != nil {
		t.Error("the logs are open still")
	}
	without := newManager(t, Options{})
	if err := without.Update(config(one)); err == nil {
		t.Error("a manager without logs takes a cluster that has some")
	}
	if trial, err := m.Try(config(filepath.Join(dir, "no", "where")), nil); err == nil {
		trial.Close()
		t.Error("a trial whose log cannot be opened begins")
	}
}

// TestEventTime: a time is as the JSON of protobuf has it.
func TestEventTime(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600))
	for add, want := range map[time.Duration]string{
		0: `"2026-01-02T02:04:05Z"`, 999 * time.Microsecond: `"2026-01-02T02:04:05Z"`, 20 * time.Millisecond: `"2026-01-02T02:04:05.020Z"`,
	} {
		if b, err := json.Marshal(eventTime{at.Add(add)}); err != nil || string(b) != want {
			t.Errorf("%v: %s, %v", add, b, err)
		}
	}
}

func TestEventAddress(t *testing.T) {
	h := &Host{}
	h.target.Store(&target{addr: &net.TCPAddr{IP: net.ParseIP("::1"), Port: 80}})
	if b, _ := json.Marshal(h.eventAddress()); string(b) != `{"socket_address":{"protocol":"TCP","address":"::1","port_value":80,"resolver_name":"","ipv4_compat":false,"network_namespace_filepath":""}}` || h.url() != "[::1]:80" {
		t.Errorf("%s %s", b, h.url())
	}
}

//go:build e2e

package differential

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// moody is a host that answers checks and requests as it is told.
type moody struct {
	net.Listener
	check, answer atomic.Int64 // statuses; dropped, or hangs
	header        atomic.Pointer[string]
}

const (
	drops = -1
	hangs = -2
)

func newMoody(t *testing.T) *moody {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &moody{Listener: l}
	m.check.Store(200)
	m.answer.Store(200)
	s := &http.Server{Handler: m}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return m
}

func (m *moody) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	status := m.answer.Load()
	if r.URL.Path == "/check" {
		status = m.check.Load()
	}
	switch status {
	case drops:
		panic(http.ErrAbortHandler)
	case hangs:
		<-r.Context().Done()
		return
	}
	if h := m.header.Load(); h != nil && (*h == "x-envoy-degraded") == (r.URL.Path == "/check") {
		w.Header().Set(*h, "true")
	}
	w.WriteHeader(int(status))
}

func (m *moody) endpoint(metadata string) map[string]any {
	e := map[string]any{"endpoint": map[string]any{"address": socketAddress(m.Addr().(*net.TCPAddr).Port)}}
	if metadata != "" {
		e["metadata"] = map[string]any{"filter_metadata": map[string]any{"envoy.lb": map[string]any{"name": metadata, "n": 2}}}
	}
	return e
}

// eventful is one of the programs with hosts of its own, and what its event logs say.
type eventful struct {
	*program
	one, two *moody
	dead     *moody // whose port nobody has
}

func newEventful(t *testing.T, name string, certs *certs, command func(string) []string) *eventful {
	e := &eventful{one: newMoody(t), two: newMoody(t), dead: newMoody(t)}
	_ = e.dead.Close()
	e.two.check.Store(503)
	dir := t.TempDir()
	log := func(n string) string { return filepath.Join(dir, n+".events") }
	endpoints := func(es ...map[string]any) map[string]any {
		return map[string]any{"cluster_name": "x", "endpoints": []any{map[string]any{"locality": map[string]any{"region": "r", "zone": "z"}, "lb_endpoints": es}}}
	}
	check := func(more map[string]any) []any {
		out := map[string]any{"timeout": "0.3s", "interval": "0.05s", "no_traffic_interval": "0.05s", "unhealthy_threshold": 2, "healthy_threshold": 2}
		for k, v := range more {
			out[k] = v
		}
		return []any{out}
	}
	outliers := func(more string) map[string]any {
		out := map[string]any{"max_ejection_percent": 100, "interval": "0.3s", "base_ejection_time": "60s", "enforcing_success_rate": 0}
		for pair := range strings.FieldsSeq(more) {
			k, v, _ := strings.Cut(pair, "=")
			out[k] = json.RawMessage(v)
		}
		return out
	}
	three := endpoints(e.one.endpoint(""), e.two.endpoint(""), newMoody(t).endpoint(""))
	http := map[string]any{"path": "/check"}
	clusters := []map[string]any{
		{"name": "checked", "alt_stat_name": "stat", "load_assignment": endpoints(e.one.endpoint("m")), "health_checks": check(map[string]any{"http_health_check": http, "event_log_path": log("checked")})},
		{"name": "always", "load_assignment": endpoints(e.one.endpoint(""), e.two.endpoint("")), "health_checks": check(map[string]any{"http_health_check": http, "event_logger": sink(log("always")),
			"always_log_health_check_failures": true, "always_log_health_check_success": true})},
		{"name": "both", "load_assignment": endpoints(e.one.endpoint("")), "health_checks": check(map[string]any{"tcp_health_check": map[string]any{}, "event_logger": sink(log("both")), "event_log_path": log("both")})},
		{"name": "gone", "load_assignment": endpoints(e.dead.endpoint("")), "health_checks": check(map[string]any{"http_health_check": http, "event_logger": sink(log("gone"))})},
		{"name": "named", "load_assignment": endpoints(e.one.endpoint("")), "health_checks": check(map[string]any{"event_logger": sink(log("named")), "http_health_check": map[string]any{"path": "/check", "service_name_matcher": map[string]any{"exact": "s"}}})},
		{"name": "strict", "type": "STRICT_DNS", "load_assignment": endpoints(e.one.endpoint("")), "health_checks": check(map[string]any{"http_health_check": http, "event_logger": sink(log("strict"))})},
		{"name": "logical", "type": "LOGICAL_DNS", "load_assignment": endpoints(e.one.endpoint("")), "health_checks": check(map[string]any{"http_health_check": http, "event_logger": sink(log("logical")), "always_log_health_check_success": true})},
		{"name": "consecutive", "alt_stat_name": "stat2", "load_assignment": endpoints(e.one.endpoint("")), "outlier_detection": outliers(`consecutive_5xx=2 base_ejection_time="0.3s"`)},
		{"name": "observed", "load_assignment": endpoints(e.one.endpoint("")), "outlier_detection": outliers(`consecutive_5xx=2 enforcing_consecutive_5xx=0`)},
		{"name": "degrading", "load_assignment": endpoints(e.one.endpoint("")), "outlier_detection": outliers(`consecutive_5xx=1 detect_degraded_hosts=true max_ejection_percent=0 base_ejection_time="0.3s"`)},
		{"name": "gateway", "load_assignment": endpoints(e.one.endpoint("")), "outlier_detection": outliers(`consecutive_5xx=1000 consecutive_gateway_failure=1 enforcing_consecutive_gateway_failure=100`)},
		{"name": "local", "load_assignment": endpoints(e.dead.endpoint("")), "outlier_detection": outliers(`split_external_local_origin_errors=true consecutive_local_origin_failure=1`)},
		{"name": "rate", "load_assignment": three, "outlier_detection": outliers(`consecutive_5xx=0 enforcing_success_rate=100 success_rate_minimum_hosts=3 success_rate_request_volume=1 success_rate_stdev_factor=1000`)},
		{"name": "percentage", "load_assignment": three, "outlier_detection": outliers(`consecutive_5xx=0 enforcing_failure_percentage=100 failure_percentage_minimum_hosts=3 failure_percentage_request_volume=1 failure_percentage_threshold=50`)},
	}
	var routes []map[string]any
	for _, c := range clusters {
		routes = append(routes, map[string]any{"match": map[string]any{"prefix": fmt.Sprint("/", c["name"])}, "route": map[string]any{"cluster": c["name"]}})
	}
	g := &Group{
		Name: "events", About: "events", Clusters: clusters, Configs: []Config{{Name: "all", Routes: routes}},
		Bootstrap: map[string]any{"cluster_manager": map[string]any{"outlier_detection": map[string]any{"event_log_path": log("outliers")}}},
	}
	var err error
	if e.program, err = g.start(name, dir, certs, command, freePort); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.stop)
	e.place.dir = dir
	return e
}

func sink(path string) []any {
	return []any{map[string]any{"name": "file", "typed_config": map[string]any{
		"@type": apiType + "extensions.health_check.event_sinks.file.v3.HealthCheckEventFileSink", "event_log_path": path}}}
}

// events are the lines of a log: those of a host together, in their order, without times. Of what is
// written with every check there is one for several in a row that are the same.
func (e *eventful) events(log string) string {
	b, err := os.ReadFile(filepath.Join(e.place.dir, log+".events"))
	if err != nil {
		return err.Error()
	}
	byHost := map[string][]string{}
	for line := range strings.Lines(string(b)) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			return fmt.Sprintf("%s: %v", line, err)
		}
		if at, err := time.Parse(time.RFC3339, fmt.Sprint(m["timestamp"])); err != nil || time.Since(at) > time.Minute {
			return fmt.Sprintf("%s: time %v, %v", line, m["timestamp"], err)
		}
		delete(m, "timestamp")
		if s, ok := m["secs_since_last_action"].(string); ok && len(s) == 1 {
			m["secs_since_last_action"] = "few"
		}
		out, _ := json.Marshal(m)
		for name, host := range map[string]*moody{"one": e.one, "two": e.two, "dead": e.dead} {
			port := fmt.Sprint(host.Addr().(*net.TCPAddr).Port)
			if s := strings.NewReplacer(":"+port+",", ":"+name+",", "127.0.0.1:"+port, name).Replace(string(out)); s != string(out) {
				byHost[name] = append(byHost[name], order(line)+" "+s)
			}
		}
	}
	var all []string
	for _, host := range []string{"one", "two", "dead"} {
		lines := byHost[host]
		if log == "always" || log == "logical" {
			lines = slices.Compact(lines)
		}
		all = append(all, lines...)
	}
	return strings.Join(all, "\n")
}

// succeeds tells whether the last that the log with every check has of the first host is a success.
func (e *eventful) succeeds() bool {
	last := ""
	for line := range strings.Lines(e.events("always")) {
		if strings.Contains(line, `"port_value":one`) {
			last = line
		}
	}
	return strings.Contains(last, `"successful_health_check_event"`)
}

// order is the order of the fields of a line.
func order(line string) string {
	d := json.NewDecoder(strings.NewReader(line))
	var names []string
	_, _ = d.Token()
	for d.More() {
		name, _ := d.Token()
		var v json.RawMessage
		if d.Decode(&v) != nil {
			break
		}
		names = append(names, fmt.Sprint(name))
	}
	return strings.Join(names, " ")
}

// TestEventsBesideEnvoy compares the logs of events line by line.
func TestEventsBesideEnvoy(t *testing.T) {
	envoy, hauberk, certs := programs(t)
	both := []*eventful{newEventful(t, "envoy", certs, envoy), newEventful(t, "hauberk", certs, hauberk)}
	each := func(f func(e *eventful)) {
		for _, e := range both {
			f(e)
		}
	}
	await := func(log, what string, n int) {
		t.Helper()
		for _, e := range both {
			for end := time.Now().Add(15 * time.Second); strings.Count(e.events(log), what) < n; time.Sleep(20 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("%s has not %d of %s in %s:\n%s\n%s", e.name, n, what, log, e.events(log), e.log.String())
				}
			}
		}
	}
	get := func(path string, n int) {
		each(func(e *eventful) {
			for range n {
				r, err := http.Get("http://" + e.addr("all") + path)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, r.Body)
				_ = r.Body.Close()
			}
		})
	}
	say := func(check, answer int64, header string) {
		each(func(e *eventful) {
			e.one.check.Store(check)
			e.one.answer.Store(answer)
			e.one.header.Store(nil)
			if header != "" {
				e.one.header.Store(&header)
			}
		})
	}
	reach := func(what string, n int) {
		t.Helper()
		await("checked", what, n)
		await("always", what, n)
		if what == `"eject_unhealthy_event"` || what == `"PASSIVE"` {
			return // no success follows
		}
		for _, e := range both { // or one of them has a success more than the other before what comes next
			for end := time.Now().Add(5 * time.Second); !e.succeeds() && time.Now().Before(end); {
				time.Sleep(20 * time.Millisecond)
			}
		}
	}
	reach(`"add_healthy_event"`, 1)
	await("always", `"first_check":true`, 2)
	await("gone", `"NETWORK"`, 1)
	await("named", `"first_check":true`, 1)
	await("strict", `"first_check":true`, 1)
	await("logical", `"successful_health_check_event"`, 1)
	say(503, 503, "")
	reach(`"eject_unhealthy_event"`, 1)
	await("strict", `"ACTIVE"`, 1)
	await("logical", `"ACTIVE"`, 1)
	for _, log := range []string{"strict", "logical"} { // nobody waits for their hosts to be seen in each mood after this
		ejected := func(e *eventful) string {
			until, _, _ := strings.Cut(e.events(log), `"ACTIVE"`)
			return until
		}
		if e, h := ejected(both[0]), ejected(both[1]); e != h {
			t.Errorf("%s:\nenvoy   %s\nhauberk %s", log, e, h)
		}
	}
	say(200, 200, "")
	reach(`"add_healthy_event"`, 2)
	say(200, 200, "x-envoy-degraded")
	reach(`"degraded_healthy_host"`, 1)
	say(200, 200, "")
	reach(`"no_longer_degraded_host"`, 1)
	say(drops, 200, "")
	reach(`"eject_unhealthy_event"`, 2)
	say(200, 200, "")
	reach(`"add_healthy_event"`, 3)
	say(hangs, 200, "")
	reach(`"eject_unhealthy_event"`, 3)
	say(200, 200, "")
	reach(`"add_healthy_event"`, 4)
	say(200, 200, "x-envoy-immediate-health-check-fail")
	get("/checked", 1)
	get("/always", 1)
	reach(`"PASSIVE"`, 1)
	reach(`"add_healthy_event"`, 5)

	say(200, 404, "X-Envoy-Degraded")
	get("/degrading", 2)
	await("outliers", `"UNEJECT"`, 1)
	say(200, 500, "X-Envoy-Degraded")
	get("/degrading", 1)

	say(200, 500, "")
	get("/observed", 2)
	get("/consecutive", 2)
	await("outliers", `"UNEJECT"`, 2)
	get("/consecutive", 2)
	await("outliers", `"UNEJECT"`, 3)
	for log, what := range map[string]string{"/rate": `"SUCCESS_RATE"`, "/percentage": `"FAILURE_PERCENTAGE"`} {
		for range 50 {
			get(log, 30)
			time.Sleep(300 * time.Millisecond)
			if strings.Contains(both[0].events("outliers"), what) && strings.Contains(both[1].events("outliers"), what) {
				break
			}
		}
		await("outliers", what, 1)
	}
	say(200, 503, "")
	get("/gateway", 1)
	get("/local", 1)
	await("outliers", `"CONSECUTIVE_LOCAL_ORIGIN_FAILURE"`, 1)
	await("outliers", `"CONSECUTIVE_GATEWAY_FAILURE"`, 1)
	for _, log := range []string{"checked", "always", "both", "gone", "named", "outliers"} {
		e, h := both[0].events(log), both[1].events(log)
		if e == h {
			continue
		}
		es, hs := strings.Split(e, "\n"), strings.Split(h, "\n")
		for i := range max(len(es), len(hs)) {
			if a, b := at(es, i), at(hs, i); a != b {
				t.Errorf("%s, line %d:\nenvoy   %s\nhauberk %s", log, i+1, cmp.Or(a, "-"), cmp.Or(b, "-"))
			}
		}
	}
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return ""
}

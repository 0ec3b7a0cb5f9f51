//go:build e2e

package differential

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// countedAlike are statistics of clusters that both programs have: a regular expression of
// Envoy's behind the cluster's name, and of ours with the cluster's name for CLUSTER. What
// depends on who is faster is not among them. What has no name that is found at any cluster is
// misspelt, unless it is there in use only.
var countedAlike = []struct{ envoy, hauberk, use string }{
	{`(retry\.)?upstream_rq_2xx`, `hauberk_upstream_requests_total{cluster="CLUSTER",code_class="2xx"}`, ""},
	{`upstream_cx_connect_fail`, `hauberk_upstream_connections_total{cluster="CLUSTER",result="refused"}`, ""},
	{`upstream_cx_overflow`, `hauberk_upstream_overflow_total{cluster="CLUSTER",limit="connections"}`, ""},
	{`upstream_cx_pool_overflow`, `hauberk_upstream_overflow_total{cluster="CLUSTER",limit="pools"}`, ""},
	{`upstream_rq_pending_overflow`, `hauberk_upstream_overflow_total{cluster="CLUSTER",limit="pending"}`, ""},
	{`upstream_rq_active_overflow`, `hauberk_upstream_overflow_total{cluster="CLUSTER",limit="requests"}`, ""},
	{`upstream_rq_retry_overflow`, `hauberk_upstream_overflow_total{cluster="CLUSTER",limit="retries"}`, ""},
	{`upstream_internal_redirect_succeeded_total`, `hauberk_upstream_internal_redirects_total{cluster="CLUSTER",result="followed"}`, ""},
	{`upstream_internal_redirect_failed_total`, `hauberk_upstream_internal_redirects_total{cluster="CLUSTER",result="too_many"}`, ""},
	{`upstream_rq_cancelled`, `hauberk_upstream_requests_abandoned_total{cluster="CLUSTER",stage="pending"}`, ""},
	{`upstream_rq_tx_reset`, `hauberk_upstream_requests_abandoned_total{cluster="CLUSTER",stage="stream"}`, ""},
	{`upstream_rq_rx_reset`, `hauberk_upstream_failures_total{cluster="CLUSTER",reason="reset"}`, ""},
	{`upstream_rq_max_duration_reached`, `hauberk_upstream_failures_total{cluster="CLUSTER",reason="max_stream_duration"}`, ""},
	{`upstream_cx_none_healthy`, `hauberk_upstream_no_healthy_total{cluster="CLUSTER"}`, ""},
	{`lb_healthy_panic`, `hauberk_upstream_panic_picks_total{cluster="CLUSTER"}`, butEmpty},
	{`membership_healthy`, `hauberk_upstream_endpoints{cluster="CLUSTER",state="healthy"}`, ""},
	{`outlier_detection\.ejections_active`, `hauberk_upstream_endpoints{cluster="CLUSTER",state="ejected"}`, ""},
	{`outlier_detection\.ejections_enforced_total`, `hauberk_upstream_ejections_total{cluster="CLUSTER"}`, ""},
	{`circuit_breakers\.default\.cx_open`, `hauberk_upstream_limit_reached{cluster="CLUSTER",priority="default",limit="connections"}`, ""},
	{`circuit_breakers\.default\.rq_open`, `hauberk_upstream_limit_reached{cluster="CLUSTER",priority="default",limit="requests"}`, inUse},
	{`circuit_breakers\.default\.rq_pending_open`, `hauberk_upstream_limit_reached{cluster="CLUSTER",priority="default",limit="pending"}`, inUse},
	{`lb_subsets_selected`, `hauberk_upstream_subset_picks_total{cluster="CLUSTER",result="selected"}`, ""},
	{`lb_subsets_fallback`, `hauberk_upstream_subset_picks_total{cluster="CLUSTER",result="fallback"}`, ""},
	{`lb_subsets_fallback_panic`, `hauberk_upstream_subset_picks_total{cluster="CLUSTER",result="panic"}`, ""},
	{`lb_zone_routing_all_directly`, `hauberk_upstream_zone_picks_total{cluster="CLUSTER",result="direct"}`, ""},
	{`lb_zone_routing_sampled`, `hauberk_upstream_zone_picks_total{cluster="CLUSTER",result="sampled"}`, butChance},
	{`lb_zone_routing_cross_zone`, `hauberk_upstream_zone_picks_total{cluster="CLUSTER",result="cross_zone"}`, butChance},
	{`lb_zone_no_capacity_left`, `hauberk_upstream_zone_picks_total{cluster="CLUSTER",result="no_capacity"}`, ""},
	{`lb_local_cluster_not_ok`, `hauberk_upstream_zone_picks_total{cluster="CLUSTER",result="local_cluster_panic"}`, butForced},
	{`assignment_timeout_received`, `hauberk_upstream_assignments_total{cluster="CLUSTER",result="ageing"}`, ""},
	{`assignment_stale`, `hauberk_upstream_assignments_total{cluster="CLUSTER",result="stale"}`, ""},
	{`upstream_cx_destroy`, closed("local", "local_with_request", "remote", "remote_with_request"), onlyEnds},
	{`upstream_cx_destroy_local`, closed("local", "local_with_request"), onlyEnds},
	{`upstream_cx_destroy_remote`, closed("remote", "remote_with_request"), onlyEnds},
	{`upstream_cx_destroy_with_active_rq`, closed("local_with_request", "remote_with_request"), onlyEnds},
	{`upstream_cx_destroy_local_with_active_rq`, closed("local_with_request"), onlyEnds},
	{`upstream_cx_destroy_remote_with_active_rq`, closed("remote_with_request"), onlyEnds},
	{`upstream_rq_timeout_budget_percent_used_count`, `hauberk_upstream_timeout_budget_used_ratio_count{cluster="CLUSTER",of="request"}`, ""},
	{`original_dst_host_invalid`, `hauberk_upstream_invalid_destinations_total{cluster="CLUSTER"}`, ""},
}

// closed are connections that ended in one of these ways.
func closed(ends ...string) string {
	var keys []string
	for _, end := range ends {
		keys = append(keys, `hauberk_upstream_connections_closed_total{cluster="CLUSTER",end="`+end+`"}`)
	}
	return strings.Join(keys, sum)
}

// endedOf are the same of a listener's clients.
func endedOf(listener string, ends ...string) string {
	var keys []string
	for _, end := range ends {
		keys = append(keys, `hauberk_connections_ended_total{listener="`+listener+`",end="`+end+`"}`)
	}
	return strings.Join(keys, sum)
}

// sum stands between metrics of ours that together are one of Envoy's.
const sum = " + "

// wholeAlike are those of the whole program: regular expressions of Envoy's names.
var wholeAlike = []struct{ envoy, hauberk string }{
	{`http\.ends\.downstream_cx_destroy`, endedOf("ends", "local", "local_with_request", "remote", "remote_with_request")},
	{`http\.ends\.downstream_cx_destroy_remote`, endedOf("ends", "remote", "remote_with_request")},
	{`http\.left\.downstream_cx_destroy_active_rq`, endedOf("left", "local_with_request", "remote_with_request")},
	{`http\.left\.downstream_cx_destroy_remote_active_rq`, endedOf("left", "remote_with_request")},
	{`http\.left\.downstream_cx_destroy_remote`, endedOf("left", "remote", "remote_with_request")},
	{`http\.pending\.downstream_cx_destroy`, endedOf("pending", "local", "local_with_request", "remote", "remote_with_request")},
	{`http\.pending\.downstream_cx_destroy_remote`, endedOf("pending", "remote", "remote_with_request")},
	{`http2\.tx_reset`, `hauberk_http2_events_total{side="downstream",event="tx_reset"}`},
	{`http2\.rx_reset`, `hauberk_http2_events_total{side="downstream",event="rx_reset"}`},
	{`http2\.goaway_sent`, `hauberk_http2_events_total{side="downstream",event="goaway_sent"}`},
	{`cluster\..*\.http2\.tx_reset`, `hauberk_http2_events_total{side="upstream",event="tx_reset"}`},
	{`tcp\.tcpidle\.idle_timeout`, `hauberk_connections_closed_total{listener="tcpidle",reason="idle_timeout"}`},
	{`tcp\.tcpduration\.max_downstream_connection_duration`, `hauberk_connections_closed_total{listener="tcpduration",reason="max_connection_duration"}`},
	{`tcp\.tcpnocluster\.downstream_cx_no_route`, `hauberk_connections_closed_total{listener="tcpnocluster",reason="no_cluster"}`},
	{`http\.probes\.tracing\.health_check`, `hauberk_http_filter_events_total{filter="health",event="health_check"}`},
	{`http\.probes\.tracing\.random_sampling`, `hauberk_traced_requests_total{reason="random_sampling"}`},
	{`http\.probes\.tracing\.not_traceable`, `hauberk_traced_requests_total{reason="not_traceable"}`},
	{`cluster\..*\.http2\.rx_reset`, `hauberk_http2_events_total{side="upstream",event="rx_reset"}`},
}

const (
	// inUse is there only while something is in use.
	inUse = "in use"
	// butEmpty is not compared of the cluster without endpoints, of which Envoy counts a panic.
	butEmpty = "but empty"
	// butChance is not compared of clusters where chance decides, whose names have it.
	butChance = "but chance"
	// butForced is not compared of clusters whose zone is forced, and their names have it: of
	// those Envoy counts too that it made them before their own cluster.
	butForced = "but forced"
	// onlyEnds is compared of clusters alone whose connections each case ends, and their names have
	// it: how many others have depends on who is faster.
	onlyEnds = "only ends"
)

// budgetCount is how many times a histogram of timeout budgets has, of a cluster.
var budgetCount = regexp.MustCompile(`(?m)^envoy_cluster_(upstream_rq_timeout_budget_[a-z_]*_count){envoy_cluster_name="([^"]*)"} ([0-9]+)$`)

// found are the statistics that there were of any cluster.
type found map[string]struct{ envoy, hauberk bool }

// statistics are a program's, by name as its admin listener shows them on a socket.
func statistics(t *testing.T, socket string) map[string]float64 {
	t.Helper()
	c := &http.Client{Timeout: patience, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	defer c.CloseIdleConnections()
	get := func(path string) []byte {
		resp, err := c.Get("http://localhost" + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	out := map[string]float64{}
	// How much a histogram has, Envoy says in another form alone.
	for _, of := range budgetCount.FindAllSubmatch(get("/stats/prometheus"), -1) {
		if n, err := strconv.ParseFloat(string(of[3]), 64); err == nil {
			out["cluster."+string(of[2])+"."+string(of[1])] = n
		}
	}
	b := get("/stats")
	for line := range bytes.Lines(b) {
		s := strings.TrimSpace(string(line))
		if i := strings.LastIndexByte(s, ' '); i > 0 {
			if v, err := strconv.ParseFloat(s[i+1:], 64); err == nil {
				out[strings.TrimSuffix(s[:i], ":")] = v
			}
		}
	}
	return out
}

// TestStatisticsBesideEnvoy: after the same requests both have counted the same of each
// cluster.
func TestStatisticsBesideEnvoy(t *testing.T) {
	envoy, hauberk, certs := programs(t)
	table := theTable(t)
	all := found{}
	for i := range table.Groups {
		if g := &table.Groups[i]; slices.Contains([]string{"clusters", "policies", "zones", "counters"}, g.Name) {
			r := &runner{g: g, certs: certs, dir: t.TempDir(), hauberk: hauberk}
			r.envoy = func(file string) []string {
				admin := filepath.Join(filepath.Dir(file), "admin.sock")
				return append(envoy(file), "--config-yaml", fmt.Sprintf("{admin: {address: {pipe: {path: %s}}}, stats_flush_interval: 0.2s}", admin))
			}
			r.statistics(t, all)
		}
	}
	for _, s := range countedAlike {
		if has := all[s.envoy]; !has.envoy || !has.hauberk && s.use != inUse {
			t.Errorf("%s of no cluster at Envoy, or %s at ours", s.envoy, s.hauberk)
		}
	}
	for _, s := range wholeAlike {
		if has := all[s.envoy]; !has.envoy || !has.hauberk {
			t.Errorf("%s never at Envoy, or %s at ours", s.envoy, s.hauberk)
		}
	}
}

func (r *runner) statistics(t *testing.T, all found) {
	envoy, hauberk := r.start(t)
	defer envoy.stop()
	defer hauberk.stop()
	for i := range r.g.Configs {
		c := &r.g.Configs[i]
		for j := range c.Cases {
			var both sync.WaitGroup
			for _, p := range []*program{envoy, hauberk} {
				both.Go(func() {
					if _, err := p.run(c, &c.Cases[j], r.certs); err != nil {
						t.Error(err)
					}
				})
			}
			both.Wait()
		}
	}
	var wrong []string
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		theirs, ours := statistics(t, filepath.Join(envoy.dir, "admin.sock")), statistics(t, filepath.Join(hauberk.dir, "admin.sock"))
		wrong = append(r.uneven(theirs, ours, all), unevenWhole(theirs, ours, all)...)
		if wrong == nil {
			return
		}
	}
	t.Error(strings.Join(wrong, "\n"))
}

// unevenWhole are the statistics of the whole programs in which the two differ.
func unevenWhole(envoy, hauberk map[string]float64, all found) (wrong []string) {
	for _, s := range wholeAlike {
		theirs, has := matching(envoy, s.envoy)
		ours := 0.0
		for k := range strings.SplitSeq(s.hauberk, sum) {
			ours += hauberk[k]
		}
		if ours != theirs {
			wrong = append(wrong, fmt.Sprintf("Envoy's %s are %v, %s %v", s.envoy, theirs, s.hauberk, ours))
		}
		was := all[s.envoy]
		was.envoy, was.hauberk = was.envoy || has, was.hauberk || ours != 0
		all[s.envoy] = was
	}
	return wrong
}

// matching is the sum of the statistics that have a name, and whether there are any.
func matching(of map[string]float64, name string) (sum float64, any bool) {
	whole := regexp.MustCompile(`^` + name + `$`)
	for k, v := range of {
		if whole.MatchString(k) {
			sum, any = sum+v, true
		}
	}
	return sum, any
}

// uneven are the statistics in which the two differ.
func (r *runner) uneven(envoy, hauberk map[string]float64, all found) (wrong []string) {
	for _, s := range countedAlike {
		has := all[s.envoy]
		for _, c := range r.g.Clusters {
			name := fmt.Sprint(c["name"])
			theirs, any := matching(envoy, `cluster\.`+name+`\.`+s.envoy)
			has.envoy = has.envoy || any
			key := strings.ReplaceAll(s.hauberk, "CLUSTER", name)
			ours := 0.0
			for k := range strings.SplitSeq(key, sum) {
				n, there := hauberk[k]
				ours += n
				has.hauberk = has.hauberk || there
			}
			skip := s.use == butEmpty && name == "empty" || s.use == butChance && strings.Contains(name, "chance") ||
				s.use == butForced && strings.Contains(name, "forced") || s.use == onlyEnds && !strings.Contains(name, "ends")
			if ours != theirs && !skip {
				wrong = append(wrong, fmt.Sprintf("%s: Envoy's %s are %v, %s %v", name, s.envoy, theirs, key, ours))
			}
		}
		all[s.envoy] = has
	}
	return wrong
}

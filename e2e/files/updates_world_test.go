//go:build e2e

package files

import (
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

func hashOf(b []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(b)
	return h.Sum64()
}

func one[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// chance is true once in n times.
func chance(r *rand.Rand, n int) bool { return r.IntN(n) == 0 }

// thing is a resource as it is written, with PORTn for the port of a listener and ORIGINn for
// one of a host.
type thing struct {
	text string
	// fault says what is wrong with it. A rule of a field that is broken refuses the whole
	// response in Envoy, and so in the state of the world do any endpoints and routes.
	fault string
	whole bool
}

// world is all that there is at a time, by type and name, and what was before.
type world struct {
	r      *rand.Rand
	delta  bool
	now    map[string]map[string]thing
	before map[string]map[string][]thing
	// sound is what was last without a fault, of what has one.
	sound map[string]map[string]thing
	// gone are clusters that were there and are removed.
	gone map[string]bool
	said []string // what the last step does
	// hasty is set where a type is told before anything was said of the one before.
	hasty bool
	// keen has more of TLS and of checks, and less of other things.
	keen bool
	// verdicts are what hosts say to checks; swayed is how long it takes until what the last step changed of them counts.
	verdicts verdicts
	swayed   time.Duration
}

var urls = []string{resource.ClusterType, resource.EndpointType, resource.ListenerType, resource.RouteType}

const (
	ports5  = 4
	origins = 8
	plains  = 4 // the others are of TLS
)

func newWorld(r *rand.Rand, delta bool) *world {
	w := &world{r: r, delta: delta, now: map[string]map[string]thing{}, before: map[string]map[string][]thing{}, sound: map[string]map[string]thing{}, gone: map[string]bool{}}
	for _, url := range append(slices.Clone(urls), resource.SecretType) {
		w.now[url], w.before[url], w.sound[url] = map[string]thing{}, map[string][]thing{}, map[string]thing{}
	}
	w.keen = chance(r, 2)
	w.verdicts.all(200)
	for _, name := range secretNames {
		if !w.rare(4, 8) {
			w.putSecret(name, w.secret(name))
		}
	}
	for i := range 3 {
		w.put(resource.ClusterType, fmt.Sprint("c", i), w.cluster(fmt.Sprint("c", i)))
	}
	for i := range services5 {
		if i < 3 || chance(r, 2) {
			w.put(resource.EndpointType, fmt.Sprint("s", i), w.endpoints(fmt.Sprint("s", i)))
		}
	}
	for i := range 2 {
		w.put(resource.RouteType, fmt.Sprint("r", i), w.routes(fmt.Sprint("r", i)))
	}
	w.put(resource.ListenerType, "l0", w.listener("l0", 0))
	if w.rare(2, 1) {
		w.put(resource.ListenerType, "l1", w.listener("l1", 1))
	}
	if w.keen {
		w.put(resource.ListenerType, "l2", w.listener("l2", 2))
	}
	return w
}

const (
	clusters5  = 5
	services5  = 5
	routes5    = 3
	listeners5 = 4
)

func (w *world) name(prefix string, of int) string { return fmt.Sprint(prefix, w.r.IntN(of)) }

func (w *world) put(url, name string, t thing) {
	if old, ok := w.now[url][name]; ok {
		if old.fault == "" {
			w.before[url][name] = append(w.before[url][name], old)
			w.sound[url][name] = old
		}
	}
	w.now[url][name] = t
	if url == resource.ClusterType {
		delete(w.gone, name)
	}
}

// rare is true once in n times, and where there is to be more of something once in keen.
func (w *world) rare(n, keen int) bool {
	if w.keen {
		n = keen
	}
	return chance(w.r, n)
}

// secure are the services whose hosts are of TLS, for the clusters that are.
func (w *world) secure(name string) bool { return w.keen && (name == "s3" || name == "s4") }

// host is one endpoint, at none of the hosts that are had already.
func (w *world) host(weights, secure bool, had map[int]bool) string {
	r := w.r
	n := r.IntN(plains)
	if secure || chance(r, 8) {
		n = plains + r.IntN(origins-plains)
	}
	for ; had[n]; n = (n + 1) % origins {
	}
	if had != nil {
		had[n] = true
	}
	var more, checked string
	if chance(r, 8) {
		checked = fmt.Sprintf(", health_check_config: {%s}", one(r, "disable_active_health_check: true", "port_value: ORIGIN0", "port_value: ORIGIN1", "port_value: ORIGIN5"))
	}
	if weights && chance(r, 3) {
		more += fmt.Sprintf(", load_balancing_weight: %d", one(r, 1, 2, 3, 7))
	}
	if chance(r, 5) {
		more += ", health_status: " + one(r, "HEALTHY", "UNHEALTHY", "DRAINING", "TIMEOUT", "UNKNOWN") // a hash takes degraded ones here alone (docs/clusters.md)
	}
	if chance(r, 2) {
		more += fmt.Sprintf(", metadata: {filter_metadata: {envoy.lb: {stage: %s}}}", one(r, "x", "y"))
	}
	return fmt.Sprintf("{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: ORIGIN%d}}%s}%s}", n, checked, more)
}

// assignment is what a cluster's hosts are, by locality.
func (w *world) assignment(name string, once, secure bool) string {
	r := w.r
	var had map[int]bool
	if once {
		had = map[int]bool{}
	}
	var groups []string
	for i := range 1 + r.IntN(3) {
		var more string
		if i > 0 && chance(r, 2) {
			more += fmt.Sprintf(", priority: %d", one(r, 1, 1, 2))
		}
		if chance(r, 3) {
			more += fmt.Sprintf(", load_balancing_weight: %d", one(r, 1, 2, 5))
		}
		var hosts []string
		for range one(r, 0, 1, 1, 2, 2, 3) {
			if len(had) < origins {
				hosts = append(hosts, w.host(true, secure, had))
			}
		}
		groups = append(groups, fmt.Sprintf("{locality: {region: q, zone: z%d}%s, lb_endpoints: [%s]}", i, more, strings.Join(hosts, ", ")))
	}
	if chance(r, 8) {
		groups = nil
	}
	var policy string
	if chance(r, 6) {
		policy = fmt.Sprintf(", policy: {overprovisioning_factor: %d}", one(r, 100, 140, 200))
	}
	return fmt.Sprintf("{cluster_name: %s, endpoints: [%s]%s}", name, strings.Join(groups, ", "), policy)
}

func (w *world) endpoints(name string) thing {
	return thing{text: w.assignment(name, !chance(w.r, 4), w.secure(name))}
}

const eds = "{resource_api_version: V3, ads: {}, initial_fetch_timeout: 0.4s}"

func (w *world) cluster(name string) thing {
	r := w.r
	secure := w.rare(5, 2)
	service := w.name("s", services5)
	if w.keen && secure {
		service = one(r, "s3", "s4")
	}
	text := fmt.Sprintf("{name: %s, connect_timeout: 1s, lb_policy: %s", name, one(r, "RING_HASH", "MAGLEV", "RING_HASH", "MAGLEV", "ROUND_ROBIN", "LEAST_REQUEST", "RANDOM"))
	switch r.IntN(12) {
	case 0:
		text += ", type: STATIC, load_assignment: " + w.assignment(name, true, secure)
	case 1:
		text += ", type: STRICT_DNS, load_assignment: " + w.assignment(name, true, secure)
	case 2:
		text += ", type: LOGICAL_DNS, load_assignment: {cluster_name: " + name + ", endpoints: [{lb_endpoints: [" + w.host(false, secure, nil) + "]}]}"
	case 3:
		return thing{text: fmt.Sprintf(`{name: %s, connect_timeout: 1s, lb_policy: CLUSTER_PROVIDED, cluster_type: {name: envoy.clusters.aggregate, typed_config: {
  "@type": type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig, clusters: [%s, %s]}}}`, name, w.name("c", clusters5), w.name("c", clusters5))}
	default:
		text += ", type: EDS, eds_cluster_config: {eds_config: " + eds + ", service_name: " + service + "}"
	}
	var lb []string
	if chance(r, 4) {
		lb = append(lb, "locality_weighted_lb_config: {}")
	}
	if chance(r, 5) {
		lb = append(lb, fmt.Sprintf("healthy_panic_threshold: {value: %d}", one(r, 0, 1, 50, 100)))
	}
	if chance(r, 6) {
		lb = append(lb, "ignore_new_hosts_until_first_hc: true")
	}
	if len(lb) > 0 {
		text += ", common_lb_config: {" + strings.Join(lb, ", ") + "}"
	}
	if w.rare(6, 20) {
		text += ", circuit_breakers: {thresholds: [{" + one(r, "max_requests: 0", "max_connections: 7", "max_pending_requests: 5", "max_requests: 20", "priority: HIGH, max_requests: 0") + "}]}"
	}
	if w.rare(6, 20) {
		text += ", lb_subset_config: {fallback_policy: " + one(r, "NO_FALLBACK", "ANY_ENDPOINT", "DEFAULT_SUBSET, default_subset: {stage: y}") + ", subset_selectors: [{keys: [stage]}]}"
	}
	if secure {
		text += ", transport_socket: " + w.upstreamTLS()
	}
	if chance(r, 8) {
		text += `, typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {
  "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, ` + one(r, "explicit_http_config: {http2_protocol_options: {}}", "explicit_http_config: {http_protocol_options: {}}", "use_downstream_protocol_config: {}") + "}}"
	}
	if chance(r, 10) {
		text += ", close_connections_on_host_health_failure: true"
	}
	if w.rare(3, 2) {
		text += w.checks()
	}
	return thing{text: text + "}"}
}

func (w *world) upstreamTLS() string {
	sni := one(w.r, "", ", sni: first.example", ", sni: second.example")
	var own string
	if chance(w.r, 2) {
		own = ", " + w.ownCertificates(one(w.r, "0", "2"), false)
	}
	return `{name: tls, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext` + sni +
		`, common_tls_context: {tls_params: {tls_maximum_protocol_version: TLSv1_3}, ` + w.validation() + own + `}}}`
}

// paths are those that routes may have an entry for.
var paths = []string{"/a", "/b", "/c"}

func (w *world) action() string {
	r := w.r
	hash := one(r, ", hash_policy: [{header: {header_name: x-key}}]", ", hash_policy: [{header: {header_name: x-key}}]", ", hash_policy: [{header: {header_name: x-other}}, {header: {header_name: x-key}}]")
	match := one(r, "", "", "", ", metadata_match: {filter_metadata: {envoy.lb: {stage: x}}}", ", metadata_match: {filter_metadata: {envoy.lb: {stage: z}}}")
	switch r.IntN(10) {
	case 0:
		return fmt.Sprintf("direct_response: {status: %d, body: {inline_string: %s}}", one(r, 200, 404, 503), one(r, "u", "v"))
	case 1:
		return "redirect: {path_redirect: /to/" + one(r, "u", "v") + "}"
	case 2:
		return fmt.Sprintf("route: {weighted_clusters: {clusters: [{name: %s, weight: 1}, {name: %s, weight: 0}]}%s}", w.name("c", clusters5), w.name("c", clusters5), hash)
	case 3:
		return fmt.Sprintf("route: {cluster: %s%s, priority: HIGH}", w.name("c", clusters5), hash)
	case 4:
		return fmt.Sprintf("route: {cluster: %s%s, cluster_not_found_response_code: NOT_FOUND}", w.name("c", clusters5), hash)
	}
	return fmt.Sprintf("route: {cluster: %s%s%s}", w.name("c", clusters5), hash, match)
}

func (w *world) routes(name string) thing { return thing{text: w.table(name)} }

// table is a route configuration. Each answer tells its mark, and which cluster it is of.
func (w *world) table(name string) string {
	r := w.r
	vhost := func(n, domains string) string {
		var list []string
		for _, p := range paths {
			if !chance(r, 4) {
				list = append(list, "{match: {prefix: "+p+"}, "+w.action()+"}")
			}
		}
		list = append(list, `{match: {prefix: /to}, route: {cluster_header: x-cluster, hash_policy: [{header: {header_name: x-key}}]}}`)
		return fmt.Sprintf("{name: %s, domains: [%s], routes: [%s]}", n, domains, strings.Join(list, ", "))
	}
	vhosts := vhost("all", `"*"`)
	if chance(r, 3) {
		vhosts += ", " + vhost("own", "own.example")
	}
	var more string
	if name == "inline" {
		// In a listener it is on in Envoy if it is not said (docs/routes.md). Routes that come by
		// RDS are validated in a flaw alone: in Envoy they refuse all that comes with them.
		more = ", validate_clusters: " + one(r, "true", "false")
	}
	return fmt.Sprintf(`{name: %s, response_headers_to_add: [{header: {key: x-mark, value: m%d}}, {header: {key: x-of, value: "%%UPSTREAM_CLUSTER%%"}}]%s, virtual_hosts: [%s]}`, name, r.IntN(1000), more, vhosts)
}

// chain is a filter chain.
func (w *world) chain(match, tls string) string {
	r := w.r
	var socket string
	if tls != "" {
		socket = `, transport_socket: {name: tls, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, common_tls_context: {` + w.ownCertificates(tls, true)
		if chance(r, 3) {
			socket += ", " + w.validation() + "}, require_client_certificate: true}}"
		} else {
			socket += "}}}"
		}
	}
	if match != "" {
		match = ", filter_chain_match: {" + match + "}"
	}
	if chance(r, 6) {
		return `{filters: [{name: tcp, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: in, cluster: ` + w.name("c", clusters5) + `}}]` + match + socket + "}"
	}
	from := "rds: {route_config_name: " + w.name("r", routes5) + ", config_source: " + eds + "}"
	if chance(r, 4) {
		from = "route_config: " + w.table("inline")
	}
	return fmt.Sprintf(`{filters: [{name: hcm, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: in, codec_type: AUTO,
  server_name: n%d, %s, http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}}]%s%s}`, r.IntN(1000), from, match, socket)
}

func (w *world) listener(name string, port int) thing {
	r := w.r
	var chains []string
	var inspect, more string
	if chance(r, 4) {
		inspect = `listener_filters: [{name: tls, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}], `
		for _, m := range []string{"server_names: [first.example]", "server_names: [second.example]", "transport_protocol: tls", "transport_protocol: raw_buffer"} {
			if !chance(r, 3) {
				tls := one(r, "0", "1")
				if strings.Contains(m, "raw") {
					tls = ""
				}
				chains = append(chains, w.chain(m, tls))
			}
		}
		if chance(r, 3) {
			more = ", default_filter_chain: " + w.chain("", one(r, "", "0"))
		}
	}
	if len(chains) == 0 {
		chains = append(chains, w.chain("", one(r, one(r, "", map[bool]string{true: "0"}[w.keen]), "", "0", "1")))
	}
	return thing{text: fmt.Sprintf("{name: %s, address: {socket_address: {address: HOST, port_value: PORT%d}}, %sfilter_chains: [%s]%s}", name, port, inspect, strings.Join(chains, ", "), more)}
}

func (w *world) kind(t thing) string {
	switch {
	case strings.Contains(t.text, "connect_timeout"):
		return resource.ClusterType
	case strings.Contains(t.text, "filter_chains"):
		return resource.ListenerType
	case strings.Contains(t.text, "virtual_hosts"):
		return resource.RouteType
	}
	return resource.EndpointType
}

func short(url string) string { return url[strings.LastIndexByte(url, '.')+1:] }

func (w *world) say(format string, args ...any) {
	w.said = append(w.said, fmt.Sprintf(format, args...))
}

// heal takes faults back. In the state of the world one that refuses the whole response
// would refuse what comes with it.
func (w *world) heal(all bool, touched map[string]bool) {
	if all {
		w.healSecrets(touched)
	}
	for _, url := range urls {
		for _, name := range slices.Sorted(maps.Keys(w.now[url])) {
			t := w.now[url][name]
			if t.fault == "" || !all && !t.whole && !chance(w.r, 3) {
				continue
			}
			touched[url] = true
			if old, ok := w.sound[url][name]; ok && w.unusable(old) {
				continue
			} else if ok {
				w.now[url][name] = old
				w.say("%s %s healed: %s", short(url), name, old.text)
				continue
			}
			delete(w.now[url], name)
			w.say("%s %s gone", short(url), name)
		}
	}
}

// agree ends what depends on what was before: listeners of one address, those that
// were refused for a cluster that was not there yet, and routes and endpoints that are not there
// and were, for what is in force of them stays.
func (w *world) agree(touched map[string]bool) {
	for _, url := range []string{resource.EndpointType, resource.RouteType} {
		for name, was := range w.before[url] {
			if _, ok := w.now[url][name]; !ok && len(was) > 0 {
				w.now[url][name] = was[len(was)-1]
				w.say("%s %s is back: %s", short(url), name, w.now[url][name].text)
				touched[url] = true
			}
		}
	}
	had := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(w.now[resource.ListenerType])) {
		t, ok := w.now[resource.ListenerType][name]
		if !ok {
			continue
		}
		_, at, _ := strings.Cut(t.text, "port_value: ")
		at = at[:len("PORT0")]
		if had[at] {
			for other, o := range w.now[resource.ListenerType] {
				if strings.Contains(o.text, at) {
					delete(w.now[resource.ListenerType], other)
				}
			}
			w.say("those at %s are gone", at)
			touched[resource.ListenerType] = true
			continue
		}
		had[at] = true
		if strings.Contains(t.text, "validate_clusters: true") {
			w.now[resource.ListenerType][name] = thing{text: strings.ReplaceAll(t.text, "validate_clusters: true", "validate_clusters: false")}
			touched[resource.ListenerType] = true
		}
	}
}

// step changes some of it, and returns the types that are changed, in the order they are told.
func (w *world) step() []string {
	w.said, w.hasty = nil, chance(w.r, 3)
	touched, locked := map[string]bool{}, map[string]bool{}
	refused := w.faulty(resource.EndpointType) // which Envoy, of a cluster that changes, waits for in vain until they are told again
	w.heal(false, touched)
	w.swayed = 0
	if w.rare(3, 2) {
		w.changeVerdicts()
	}
	if w.rare(3, 2) {
		w.changeSecrets(touched)
	}
	for range one(w.r, 1, 1, 2, 3, 4) {
		url := one(w.r, resource.ClusterType, resource.EndpointType, resource.ListenerType, resource.RouteType)
		if locked[url] {
			continue
		}
		w.change(url, touched, locked)
	}
	faulty := w.faulty(resource.EndpointType) || w.faulty(resource.RouteType)
	w.hasty = w.hasty && !faulty // who asks late has never seen what was before
	order := slices.Clone(urls)
	// A cluster that changes after its endpoints were refused has the last good ones here, and none in Envoy.
	if chance(w.r, 3) && !faulty {
		w.r.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	}
	if refused {
		order = slices.DeleteFunc(order, func(url string) bool { return url == resource.EndpointType })
		order = slices.Insert(order, 0, resource.EndpointType)
	}
	if touched[resource.SecretType] {
		at := 0 // it counts whether a file is there
		if !w.hasty {
			at = w.r.IntN(len(order) + 1)
		}
		order = slices.Insert(order, at, resource.SecretType)
	}
	return slices.DeleteFunc(order, func(url string) bool { return !touched[url] })
}

// faulty tells whether anything of a type is.
func (w *world) faulty(url string) bool {
	for _, t := range w.now[url] {
		if t.fault != "" {
			return true
		}
	}
	return false
}

func (w *world) make(url, name string) thing {
	switch url {
	case resource.ClusterType:
		return w.cluster(name)
	case resource.EndpointType:
		return w.endpoints(name)
	case resource.RouteType:
		return w.routes(name)
	}
	port := w.r.IntN(ports5)
	if old, ok := w.now[url][name]; ok && !chance(w.r, 4) {
		_, _ = fmt.Sscanf(old.text[strings.Index(old.text, "PORT"):], "PORT%d", &port)
	}
	return w.listener(name, port)
}

// change changes a resource of a type.
func (w *world) change(url string, touched, locked map[string]bool) {
	r := w.r
	prefix, n := map[string]string{resource.ClusterType: "c", resource.EndpointType: "s", resource.RouteType: "r", resource.ListenerType: "l"}[url],
		map[string]int{resource.ClusterType: clusters5, resource.EndpointType: services5, resource.RouteType: routes5, resource.ListenerType: listeners5}[url]
	name := w.name(prefix, n)
	old, there := w.now[url][name]
	what := short(url) + " " + name
	switch k := r.IntN(14); {
	case there && old.fault != "":
		return
	case k == 0 && there && len(w.now[url]) > 1:
		delete(w.now[url], name)
		w.before[url][name] = append(w.before[url][name], old)
		if url == resource.ClusterType {
			w.gone[name] = true
		}
		w.say("%s removed", what)
	case k <= 2 && len(w.before[url][name]) > 0:
		was := one(r, w.before[url][name]...)
		if w.unusable(was) {
			return
		}
		w.put(url, name, was)
		w.say("%s set back: %s", what, was.text)
	case k <= 5 && there:
		bad, ok := w.spoil(old)
		if !ok || bad.whole && touched[url] {
			return
		}
		w.put(url, name, bad)
		locked[url] = bad.whole
		w.say("%s faulty, %s: %s", what, bad.fault, bad.text)
	case k == 6 && there:
		// Changes places with another.
		other := w.name(prefix, n)
		second, ok := w.now[url][other]
		if !ok || other == name || second.fault != "" || w.unusable(second) || w.unusable(old) {
			return
		}
		w.put(url, name, renamed(second, other, name))
		w.put(url, other, renamed(old, name, other))
		w.say("%s changes places with %s", what, other)
	case k == 7 && there:
		// Has another name.
		other := w.name(prefix, n)
		if _, ok := w.now[url][other]; ok || w.unusable(old) {
			return
		}
		delete(w.now[url], name)
		w.before[url][name] = append(w.before[url][name], old)
		if url == resource.ClusterType {
			w.gone[name] = true
		}
		w.put(url, other, renamed(old, name, other))
		w.say("%s is called %s now", what, other)
	default:
		t := w.make(url, name)
		if w.unusable(t) {
			return
		}
		w.put(url, name, t)
		w.say("%s is now %s", what, t.text)
	}
	touched[url] = true
}

// renamed is a resource of another name, which says it of itself.
func renamed(t thing, from, to string) thing {
	for _, field := range []string{"{name: ", "cluster_name: "} {
		t.text = strings.Replace(t.text, field+from, field+to, 1)
	}
	return t
}

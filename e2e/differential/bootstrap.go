//go:build e2e

package differential

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

// place is where one of the two programs finds what a bootstrap names.
type place struct {
	dir     string
	origins *origins
	ports   map[string]int // of the listeners, by config
}

func (p *place) logFile(config string) string { return filepath.Join(p.dir, config+".log") }

func (p *place) addr(config string) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.ports[config]))
}

func socketAddress(port int) map[string]any {
	return map[string]any{"socket_address": map[string]any{"address": "127.0.0.1", "port_value": port}}
}

const apiType = "type.googleapis.com/envoy."

// logFields are what the access logs say, in both programs.
var logFields = map[string]string{
	"code":     "%RESPONSE_CODE%",
	"flags":    "%RESPONSE_FLAGS%",
	"details":  "%RESPONSE_CODE_DETAILS%",
	"closed":   "%CONNECTION_TERMINATION_DETAILS%",
	"method":   "%REQ(:METHOD)%",
	"path":     "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
	"protocol": "%PROTOCOL%",
	"received": "%BYTES_RECEIVED%",
	"sent":     "%BYTES_SENT%",
	"attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
	"cluster":  "%UPSTREAM_CLUSTER%",
	"upstream": "%UPSTREAM_HOST%",
	"route":    "%ROUTE_NAME%",
	"chain":    "%FILTER_CHAIN_NAME%",
	"sni":      "%REQUESTED_SERVER_NAME%",
	"peer":     "%DOWNSTREAM_PEER_URI_SAN%",
	"client":   "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",

	"flags_long":  "%RESPONSE_FLAGS_LONG%",
	"type":        "%ACCESS_LOG_TYPE%",
	"query":       "%QUERY_PARAMS% %QUERY_PARAM(a)%",
	"path2":       "%PATH(NQ)% %PATH(WQ:ORIG)%",
	"host":        "%REQUESTED_SERVER_NAME(HOST_FIRST)%",
	"grpc":        "%GRPC_STATUS% %GRPC_STATUS(SNAKE_STRING)% %GRPC_STATUS_NUMBER%",
	"network":     "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(8)%",
	"upstream2":   "%UPSTREAM_PROTOCOL% %UPSTREAM_HOST_NAME% %UPSTREAM_TLS_VERSION% %UPSTREAM_TLS_CIPHER%",
	"tried":       "%UPSTREAM_HOSTS_ATTEMPTED%",
	"tls":         "%DOWNSTREAM_TLS_VERSION% %DOWNSTREAM_TLS_CIPHER% %DOWNSTREAM_TLS_GROUP%",
	"certificate": "%DOWNSTREAM_PEER_SUBJECT% %DOWNSTREAM_PEER_ISSUER% %DOWNSTREAM_PEER_SERIAL% %DOWNSTREAM_PEER_FINGERPRINT_256% %DOWNSTREAM_PEER_FINGERPRINT_1% %DOWNSTREAM_PEER_DNS_SAN% %DOWNSTREAM_PEER_CERT_V_END% %DOWNSTREAM_PEER_CERT%",
	"reason":      "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
	"reached":     "%UPSTREAM_REMOTE_ADDRESS% %UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(8)%",
	"length":      "%RESP(CONTENT-LENGTH)%",
	"cut":         "%REQ(X-MULTI):2%",
	"local":       "%LOCAL_REPLY_BODY%",
	"empty":       "%REQ(X-EMPTY)%",
	"values":      "%REQ(X-MULTI)% %REQ(X-NONE?X-MULTI)% %RESP(X-MULTI)% %TRAILER(X-MULTI)%",
	"empties":     "%REQ(X-EMPTY)%|%REQ(X-EMPTY):3%|%REQ(X-EMPTY?X-MULTI)%|%RESP(X-EMPTY)%|%TRAILER(X-EMPTY)%|%QUERY_PARAM(e)%|%QUERY_PARAMS%",
	"environment": "%ENVIRONMENT(HAUBERK_NONE)%",
	"first_empty": "%COALESCE({\"operators\": [{\"command\": \"REQ\", \"param\": \"x-empty\"}, {\"command\": \"REQ\", \"param\": \":method\"}]})%",
	"first":       "%COALESCE({\"operators\": [\"ROUTE_NAME\", {\"command\": \"REQ\", \"param\": \":method\"}]})%",
}

// accessLog is the log of every record, behind those of what passes the filters: all
// lines of a record are in one file.
func (p *place) accessLog(c *Config) []any {
	var logs []any
	for _, name := range slices.Sorted(maps.Keys(c.LogFilters)) {
		log := p.fileLog(c, map[string]string{"passed": name})
		log["filter"] = c.LogFilters[name]
		logs = append(logs, log)
	}
	if c.OTLP != nil {
		return append(logs, p.otlpLog(c))
	}
	return append(logs, p.fileLog(c, with(logFields, c.LogFields)))
}

// with are both, the latter where they have the same names.
func with(fields, more map[string]string) map[string]string {
	out := maps.Clone(fields)
	maps.Copy(out, more)
	return out
}

// connectionFields are those that a listener knows of a connection, whatever serves it.
func connectionFields() map[string]string {
	out := map[string]string{}
	for _, name := range []string{"flags", "closed", "received", "sent", "chain", "sni", "client"} {
		out[name] = logFields[name]
	}
	return out
}

func (p *place) fileLog(c *Config, fields map[string]string) map[string]any {
	return map[string]any{"name": "file", "typed_config": map[string]any{
		"@type": apiType + "extensions.access_loggers.file.v3.FileAccessLog", "path": p.logFile(c.Name),
		"log_format": map[string]any{"json_format": fields},
	}}
}

// bootstrap is the group's file for one of the programs. Only ports and the names
// of files differ between the two.
func (g *Group) bootstrap(p *place, certs *certs) ([]byte, error) {
	var listeners, clusters []any
	for i := range g.Configs {
		l, err := g.Configs[i].listener(p, certs)
		if err != nil {
			return nil, err
		}
		listeners = append(listeners, l)
	}
	for _, name := range append(originNames, "refused") {
		clusters = append(clusters, map[string]any{"name": name, "load_assignment": p.assignment(name, []any{name})})
	}
	ofHTTP2 := []string{"http2", "frames"}
	if g.collects() {
		ofHTTP2 = append(ofHTTP2, "collector")
		const name = "collector over HTTP/1"
		clusters = append(clusters, map[string]any{"name": name, "load_assignment": p.assignment(name, []any{"collector"})})
	}
	for _, name := range ofHTTP2 {
		clusters = append(clusters, map[string]any{"name": name, "load_assignment": p.assignment(name, []any{name}),
			"typed_extension_protocol_options": map[string]any{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": map[string]any{
				"@type":                apiType + "extensions.upstreams.http.v3.HttpProtocolOptions",
				"explicit_http_config": map[string]any{"http2_protocol_options": map[string]any{}}}}})
	}
	for _, c := range g.Clusters {
		c = maps.Clone(c)
		name, _ := c["name"].(string)
		if e, ok := c["endpoints"].([]any); ok {
			delete(c, "endpoints")
			if err := p.assign(c, p.assignment(name, e)); err != nil {
				return nil, err
			}
		}
		certs.socket(c)
		clusters = append(clusters, c)
	}
	out := map[string]any{
		"node":             map[string]any{"id": "differential", "cluster": "test"},
		"static_resources": map[string]any{"listeners": listeners, "clusters": clusters},
	}
	maps.Copy(out, g.Bootstrap)
	return yaml.Marshal(p.placed(out))
}

// assign gives a cluster its endpoints, with a policy that it has for them. One of type EDS
// finds them in a file.
func (p *place) assign(c, assignment map[string]any) error {
	if policy, ok := c["policy"]; ok {
		delete(c, "policy")
		assignment["policy"] = policy
	}
	if own, ok := c["host_tlvs"]; ok {
		delete(c, "host_tlvs")
		tellHosts(assignment, own)
	}
	if c["type"] != "EDS" {
		c["load_assignment"] = assignment
		return nil
	}
	file := filepath.Join(p.dir, fmt.Sprint(c["name"], ".yaml"))
	c["eds_cluster_config"] = map[string]any{"eds_config": map[string]any{"path_config_source": map[string]any{"path": file}}}
	assignment["@type"] = apiType + "config.endpoint.v3.ClusterLoadAssignment"
	b, err := yaml.Marshal(map[string]any{"resources": []any{assignment}})
	if err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o600)
}

// tellHosts has headers of the PROXY protocol to every host say more.
func tellHosts(assignment map[string]any, tlvs any) {
	for _, l := range assignment["endpoints"].([]any) {
		for _, e := range l.(map[string]any)["lb_endpoints"].([]any) {
			e.(map[string]any)["metadata"].(map[string]any)["typed_filter_metadata"] = map[string]any{
				"envoy.transport_sockets.proxy_protocol": map[string]any{"@type": apiType + "config.core.v3.PerHostConfig", "added_tlvs": tlvs}}
		}
	}
}

// assignment of endpoints by priority: names, or lists of names. One that has a health
// status is a map of that by its name.
func (p *place) assignment(cluster string, endpoints []any) map[string]any {
	endpoint := func(name any) map[string]any {
		health := "UNKNOWN"
		if of, ok := name.(map[string]any); ok {
			for n, h := range of {
				name, health = n, fmt.Sprint(h)
			}
		}
		return map[string]any{
			"health_status": health,
			"endpoint":      map[string]any{"address": socketAddress(p.origins.ports[fmt.Sprint(name)])},
			// Hashes are of the name: the two programs have origins at other addresses.
			"metadata": map[string]any{"filter_metadata": map[string]any{"envoy.lb": map[string]any{"hash_key": fmt.Sprint(name)}}},
		}
	}
	var localities []any
	var first []any
	for i, e := range endpoints {
		if of, ok := e.(map[string]any); ok && of["of"] != nil {
			localities = append(localities, zone(of, endpoint))
			continue
		}
		if list, ok := e.([]any); ok {
			var eps []any
			for _, n := range list {
				eps = append(eps, endpoint(n))
			}
			localities = append(localities, map[string]any{"priority": i, "lb_endpoints": eps})
			continue
		}
		first = append(first, endpoint(e))
	}
	if first != nil {
		localities = []any{map[string]any{"lb_endpoints": first}}
	}
	return map[string]any{"cluster_name": cluster, "endpoints": localities}
}

// zone is a locality of the endpoints that it lists.
func zone(of map[string]any, endpoint func(name any) map[string]any) map[string]any {
	var eps []any
	for _, name := range of["of"].([]any) {
		e := endpoint(name)
		if w := of["weight"]; w != nil {
			e["load_balancing_weight"] = w
		}
		eps = append(eps, e)
	}
	out := map[string]any{"locality": map[string]any{"zone": of["zone"]}, "priority": cmp.Or(of["priority"], any(0)), "lb_endpoints": eps}
	if m := of["metadata"]; m != nil {
		out["metadata"] = m
	}
	return out
}

func (c *Config) listener(p *place, certs *certs) (map[string]any, error) {
	l := map[string]any{"name": c.Name, "address": socketAddress(p.ports[c.Name]),
		"enable_reuse_port": false} // nobody shares the port unnoticed
	if c.ListenerLog {
		l["access_log"] = []any{p.fileLog(c, with(connectionFields(), c.LogFields))}
		if c.OTLP != nil {
			l["access_log"] = []any{p.otlpLog(c)}
		}
	}
	maps.Copy(l, c.Listener)
	if c.FilterChains != nil {
		var chains []any
		for _, chain := range c.FilterChains {
			chain = maps.Clone(chain)
			if match, ok := chain["filter_chain_match"].(map[string]any); ok && match["destination_port"] == "own" {
				match = maps.Clone(match)
				match["destination_port"], chain["filter_chain_match"] = p.ports[c.Name], match
			}
			if routes, ok := chain["routes"]; ok {
				delete(chain, "routes")
				chain["filters"] = []any{c.hcm(p, routes)}
			}
			if cluster, ok := chain["tcp"]; ok {
				before, _ := chain["before"].([]any) // network filters
				delete(chain, "tcp")
				delete(chain, "before")
				chain["filters"] = append(slices.Clone(before), c.tcpProxy(p, cluster))
			}
			switch kind := chain["tls"]; kind {
			case nil:
			case "discovered":
				chain["transport_socket"] = certs.discovered()
			default:
				also, _ := chain["also"].(string)
				chain["transport_socket"] = certs.downstream(strings.Fields(also)...)
				if context, ok := chain["context"].(map[string]any); ok {
					maps.Copy(chain["transport_socket"].(map[string]any)["typed_config"].(map[string]any), context)
				}
				if common, ok := kind.(map[string]any); ok {
					maps.Copy(commonOf(chain), common)
				}
			}
			for _, own := range []string{"tls", "also", "context"} {
				delete(chain, own)
			}
			c.secure(chain, certs)
			chains = append(chains, chain)
		}
		l["filter_chains"] = chains
		return l, nil
	}
	var filters []any
	for _, f := range c.Before {
		filters = append(filters, f)
	}
	chain := map[string]any{"filters": append(filters, c.hcm(p, nil))}
	c.secure(chain, certs)
	l["filter_chains"] = []any{chain}
	return l, nil
}

// secure gives a chain the TLS context that all of a configuration have.
func (c *Config) secure(chain map[string]any, certs *certs) {
	if c.MTLS == nil {
		return
	}
	chain["transport_socket"] = certs.downstream(c.MTLS.Also...)
	maps.Copy(validationOf(chain), c.MTLS.Validation)
	if c.MTLS.Optional {
		delete(chain["transport_socket"].(map[string]any)["typed_config"].(map[string]any), "require_client_certificate")
	}
}

func (c *Config) hcm(p *place, routes any) map[string]any {
	h := map[string]any{"@type": apiType + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
		"stat_prefix": c.Name, "access_log": p.accessLog(c)}
	maps.Copy(h, c.HCM)
	var filters []any
	for _, f := range c.Filters {
		filters = append(filters, f)
	}
	if h["http_filters"] == nil {
		router := map[string]any{"@type": apiType + "extensions.filters.http.router.v3.Router"}
		if c.UpstreamLog != nil {
			router["upstream_log"], router["upstream_log_options"] = []any{p.fileLog(c, with(logFields, c.LogFields))}, c.UpstreamLog
		}
		maps.Copy(router, c.Router)
		h["http_filters"] = append(filters, map[string]any{"name": "router", "typed_config": router})
	}
	hosts := any(c.VirtualHosts)
	if c.VirtualHosts == nil {
		if routes == nil {
			routes = c.Routes
		}
		host := map[string]any{"name": "all", "domains": []any{"*"}, "routes": routes}
		maps.Copy(host, c.VHost)
		hosts = []any{host}
	}
	routeConfig := map[string]any{"name": "local", "virtual_hosts": hosts}
	maps.Copy(routeConfig, c.RouteConfig)
	h["route_config"] = routeConfig
	return map[string]any{"name": "hcm", "typed_config": h}
}

// tcpProxy leads to a cluster, or has the fields that it is given.
func (c *Config) tcpProxy(p *place, cluster any) map[string]any {
	t := map[string]any{"@type": apiType + "extensions.filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": c.Name}
	if !c.ListenerLog {
		t["access_log"] = p.accessLog(c)
	}
	if fields, ok := cluster.(map[string]any); ok {
		maps.Copy(t, fields)
	} else {
		t["cluster"] = cluster
	}
	return map[string]any{"name": "tcp", "typed_config": t}
}

// plainTCP tells whether the listener does not speak HTTP.
func (c *Config) plainTCP() bool {
	for _, chain := range c.FilterChains {
		if _, ok := chain["tcp"]; ok {
			return true
		}
	}
	return false
}

//go:build e2e

package differential

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestRandomChains: random filter chains, TLS contexts of listeners and of clusters, and peers of
// all kinds.
func TestRandomChains(t *testing.T) {
	p := newPKI(t)
	random(t, domain{rounds: 2, known: knownOfChains, group: func(r *rand.Rand) *Group { return randomChains(r, p) }})
}

func randomChains(r *rand.Rand, p *pki) *Group {
	g := &Group{About: "random filter chains"}
	for i := range 3 {
		g.Configs = append(g.Configs, p.randomServer(r, fmt.Sprintf("tls-%d", i)))
	}
	for i := range 2 {
		g.Configs = append(g.Configs, randomMatches(r, fmt.Sprintf("chains-%d", i)))
	}
	p.randomClients(r, g)
	p.always(g)
	return g
}

// always has peers that are to be refused for one thing alone, a name, a revocation or a purpose, in each seed.
func (p *pki) always(g *Group) {
	named := map[string]any{"trusted_ca": p.file("root.crt"), "match_typed_subject_alt_names": []any{map[string]any{"san_type": "URI", "matcher": map[string]any{"exact": "spiffe://one.test/b"}}}}
	listed := map[string]any{"trusted_ca": p.file("root.crt"), "crl": p.file("root.crl")}
	above := map[string]any{"trusted_ca": p.file("withrevoked.crt"), "crl": p.file("lists.crl")}
	clients := &g.Configs[len(g.Configs)-1]
	for i, kind := range []struct {
		validation map[string]any
		certs      []string
	}{{named, []string{"plain", "byanyusage"}}, {listed, []string{"revoked", "anyusage"}}, {above, []string{"byrevoked"}}} {
		server := &g.Configs[i]
		socket := server.FilterChains[0]["transport_socket"].(map[string]any)["typed_config"].(map[string]any)
		delete(socket, "require_sni")
		socket["common_tls_context"] = map[string]any{"tls_certificates": []any{p.own("plain")}, "validation_context": kind.validation}
		socket["require_client_certificate"] = true
		cluster := g.Clusters[i]
		cluster["transport_socket"] = map[string]any{"name": "tls", "typed_config": map[string]any{"@type": apiType + "extensions.transport_sockets.tls.v3.UpstreamTlsContext",
			"common_tls_context": map[string]any{"validation_context": kind.validation}}}
		delete(cluster, "upstream_http_protocol_options")
		for j, cert := range kind.certs {
			server.Cases[j].TLS = &ClientTLS{Shown: true, Cert: "file:" + p.path(cert)}
			clients.Cases[5*i+j].Secure = &Secure{Cert: p.path(cert)}
		}
	}
}

const listenerFilterType = apiType + "extensions.filters.listener."

func listenerFilter(name, kind string, fields map[string]any) map[string]any {
	typed := map[string]any{"@type": listenerFilterType + name + ".v3." + kind}
	maps.Copy(typed, fields)
	return map[string]any{"name": name, "typed_config": typed}
}

// contextFields are what listeners and clusters have in common.
func (p *pki) commonContext(r *rand.Rand) map[string]any {
	common := map[string]any{}
	params := map[string]any{}
	if v := one(r, "", "", "", "TLSv1_2", "TLSv1_3", "TLS_AUTO"); v != "" {
		params["tls_maximum_protocol_version"] = v
		if chance(r, 2) && v != "TLS_AUTO" {
			params["tls_minimum_protocol_version"] = v
		}
	}
	if chance(r, 4) {
		params["cipher_suites"] = one(r, []any{"ECDHE-ECDSA-AES128-GCM-SHA256"}, []any{"ECDHE-RSA-AES256-GCM-SHA384"},
			[]any{"[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-ECDSA-CHACHA20-POLY1305]", "ECDHE-RSA-AES128-GCM-SHA256"})
	}
	if len(params) > 0 {
		common["tls_params"] = params
	}
	if chance(r, 3) {
		common["alpn_protocols"] = one(r, []any{"http/1.1"}, []any{"h2", "http/1.1"}, []any{"special"}, []any{"http/1.1,special"})
	}
	return common
}

// validation is a random validation context.
func (p *pki) validation(r *rand.Rand) map[string]any {
	v := map[string]any{}
	leaf := func() string { return leaves[r.IntN(len(leaves))].name }
	anchored := !chance(r, 8)
	if anchored {
		v["trusted_ca"] = p.file(one(r, "root.crt", "root.crt", "root.crt", "both.crt", "rootb.crt", "inter.crt", "withinter.crt", "withlist.crt", "withlists.crt", "withrevoked.crt", "rootrsa.crt", "plain.crt", "expired.crt"))
	}
	if anchored && chance(r, 2) {
		var names []any
		for range 1 + r.IntN(2) {
			names = append(names, randomName(r))
		}
		v["match_typed_subject_alt_names"] = names
	}
	if !anchored || chance(r, 8) {
		v["verify_certificate_hash"] = []any{p.hash(leaf()), p.hash(one(r, "plain", "expired", "foreign", "byinter", "inter"))}
	}
	if chance(r, 8) {
		v["verify_certificate_spki"] = []any{p.spki(leaf()), p.spki(one(r, "plain", "expired", "foreign", "byinter", "inter"))}
	}
	if chance(r, 4) {
		v["max_verify_depth"] = one(r, 0, 1, 2, 3, 100)
	}
	if chance(r, 10) {
		v["trust_chain_verification"] = "ACCEPT_UNTRUSTED"
	}
	if anchored && chance(r, 6) {
		v["crl"] = p.file(one(r, "root.crl", "root.crl", "inter.crl", "rootb.crl", "lists.crl"))
		if chance(r, 2) {
			v["only_verify_leaf_cert_crl"] = true
		}
	}
	if anchored && chance(r, 8) {
		return p.trustDomains(r)
	}
	return v
}

func (p *pki) trustDomains(r *rand.Rand) map[string]any {
	var domains []any
	for _, name := range []string{"one.test", "two.test", "three.test"} {
		if !chance(r, 3) || name == "one.test" {
			// The sidecar refuses a bundle without a root, which lets nobody in with Envoy.
			bundle := one(r, "root.crt", "root.crt", "rootrsa.crt", "rootb.crt", "withinter.crt", "withlist.crt", "withlists.crt")
			domains = append(domains, map[string]any{"name": name, "trust_bundle": p.file(bundle)})
		}
	}
	v := map[string]any{"custom_validator_config": map[string]any{"name": "envoy.tls.cert_validator.spiffe", "typed_config": map[string]any{
		"@type": apiType + "extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig", "trust_domains": domains}}}
	if chance(r, 2) {
		// Of other names Envoy's validator knows nothing; the sidecar asks for them too.
		v["match_typed_subject_alt_names"] = []any{map[string]any{"san_type": "URI", "matcher": randomMatcher(r, one(r, "spiffe://one.test/a", "spiffe://two.test/a"))}}
	}
	if chance(r, 3) {
		v["trust_chain_verification"] = "ACCEPT_UNTRUSTED" // which trust domains know nothing of
	}
	return v
}

// randomName matches one of the names that certificates have, nearly or not at all.
func randomName(r *rand.Rand) map[string]any {
	kind := one(r, "URI", "URI", "DNS", "DNS", "IP_ADDRESS", "EMAIL")
	value := map[string][]string{
		"URI":        {"spiffe://one.test/a", "spiffe://one.test/b", "spiffe://two.test/a", "SPIFFE://one.test/A"},
		"DNS":        {"a.example", "b.example", "*.a.example", "x.a.example", "y.x.a.example", "A.example", "z.example", "a.example."},
		"IP_ADDRESS": {"127.0.0.1", "::1", "2001:db8::1", "2001:DB8:0::1", "127.0.0.2"},
		"EMAIL":      {"a@a.example", "A@A.EXAMPLE", "b@a.example"},
	}[kind]
	return map[string]any{"san_type": kind, "matcher": randomMatcher(r, value[r.IntN(len(value))])}
}

// randomMatcher is a string matcher about a text.
func randomMatcher(r *rand.Rand, text string) map[string]any {
	m := map[string]any{}
	half := len(text) / 2
	switch r.IntN(6) {
	case 0:
		m["prefix"] = text[:half+1]
	case 1:
		m["suffix"] = text[half:]
	case 2:
		m["contains"] = text[1:max(2, half)]
	case 3:
		m["safe_regex"] = map[string]any{"regex": strings.ReplaceAll(one(r, text, text[:half]+".*", ".*", ".+"+text[half:]), "*.a", ".*a")}
		return m
	default:
		m["exact"] = text
	}
	if chance(r, 4) {
		m["ignore_case"] = true
	}
	return m
}

// presentable are the certificates that a program can have for its own.
func presentable(r *rand.Rand) string {
	return one(r, "plain", "plain", "other", "wild", "wildrsa", "upper", "commonname", "bothnames", "byinter", "bydeep", "expired", "foreign", "nonames", "v6", "several")
}

// randomServer is a listener whose chains take TLS.
func (p *pki) randomServer(r *rand.Rand, name string) Config {
	c := Config{Name: name, About: "random", ListenerLog: true, LogFields: map[string]string{
		"who": "%RESPONSE_FLAGS% %DOWNSTREAM_TLS_VERSION% %DOWNSTREAM_PEER_URI_SAN% %DOWNSTREAM_PEER_DNS_SAN% %DOWNSTREAM_PEER_SERIAL% " +
			"%DOWNSTREAM_PEER_ISSUER% %DOWNSTREAM_PEER_SUBJECT% %DOWNSTREAM_LOCAL_SUBJECT% %DOWNSTREAM_LOCAL_URI_SAN% %DOWNSTREAM_LOCAL_DNS_SAN%",
		"failed": "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%"}}
	c.Listener = map[string]any{"listener_filters": []any{listenerFilter("tls_inspector", "TlsInspector", nil)}}
	for i := range 1 + r.IntN(3) {
		socket := map[string]any{"@type": apiType + "extensions.transport_sockets.tls.v3.DownstreamTlsContext"}
		common := p.commonContext(r)
		var own []any
		seen := map[string]bool{}
		for range 1 + r.IntN(3) {
			if n := presentable(r); !seen[n] {
				seen[n] = true
				own = append(own, p.own(n))
			}
		}
		common["tls_certificates"] = own
		if !chance(r, 4) {
			common["validation_context"] = p.validation(r)
			if !chance(r, 3) {
				socket["require_client_certificate"] = true
			}
		}
		socket["common_tls_context"] = common
		for _, flag := range []string{"require_sni", "full_scan_certs_on_sni_mismatch", "disable_stateless_session_resumption", "prefer_client_ciphers"} {
			if chance(r, 5) {
				socket[flag] = true
			}
		}
		chain := map[string]any{"name": fmt.Sprintf("c%d", i), "tcp": "origin", "transport_socket": map[string]any{"name": "tls", "typed_config": socket}}
		if i > 0 {
			chain["filter_chain_match"] = map[string]any{"server_names": one(r, []any{fmt.Sprintf("%c.example", 'a'+i)}, []any{fmt.Sprintf("*.%c.example", 'a'+i-1)})}
		}
		c.FilterChains = append(c.FilterChains, chain)
	}
	for i := range 8 {
		x := Case{Name: fmt.Sprintf("case-%d", i), Raw: "tcp hello\n", TLS: p.client(r)}
		if x.TLS.Cert != "none" && strings.Contains(fmt.Sprint(c.FilterChains), "trust_domains") {
			x.TLS.Cert = "file:" + p.path(one(r, identities...))
		}
		c.Cases = append(c.Cases, x)
	}
	return c
}

func (p *pki) client(r *rand.Rand) *ClientTLS {
	c := &ClientTLS{Shown: true, Cert: "none"}
	if !chance(r, 5) {
		c.Cert = "file:" + p.path(leaves[r.IntN(len(leaves))].name)
		if chance(r, 4) {
			c.Cert = "file:" + p.path("plain")
		}
	}
	c.SNI = one(r, "", "a.example", "a.example", "b.example", "c.example", "x.a.example", "y.x.a.example", "A.Example", "x.b.example", "z.example", "none.test", "xn--bcher-kva.example")
	if chance(r, 2) {
		c.ALPN = one(r, []string{"http/1.1"}, []string{"h2", "http/1.1"}, []string{"special"}, []string{"none"}, []string{"none", "special", "http/1.1"})
	}
	switch r.IntN(5) {
	case 0:
		c.Max = "1.2"
	case 1:
		c.Max, c.Suites = "1.2", one(r, []string{"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"}, []string{"TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"}, []string{"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"})
	case 2:
		c.Min = "1.3"
	}
	return c
}

// randomClients adds a listener whose routes lead to clusters with random TLS contexts.
func (p *pki) randomClients(r *rand.Rand, g *Group) {
	c := Config{Name: "upstream", About: "random", Fresh: true, LogFields: map[string]string{"upstream2": "%UPSTREAM_TLS_VERSION%",
		"theirs": "%UPSTREAM_PEER_SUBJECT% %UPSTREAM_PEER_URI_SAN% %UPSTREAM_PEER_DNS_SAN% %UPSTREAM_PEER_ISSUER%"}}
	for i := range 5 {
		name := fmt.Sprintf("u%d", i)
		cluster := map[string]any{"name": name, "load_assignment": map[string]any{"cluster_name": name, "endpoints": []any{map[string]any{"lb_endpoints": []any{
			map[string]any{"endpoint": map[string]any{"hostname": one(r, "", "a.example", "x.a.example", "127.0.0.1"), "address": map[string]any{"socket_address": "secure"}}}}}}}}
		socket := map[string]any{"@type": apiType + "extensions.transport_sockets.tls.v3.UpstreamTlsContext"}
		if chance(r, 2) {
			socket["sni"] = one(r, "a.example", "x.a.example", "A.example", "b.example", "z.example", "127.0.0.1")
		}
		for _, flag := range []string{"auto_host_sni", "auto_sni_san_validation", "enforce_rsa_key_usage"} {
			if chance(r, 4) {
				socket[flag] = true
			}
		}
		common := p.commonContext(r)
		validation := p.validation(r)
		if validation["trusted_ca"] == nil {
			delete(socket, "auto_sni_san_validation") // both refuse it
		}
		if validation["max_verify_depth"] != 100 {
			delete(validation, "max_verify_depth") // which Envoy heeds of clients alone
		}
		untrusted := validation["trust_chain_verification"] != nil
		common["validation_context"] = validation
		if chance(r, 2) {
			common["tls_certificates"] = []any{p.own(presentable(r))}
		}
		socket["common_tls_context"] = common
		cluster["transport_socket"] = map[string]any{"name": "tls", "typed_config": socket}
		http := map[string]any{}
		named := socket["sni"] != nil || socket["auto_host_sni"] != nil
		if chance(r, 4) || socket["auto_sni_san_validation"] != nil && !named { // which needs a name
			http["auto_sni"] = true
			if chance(r, 2) && !untrusted {
				http["auto_san_validation"] = true
			}
		}
		if len(http) > 0 {
			cluster["upstream_http_protocol_options"] = http
		}
		g.Clusters = append(g.Clusters, cluster)
		c.Routes = append(c.Routes, map[string]any{"match": map[string]any{"path": "/" + name}, "route": map[string]any{"cluster": name}})
		for range 5 {
			host := one(r, "a.example", "x.a.example", "A.example", "b.example", "127.0.0.1", "a.example:80", "z.example")
			if host == "127.0.0.1" && socket["auto_sni_san_validation"] != nil {
				host = "a.example" // else no name is sent, and the sidecar refuses to go on without
			}
			x := Case{Name: fmt.Sprintf("case-%d", len(c.Cases)), Send: "GET /" + name + "\nHost: " + host + "\n"}
			x.Secure = &Secure{Cert: p.path(leaves[r.IntN(len(leaves))].name), Asks: chance(r, 2), ALPN: one(r, nil, nil, []string{"http/1.1"}, []string{"special"}, []string{"none"})}
			if chance(r, 3) {
				x.Secure.Cert = p.path("plain")
			}
			if validation["custom_validator_config"] != nil {
				x.Secure.Cert = p.path(one(r, identities...))
			}
			x.Secure.Max = one(r, "", "", "1.2")
			c.Cases = append(c.Cases, x)
		}
	}
	g.Configs = append(g.Configs, c)
}

// knownOfChains are differences that docs/differential.md has.
func knownOfChains(c *Config, x *Case, d Difference) string {
	ended := []string{"closed", "reset"}
	switch {
	case d.Field == "log.failed" && (d.Envoy == "null") == (d.Hauberk == "null"):
		return "the sidecar says in its own words what TLS found"
	case d.Field == "end" && slices.Contains(ended, d.Envoy) && slices.Contains(ended, d.Hauberk):
		return "whoever closes with bytes that it has not read resets"
	case d.Field == "log.closed" && d.Envoy == "null", d.Field == "log.flags" && d.Envoy == "-" && (d.Hauberk == "DPE" || d.Hauberk == "TLS"):
		return "the log tells why a connection ended"
	case d.Field == "log.who" && d.Hauberk == "TLS - - - - - - - - -":
		return "who was refused is nobody: the log has nothing of a certificate that was not accepted"
	case d.Field == "upstream.said" && strings.ReplaceAll(d.Envoy, `SNI "127.0.0.1"`, `SNI ""`) == d.Hauberk:
		return "an address is no server name (RFC 6066 3)"
	case d.Field == "upstream.said" && strings.EqualFold(d.Envoy, d.Hauberk):
		return "a name of DNS is the same in any case (RFC 6066 3), and so are the connections for it"
	case d.Field == "log.who" && unknown(d, 2, 7), d.Field == "log.theirs" && unknown(d, 1, 3):
		return "who is accepted without trust is nobody"
	}
	if unchecked(x) {
		return "auto_sni_san_validation lets nobody through where no name was sent that a certificate could be checked against; Envoy asks for none then"
	}
	if x.Raw != "" && x.TLS == nil && !x.Patient && d.Field != "tcp" && !strings.HasPrefix(d.Field, "upstream") && (d.Envoy == absent || strings.HasPrefix(d.Field, "log.")) {
		return "Envoy gives up on a connection that has ended before its listener filters have"
	}
	if x.TLS == nil {
		return ""
	}
	socket := chainOf(c, x)["transport_socket"].(map[string]any)["typed_config"].(map[string]any)
	refused := x.Seen[1]["tcp"] == "" && x.Seen[1]["upstream.start"] == "" && x.Seen[1]["upstream.origin"] == ""
	switch {
	case x.TLS.Max == "1.2" && fits(x, socket) && otherCertificate(x, d):
		return "of several certificates one is presented that the client can use; Envoy looks at the client's groups alone for whether that is ECDSA's"
	case refused && x.TLS.Cert == "none" && requiresOfAnybody(socket):
		return "require_client_certificate is heeded without a trusted_ca too; Envoy forgets it where it accepts whoever comes"
	case refused && x.TLS.SNI == "" && socket["require_sni"] == true:
		return "a client that names no server is refused where require_sni says so, which Envoy does not heed"
	case (d.Field == "tls" || d.Field == "log.who") && capitals(c, x):
		return "a name of DNS is the same in any case (RFC 6066 3), also for the choice of a certificate"
	}
	return ""
}

// chainOf is the chain that a client's server name leads to.
func chainOf(c *Config, x *Case) map[string]any {
	name := strings.ToLower(x.TLS.SNI)
	best, length := c.FilterChains[0], 0
	for _, chain := range c.FilterChains[1:] {
		for _, of := range chain["filter_chain_match"].(map[string]any)["server_names"].([]any) {
			suffix, wild := strings.CutPrefix(of.(string), "*")
			if name == of || wild && length < len(suffix) && len(name) > len(suffix) && strings.HasSuffix(name, suffix) {
				best, length = chain, len(suffix)
				if !wild {
					return chain
				}
			}
		}
	}
	return best
}

// fits tells whether a chain has several certificates, and one of them is of a kind that the suites
// of the chain and of the client know.
func fits(x *Case, socket map[string]any) bool {
	common := socket["common_tls_context"].(map[string]any)
	own := common["tls_certificates"].([]any)
	params, _ := common["tls_params"].(map[string]any)
	theirs, ours := fmt.Sprint(x.TLS.Suites), fmt.Sprint(params["cipher_suites"])
	if len(own) < 2 || len(x.TLS.Suites) == 0 && params["cipher_suites"] == nil {
		return false
	}
	for _, certificate := range own {
		name := fmt.Sprint(certificate.(map[string]any)["certificate_chain"])
		kind := "ECDSA"
		if slices.ContainsFunc(leaves, func(l issued) bool { return l.key == "rsa" && strings.HasSuffix(name, "/"+l.name+".crt]") }) {
			kind = "RSA"
		}
		if (len(x.TLS.Suites) == 0 || strings.Contains(theirs, "_"+kind+"_")) && (params["cipher_suites"] == nil || strings.Contains(ours, "-"+kind+"-")) {
			return true
		}
	}
	return false
}

// otherCertificate tells whether a difference is that Envoy found no certificate for a client, or
// another one than the sidecar.
func otherCertificate(x *Case, d Difference) bool {
	if strings.Contains(x.Seen[0]["log.failed"], "NO_SHARED_CIPHER") {
		return d.Envoy == absent || strings.HasPrefix(d.Field, "log.") || d.Field == "end" && d.Envoy == "no handshake"
	}
	return x.Seen[0]["tls"] != "" && x.Seen[1]["tls"] != "" && (d.Field == "tls" || d.Field == "log.who")
}

// unchecked tells whether the sidecar alone refused a host, as the cluster asks for a check against
// the name that was sent, and none was.
func unchecked(x *Case) bool {
	return strings.Contains(x.Seen[1]["log.details"], "no_server_name_was_sent_that_it_could_be_checked_against") &&
		x.Seen[1]["response.start"] == "HTTP/1.1 503" && x.Seen[1]["upstream.start"] == "" && addressOrNone.MatchString(x.Seen[0]["upstream.said"])
}

// addressOrNone is of a client that names no server: an address is no name of one (RFC 6066 3).
var addressOrNone = regexp.MustCompile(`SNI "(127\.0\.0\.1)?"`)

// requiresOfAnybody tells whether a chain requires a certificate, which nothing has to vouch for,
// and names no authority.
func requiresOfAnybody(socket map[string]any) bool {
	text := fmt.Sprint(socket)
	return strings.Contains(text, "ACCEPT_UNTRUSTED") && socket["require_client_certificate"] == true && !strings.Contains(text, "trusted_ca")
}

// unknown tells whether the sidecar's record is Envoy's, without the peer's fields.
func unknown(d Difference, from, to int) bool {
	envoy, hauberk := strings.Fields(d.Envoy), strings.Fields(d.Hauberk)
	if len(envoy) != len(hauberk) || len(envoy) < to {
		return false
	}
	for i := range envoy {
		if envoy[i] != hauberk[i] && (i < from || i >= to || hauberk[i] != "-") {
			return false
		}
	}
	return true
}

// capitals tells whether the server's name has them, or that of one of several certificates.
func capitals(c *Config, x *Case) bool {
	if x.TLS.SNI != strings.ToLower(x.TLS.SNI) {
		return true
	}
	for _, chain := range c.FilterChains {
		if strings.Contains(fmt.Sprint(chain["transport_socket"]), "/upper.crt") {
			return x.TLS.SNI == "a.example"
		}
	}
	return false
}

//go:build e2e

package files

import (
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// Secrets come from files, as over the network neither is asked for keys (docs/bootstrap.md).
// CRT0 and CRT1 are of CA0, and so is CRT3, which has expired; CRT2 is of CA1.
var secretNames = []string{"own0", "own1", "own2", "trust0", "trust1"}

const secretType = `{"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret, name: `

// tlsFlaws and checkFlaws are what neither takes of TLS contexts of both ends, and of checks.
var tlsFlaws = []flaw{
	{"no file of a secret", "SECRETS/", "/nowhere/", false},
	{"unnamed secret", "secret_configs: [{name: own", "secret_configs: [{name: \"\", sds_config: {path_config_source: {path: SECRETS/own0.yaml}}}, {name: own", true},
	{"short pin", "verify_certificate_hash: [PIN", "verify_certificate_hash: [ab, PIN", true},
	{"no list", "crl: {inline_string: ", "crl: {inline_string: garbage-", false},
}

var checkFlaws = []flaw{
	{"two checks", "health_checks: [", "health_checks: [{timeout: 1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1, tcp_health_check: {}}, ", false},
	{"no hexadecimals", "send: {text: 47", "send: {text: zz", false},
	{"path of a check", "http_health_check: {path: /check", "http_health_check: {path: \"\", host: /check", true},
	{"no statuses", "start: 503, end: 504", "start: 503, end: 503", false},
	{"statuses beyond", "start: 503, end: 504", "start: 503, end: 700", false},
	{"no time of a check", "timeout: 1s, interval: 0.1s", "timeout: 0s, interval: 0.1s", true},
	{"no interval of a check", " interval: 0.1s", " interval: 0s", true},
	{"no interval without traffic", "no_traffic_interval: 0.1s", "no_traffic_interval: 0s", true},
	{"codec of a check", "http_health_check: {", "http_health_check: {codec_client_type: HTTP3, ", false},
}

func init() {
	flaws[resource.ClusterType] = append(flaws[resource.ClusterType], slices.Concat(tlsFlaws, checkFlaws)...)
	flaws[resource.ListenerType] = append(flaws[resource.ListenerType], tlsFlaws...)
}

// secretFlaws are what neither takes of a secret, by parts of a good one.
var secretFlaws = []flaw{
	{"no YAML", "resources: [", "resources: [[", false},
	{"another's key", "KEY", "KEY9", false},
	{"no certificate", "certificate_chain: {inline_string: ", "certificate_chain: {inline_string: garbage-", false},
	{"no key", "private_key: {inline_string: ", "private_key: {inline_string: garbage-", false},
	{"no authority", "trusted_ca: {inline_string: ", "trusted_ca: {inline_string: garbage-", false},
	{"another name", "name: ", "name: un", false},
	{"no secret", "resources: [{", "others: [{", false},
	{"empty", "resources: [{", "", false},
	{"twice", "}]", "}, " + secretType + "more, tls_certificate: {}}]", false},
	{"no file", "resources: [{", "-", false},
}

func (w *world) secret(name string) thing {
	r := w.r
	text := "resources: [" + secretType + name + ", "
	if strings.HasPrefix(name, "own") {
		n := one(r, "0", "0", "1", "1", "2", "3")
		return thing{text: text + "tls_certificate: {certificate_chain: {inline_string: CRT" + n + "}, private_key: {inline_string: KEY" + n + "}}}]"}
	}
	return thing{text: text + "validation_context: {trusted_ca: {inline_string: " + one(r, "CA0", "CA0", "CA1", "CABOTH") + "}" + w.names() +
		one(r, "", "", "", ", crl: {inline_string: CRL0}", ", max_verify_depth: 1", ", only_verify_leaf_cert_crl: true") + "}}]"}
}

// names are what a validation context asks of a peer, besides its authority.
func (w *world) names() string {
	return one(w.r, "", "", altNames("first.example"), altNames("second.example"), altNames("third.example"), ", verify_certificate_hash: [PIN"+one(w.r, "0", "1", "2", "2")+"]")
}

func altNames(name string) string {
	return ", match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: " + name + "}}]"
}

// spoilSecret is a faulty one of a name.
func (w *world) spoilSecret(name string) thing {
	t := w.secret(name)
	for {
		f := one(w.r, secretFlaws...)
		if !strings.Contains(t.text, f.from) {
			continue
		}
		switch f.name {
		case "empty", "no file":
			t.text = f.to
		case "another's key":
			t.text = t.text[:strings.Index(t.text, "inline_string: KEY")] + "inline_string: KEY9}}}]"
		default:
			t.text = strings.Replace(t.text, f.from, f.to, 1)
		}
		t.fault = f.name
		return t
	}
}

// putSecret has another secret in a file.
func (w *world) putSecret(name string, t thing) {
	if old, ok := w.now[resource.SecretType][name]; ok && old.fault == "" {
		w.sound[resource.SecretType][name] = old
	}
	w.now[resource.SecretType][name] = t
}

// changeSecrets replaces some, spoils them, and has some that were not there.
func (w *world) changeSecrets(touched map[string]bool) {
	for range 1 + w.r.IntN(2) {
		name := one(w.r, secretNames...)
		for _, other := range secretNames {
			// As long as one of the certificates of a context is faulty Envoy takes no other of it.
			if name[0] == 'o' && other[0] == 'o' && w.now[resource.SecretType][other].fault != "" {
				name = other
			}
		}
		old, there := w.now[resource.SecretType][name]
		switch {
		case there && old.fault != "":
			w.healSecret(name, touched)
			continue
		case there && chance(w.r, 3):
			w.putSecret(name, w.spoilSecret(name))
		default:
			w.putSecret(name, w.secret(name))
		}
		t := w.now[resource.SecretType][name]
		w.say("secret %s %s is now %s", name, t.fault, t.text)
		touched[resource.SecretType] = true
	}
}

func (w *world) healSecret(name string, touched map[string]bool) {
	if t := w.now[resource.SecretType][name]; t.fault != "" {
		w.now[resource.SecretType][name] = w.sound[resource.SecretType][name]
		w.say("secret %s healed: %s", name, w.now[resource.SecretType][name].text)
		touched[resource.SecretType] = true
	}
}

// healSecrets has all there is, good.
func (w *world) healSecrets(touched map[string]bool) {
	for _, name := range secretNames {
		if _, ok := w.now[resource.SecretType][name]; !ok {
			w.putSecret(name, w.secret(name))
			w.say("secret %s is now %s", name, w.now[resource.SecretType][name].text)
			touched[resource.SecretType] = true
		}
		w.healSecret(name, touched)
	}
}

// unusable tells whether a resource names a secret that is faulty: what was good of it before is
// in use for all here; in Envoy by those alone who had it.
func (w *world) unusable(t thing) bool {
	for name, s := range w.now[resource.SecretType] {
		if s.fault != "" && s.fault != "no file" && strings.Contains(t.text, "SECRETS/"+name+".yaml") {
			return true
		}
	}
	return false
}

func (w *world) sds(name string) string {
	return "{name: " + name + ", sds_config: {path_config_source: {path: SECRETS/" + name + ".yaml" + one(w.r, "", "", ", watched_directory: {path: SECRETS}") + "}" + one(w.r, "", "", ", initial_fetch_timeout: 0.3s") + "}}"
}

// ownCertificates are what a TLS context shows.
func (w *world) ownCertificates(inline string, several bool) string {
	if several && chance(w.r, 4) {
		return "tls_certificate_sds_secret_configs: [" + w.sds(one(w.r, "own0", "own1")) + ", " + w.sds("own2") + "]"
	}
	if chance(w.r, 2) {
		return "tls_certificate_sds_secret_configs: [" + w.sds(one(w.r, "own0", "own1", "own2")) + "]"
	}
	return "tls_certificates: [{certificate_chain: {inline_string: CRT" + inline + "}, private_key: {inline_string: KEY" + inline + "}}]"
}

// validation is what a TLS context asks of a peer.
func (w *world) validation() string {
	r := w.r
	names := w.names()
	switch r.IntN(4) {
	case 0:
		return "validation_context_sds_secret_config: " + w.sds(one(r, "trust0", "trust1"))
	case 1:
		ca := one(r, "", ", trusted_ca: {inline_string: CA1}", ", trusted_ca: {inline_string: CABOTH}")
		return "combined_validation_context: {default_validation_context: {" + strings.TrimPrefix(ca+names, ", ") + "}, validation_context_sds_secret_config: " + w.sds(one(r, "trust0", "trust1")) + "}"
	}
	return "validation_context: {trusted_ca: {inline_string: CA" + one(r, "0", "0", "1") + "}" + names + "}"
}

// checks are a cluster's active checks.
func (w *world) checks() string {
	r := w.r
	path := one(r, "/check0", "/check1")
	request := hex.EncodeToString([]byte("GET " + path + " HTTP/1.0\r\n\r\n"))
	// In less time than a second a busy machine answers late, and a host that is gone would be gone at one of the two.
	kind := one(r, "http_health_check: {path: "+path+"}", "http_health_check: {path: "+path+"}",
		"http_health_check: {path: "+path+", expected_statuses: [{start: 503, end: 504}]}",
		"http_health_check: {path: "+path+", retriable_statuses: [{start: 503, end: 504}]}, reuse_connection: false",
		"tcp_health_check: {send: {text: "+request+"}, receive: [{text: "+hex.EncodeToString([]byte(" 200 OK"))+"}]}, reuse_connection: false",
		"http_health_check: {path: "+path+", codec_client_type: HTTP2}",
		"tcp_health_check: {}")
	more := one(r, "", "", ", unhealthy_interval: 0.15s, healthy_edge_interval: 0.05s", ", unhealthy_edge_interval: 0.05s, no_traffic_healthy_interval: 0.15s", ", initial_jitter: 0.05s, interval_jitter: 0.02s")
	text := fmt.Sprintf(", health_checks: [{timeout: 1s, interval: 0.1s, no_traffic_interval: 0.1s"+more+", unhealthy_threshold: %d, healthy_threshold: %d, %s}]", one(r, 1, 1, 2), one(r, 1, 1, 2), kind)
	if strings.Contains(kind, "{}") || chance(r, 3) {
		text += ", ignore_health_on_host_removal: true" // of what never fails, a host that is gone never goes
	}
	return text
}

// verdicts are what hosts say to checks, by host and path: a status, or 0 for none in time.
type verdicts [origins][2]int

func (w *world) changeVerdicts() {
	w.swayed = 600 * time.Millisecond
	for range 1 + w.r.IntN(3) {
		i, j := w.r.IntN(origins), w.r.IntN(2)
		w.verdicts[i][j] = one(w.r, 200, 200, 200, 503, 503, 503, 404, 0)
		w.say("host %d says %d to check%d", i, w.verdicts[i][j], j)
		if w.verdicts[i][j] == 0 {
			w.swayed = 2400 * time.Millisecond // until two checks had their time
		}
	}
}

// all has every host say the same.
func (v *verdicts) all(status int) {
	for i := range v {
		v[i] = [2]int{status, status}
	}
}

// writeSecrets has the files of a peer be what there is. Envoy reads only what is moved into place.
func (p *peer) writeSecrets(t *testing.T, w *world) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(w.now[resource.SecretType])) {
		path := filepath.Join(p.dir, name+".yaml")
		text := p.replace.Replace(w.now[resource.SecretType][name].text)
		if text == "-" {
			_ = os.Remove(path)
			continue
		}
		if old, err := os.ReadFile(path); err == nil && string(old) == text {
			continue
		}
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
}

package opaque

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
)

// TracingKey is the key of tracing in a proxy's Config. Its value is an object.
const TracingKey = "tracing"

const tagsKey = "tags"

// Tracing is which requests are traced and where their spans go. It may be a part
// of what is meant until the layers are merged; Check says whether it is whole.
type Tracing struct {
	Disabled bool
	// OTLP and Zipkin are collectors, nil where none is named.
	OTLP, Zipkin *Collector
	// Sampling is the share of requests that begin a trace, in hundredths of a percent.
	Sampling int
	// Tags are texts with the operators of access logs, by the name of the tag.
	Tags map[string]string
}

// Collector is what takes spans: a service of the mesh, or an address outside.
type Collector struct {
	Service string
	// Host and Port are of an address; Port is 0 where there is none.
	Host string
	Port int
	// Protocol is grpc or http; empty for a service's own.
	Protocol string
	// Path is where spans are posted over HTTP.
	Path string
	// Insecure sends to an address without TLS. Otherwise CAFile verifies its
	// certificate, or the host's roots do, for ServerName, or the host's name.
	Insecure           bool
	CAFile, ServerName string
}

// DefaultSampling is 1 %, in hundredths of a percent.
const DefaultSampling = 100

// Where collectors take spans over HTTP.
const (
	otlpPath   = "/v1/traces"
	zipkinPath = "/api/v2/spans"
)

const (
	grpc  = "grpc"
	plain = "http"
)

func readTracing(v any) (*Tracing, error) {
	out := &Tracing{Sampling: DefaultSampling}
	err := fields(v, func(key string, v any) (err error) {
		switch key {
		case "enabled":
			var on bool
			on, err = boolean(v)
			out.Disabled = !on
		case "otlp":
			out.OTLP, err = readCollector(v, otlpPath)
		case "zipkin":
			if out.Zipkin, err = readCollector(v, zipkinPath); err == nil && out.Zipkin.Protocol == grpc {
				err = &fieldError{"protocol", fmt.Errorf("spans to Zipkin are posted over http")}
			}
		case "sampling":
			out.Sampling, err = percent(v)
		case tagsKey:
			out.Tags, err = texts(v)
		default:
			err = fmt.Errorf("unknown key; known are enabled, otlp, zipkin, sampling, tags")
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func readCollector(v any, path string) (*Collector, error) {
	out := &Collector{Path: path}
	err := fields(v, func(key string, v any) (err error) {
		switch key {
		case "service":
			out.Service, err = word(v)
		case "address":
			out.Host, out.Port, err = hostPort(v)
		case "protocol":
			if out.Protocol, err = word(v); err == nil && out.Protocol != grpc && out.Protocol != plain {
				err = fmt.Errorf("%q: use grpc or http", out.Protocol)
			}
		case "path":
			if out.Path, err = word(v); err == nil && !validPath(out.Path) {
				err = fmt.Errorf("%q is no path of a URL that begins with / and needs no escapes", out.Path)
			}
		case "insecure":
			out.Insecure, err = boolean(v)
		case "cafile":
			if out.CAFile, err = word(v); err == nil && !filepath.IsAbs(out.CAFile) {
				err = fmt.Errorf("%q is not an absolute path", out.CAFile)
			}
		case "servername":
			out.ServerName, err = word(v)
		default:
			err = fmt.Errorf("unknown key; known are service, address, protocol, path, insecure, ca_file, server_name")
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Check says, after all layers were merged, what is missing or contradicts itself.
func (t *Tracing) Check() *Problem {
	switch {
	case t.Disabled:
		return nil
	case t.OTLP == nil && t.Zipkin == nil:
		return &Problem{TracingKey, "names no collector; set otlp or zipkin, or enabled = false"}
	case t.OTLP != nil && t.Zipkin != nil:
		return &Problem{TracingKey + ".zipkin", "a request has one trace; remove otlp or zipkin"}
	case t.OTLP != nil:
		return t.OTLP.check(TracingKey + ".otlp")
	}
	return t.Zipkin.check(TracingKey + ".zipkin")
}

func (c *Collector) check(path string) *Problem {
	outside := func(key string) *Problem {
		return &Problem{path + "." + key, "a service of the mesh is called over mTLS, by its identity; remove it"}
	}
	switch {
	case c.Service == "" && c.Port == 0:
		return &Problem{path, "set service, or address"}
	case c.Service != "" && c.Port != 0:
		return &Problem{path + ".address", "excludes service; remove one of them"}
	case c.Service != "" && c.Insecure:
		return outside("insecure")
	case c.Service != "" && c.CAFile != "":
		return outside("ca_file")
	case c.Service != "" && c.ServerName != "":
		return outside("server_name")
	case c.Service != "" && c.Protocol != "":
		return &Problem{path + ".protocol", "is that of the service's own service-defaults; set it there"}
	case c.Insecure && c.CAFile != "":
		return &Problem{path + ".ca_file", "nothing is verified where insecure is set; remove one of them"}
	case c.Insecure && c.ServerName != "":
		return &Problem{path + ".server_name", "nothing is verified where insecure is set; remove one of them"}
	}
	return nil
}

// GRPC tells whether spans go over gRPC, to a service of this protocol or else to
// the address.
func (t *Tracing) GRPC(protocol string) bool {
	return t.OTLP != nil && cmp.Or(protocol, t.OTLP.Protocol, grpc) != plain
}

// Collector is the one that Check found.
func (t *Tracing) Collector() *Collector {
	if t.OTLP != nil {
		return t.OTLP
	}
	return t.Zipkin
}

func word(v any) (string, error) {
	s, ok := v.(string)
	if !ok || s == "" || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return "", fmt.Errorf("want a word without spaces, have %v", v)
	}
	return s, nil
}

func boolean(v any) (bool, error) {
	switch b := v.(type) {
	case bool:
		return b, nil
	case string:
		return strconv.ParseBool(b)
	}
	return false, fmt.Errorf("want true or false, have %v", v)
}

// hostPort reads host:port. A name is one of DNS.
func hostPort(v any) (string, int, error) {
	s, err := word(v)
	if err != nil {
		return "", 0, err
	}
	host, text, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, fmt.Errorf("%q is not host:port", s)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 || host == "" || !validHost(host) {
		return "", 0, fmt.Errorf("%q is not host:port with an IP address or a name of DNS", s)
	}
	return host, int(port), nil
}

// validHost tells whether host is an IP address or a name of DNS: a sidecar refuses the
// listener, and each later change of it, when its tracing names a URI that it cannot parse.
func validHost(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Zone() == ""
	}
	if len(host) > 253 || strings.Contains(host, ":") {
		return false
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(host, "."), ".") {
		if label == "" || len(label) > 63 || strings.ContainsFunc(label, func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
		}) {
			return false
		}
	}
	return true
}

// validPath tells whether a URI ends in path as it is written.
func validPath(path string) bool {
	u, err := url.Parse("http://collector" + path)
	return err == nil && path[0] == '/' && u.Host == "collector" && u.Path == path && u.EscapedPath() == path &&
		!strings.ContainsAny(path, "#?")
}

// percent reads a percentage in steps of 0.01, as hundredths.
func percent(v any) (int, error) {
	var f float64
	var err error
	switch n := v.(type) {
	case float64:
		f = n
	case json.Number:
		f, err = n.Float64()
	case string:
		f, err = strconv.ParseFloat(n, 64)
	default:
		var whole int
		whole, err = wholeNumber(v)
		f = float64(whole)
	}
	hundredths := math.Round(f * 100)
	if err != nil || !(f >= 0 && f <= 100) || math.Abs(hundredths-f*100) > 1e-6 {
		return 0, fmt.Errorf("want a percentage from 0 to 100 in steps of 0.01, have %v", v)
	}
	return int(hundredths), nil
}

// texts reads an object of strings; keys stay as they are written.
func texts(v any) (map[string]string, error) {
	m, ok := object(v)
	if !ok {
		return nil, fmt.Errorf("want an object, have %v", v)
	}
	out := map[string]string{}
	for _, k := range sortedKeys(m) {
		if m[k] == nil {
			continue
		}
		if k == "" {
			return nil, fmt.Errorf("a name is empty; name the text or remove it")
		}
		s, ok := m[k].(string)
		if !ok || s == "" {
			return nil, &fieldError{k, fmt.Errorf("want a text, have %v", m[k])}
		}
		out[k] = s
	}
	return out, nil
}

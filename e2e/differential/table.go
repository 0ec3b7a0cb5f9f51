package differential

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// Group is one file of the table: a bootstrap that both programs run, once for
// all of its cases.
type Group struct {
	Name  string `json:"-"`
	About string `json:"about"`
	// Refused is what the sidecar says instead of taking the file, which Envoy takes.
	Refused *Refusal `json:"refused,omitempty"`
	// Bootstrap has further fields of the file, or others in the place of its own.
	Bootstrap map[string]any `json:"bootstrap,omitempty"`
	// Clusters beside origin, other and refused; endpoints names origins, by priority,
	// or maps a name to a health status; {zone: z, of: [origin]} are those of a zone, which may
	// have a priority, a weight of each, and metadata of their own. policy is that of the assignment, which a cluster
	// of type EDS finds in a file.
	Clusters []map[string]any `json:"clusters,omitempty"`
	Configs  []Config         `json:"configs"`
	// Hosts is how many origins there are besides, at addresses of their own: h1, h2 and so on.
	// An address anywhere may be socket_address: h1.
	Hosts int `json:"hosts,omitempty"`
}

// Refusal is a whole bootstrap that only Envoy takes.
type Refusal struct {
	Says string `json:"says"`
	Why  string `json:"why"`
}

// Common is testdata/common.yaml: what is said once for many cases.
type Common struct {
	// Reasons by name; a why of "@name" is one of them.
	Reasons map[string]string `json:"reasons"`
	// Differs may show up in any case.
	Differs []Difference `json:"differs"`
}

// Config is one listener and the requests that are sent to it. Exactly one of
// HCM's routes, VirtualHosts and FilterChains says what it does.
type Config struct {
	Name         string           `json:"name"`
	About        string           `json:"about"`
	HCM          map[string]any   `json:"hcm,omitempty"`
	Filters      []map[string]any `json:"filters,omitempty"` // before the router
	VHost        map[string]any   `json:"vhost,omitempty"`
	Routes       []map[string]any `json:"routes,omitempty"`
	VirtualHosts []map[string]any `json:"virtual_hosts,omitempty"`
	RouteConfig  map[string]any   `json:"route_config,omitempty"` // further fields of it
	Listener     map[string]any   `json:"listener,omitempty"`
	// FilterChains have "tls", fields of a CommonTlsContext, with "also" further certificates of
	// the table, and "context" fields of the DownstreamTlsContext; "routes" or "tcp", a cluster.
	FilterChains []map[string]any `json:"filter_chains,omitempty"`
	MTLS         *MTLS            `json:"mtls,omitempty"`   // of all filter chains
	Before       []map[string]any `json:"before,omitempty"` // network filters before the connection manager of the only filter chain
	// HTTP2 is what the client speaks, without TLS.
	HTTP2 bool `json:"http2,omitempty"`
	// ListenerLog has the listener log, which knows of connections that no filter chain has,
	// in place of the TCP proxies of filter_chains.
	ListenerLog bool `json:"listener_log,omitempty"`
	// LogFields are further fields of the log of every record. Of those whose names begin with typed the type counts
	// too.
	LogFields map[string]string `json:"log_fields,omitempty"`
	// UpstreamLog has the router log its attempts, too; the options of that are its fields.
	UpstreamLog map[string]any `json:"upstream_log,omitempty"`
	// Router has further fields of the router.
	Router map[string]any `json:"router,omitempty"`
	// LogFilters are filters of access logs by name: log.passed says which of them the
	// record passes.
	LogFilters map[string]any `json:"log_filters,omitempty"`
	// OTLP is OpenTelemetry's access log, in the place of the file's: what arrives at the
	// collector is compared; filter is that of the log. Collector says how it gets there: by
	// grpc, http, or what it has besides in common_config.
	OTLP      map[string]any `json:"otlp,omitempty"`
	Collector any            `json:"collector,omitempty"`
	// Stateful cases depend on those before them, so none is tried a second time.
	Stateful bool `json:"stateful,omitempty"`
	// Fresh lets origins close every connection, so that none is used again; those of frames
	// before the next case.
	Fresh bool   `json:"fresh,omitempty"`
	Cases []Case `json:"cases"`
}

// MTLS is a downstream TLS context that asks for the client's certificate. Its own is api's;
// Also names further ones.
type MTLS struct {
	Also []string `json:"also,omitempty"`
	// Validation has further fields of the validation context.
	Validation map[string]any `json:"validation,omitempty"`
	// Optional lets in who has no certificate.
	Optional bool `json:"optional,omitempty"`
}

// Case is a connection and what is sent on it.
type Case struct {
	Name string `json:"name"`
	// Send is a request: request line, header lines, an empty line and the body.
	// Version, Host and Content-Length are added when they are absent. A body of {70000} has
	// so many bytes.
	Send string `json:"send,omitempty"`
	// Raw is sent as it stands instead; of plain TCP too.
	Raw string `json:"raw,omitempty"`
	// Hello is a ClientHello and nothing after it, on a listener of plain TCP, instead.
	Hello *Hello `json:"hello,omitempty"`
	// Frames is an HTTP/2 connection frame by frame instead. The first line of each has a
	// frame's name, its stream and END or MORE (no END_HEADERS), PAD, an error code or a number;
	// those that follow are fields, or the content. FRAME has type, flags and content in
	// hexadecimal, PING END is an answer to one. A name that is none of a frame is the
	// method of a request: its stream, and a path. SETTINGS has an identifier for a stream;
	// "settle", "await 1" and "wait 50ms" send nothing, and what is between them is sent at
	// once.
	Frames []string `json:"frames,omitempty"`
	// Acts are both ends of a connection step by step instead: "c" is the client, "h" the host
	// that has the request, "h2" the one that had the second. "c POST /p length=5 END" and "h 200
	// chunked x-a=1" are heads, "c data 5", "h trailers x-sum=1" and "c end" what follows them;
	// "c reset CANCEL", "h goaway NO_ERROR", "close" once all is sent, "leave" before it, "cut" by
	// a reset of TCP and "half" end something; "c pause" gives no window or reads no more until
	// "c go", "stall" reads no more in any case; "h window 100" comes first. "h await head", end,
	// gone, left (gone or reset), interim or 500, which is so much of the body, and "wait 5ms" say in which order. The
	// hosts are acts1, acts2, acts1s, acts2s and actss, and acts0 of bytes alone. "c CONNECT /" and
	// "c WEBSOCKET /path" ask for a tunnel.
	Acts []string `json:"acts,omitempty"`
	// HTTP2 is what the client of acts speaks without TLS.
	HTTP2 bool `json:"http2,omitempty"`
	// Dialogue is what the client and the host do over time instead, byte by byte.
	Dialogue *Dialogue `json:"dialogue,omitempty"`
	// ByStream compares answers by their streams, and records and requests by their paths: what
	// is sent at once on several streams is served in no order.
	ByStream bool `json:"by_stream,omitempty"`
	// Logs is how many records a case has, where that is not one for each request.
	Logs *int `json:"logs,omitempty"`
	// More is sent on the same connection after the answer.
	More []string `json:"more,omitempty"`
	// Wait for an interim response before the body is sent.
	AwaitContinue bool `json:"await_continue,omitempty"`
	// Respond is what the origins answer, in the order in which requests come.
	Respond []Answer `json:"respond,omitempty"`
	// Meanwhile is a request under way on another connection.
	Meanwhile string `json:"meanwhile,omitempty"`
	// Abandon closes the connection after this time without an answer.
	Abandon Duration `json:"abandon,omitempty"`
	// TLS of the connection; Cert is none, web, deep, which is web by an intermediate, or
	// another of those that are made.
	TLS *ClientTLS `json:"tls,omitempty"`
	// Patient clients of plain TCP end their side once an answer begins: Envoy gives up on a
	// connection that has ended before its listener filters have.
	Patient bool `json:"patient,omitempty"`
	// Secure is how the origin of that name shakes hands.
	Secure *Secure `json:"secure,omitempty"`
	// Repeat the request on new connections, and compare only the shares of the
	// origins, each within Tolerance.
	Repeat    int     `json:"repeat,omitempty"`
	Tolerance float64 `json:"tolerance,omitempty"`
	// Unsteady fields (prefixes) are not compared: they depend on who is faster.
	Unsteady []string `json:"unsteady,omitempty"`
	// Differs lists every field in which the sidecar is not like Envoy.
	Differs []Difference `json:"differs,omitempty"`
	// Seen is what was seen of the last run: Envoy's and the sidecar's.
	Seen [2]map[string]string `json:"-"`
}

// Dialogue is what the client and the host of one connection do, each in its own order: "say"
// and a text, in which {100000} is so many bytes that tell their places; "wait 30ms"; "await 5"
// until so many bytes came since the beginning, or since the head; "await head", that of a
// message, and of one alone; "await end"; "end" of what it says; "close"; "reset"; "deaf" and
// "hear", which stop and go on reading. Whoever has no word left hears the other out and
// closes. Hosts that follow each other may have further scripts.
type Dialogue struct {
	Client []string   `json:"client"`
	Host   []string   `json:"host,omitempty"`
	Next   [][]string `json:"next,omitempty"`
}

// ClientTLS is how the client shakes hands.
type ClientTLS struct {
	SNI  string   `json:"sni,omitempty"`
	ALPN []string `json:"alpn,omitempty"`
	// Cert may also be "file:" and the path of a certificate, and of its key, without .crt and
	// .key, which is sent whoever issued it.
	Cert string `json:"cert,omitempty"`
	// Min and Max are versions, 1.3 where they are empty; Suites those of 1.2, by name.
	Min    string   `json:"min,omitempty"`
	Max    string   `json:"max,omitempty"`
	Suites []string `json:"suites,omitempty"`
	// Shown compares what was agreed on, and whose certificate came.
	Shown bool `json:"shown,omitempty"`
}

// Secure is what the origin "secure" does with a handshake.
type Secure struct {
	// Cert is the path of its certificate and its key, without .crt and .key, or the name of one
	// of the table.
	Cert string   `json:"cert,omitempty"`
	ALPN []string `json:"alpn,omitempty"`
	Min  string   `json:"min,omitempty"`
	Max  string   `json:"max,omitempty"`
	// Asks for the client's certificate.
	Asks bool `json:"asks,omitempty"`
}

// Answer is what an origin does with one request. The zero value answers 200 "ok".
type Answer struct {
	Send string `json:"send,omitempty"` // status line, header lines, an empty line, the body
	Raw  string `json:"raw,omitempty"`
	// Frames are those of the origin of that name; "*" is the request's stream.
	Frames []string `json:"frames,omitempty"`
	Delay  Duration `json:"delay,omitempty"`
	Early  bool     `json:"early,omitempty"` // before the body was read
	// Trailers of an HTTP/2 origin; of HTTP/1 they stand in Send.
	Trailers map[string]string `json:"trailers,omitempty"`
	// End is close, reset or hang, after what was sent; empty keeps the connection.
	End   string `json:"end,omitempty"`
	Fresh bool   `json:"-"` // says that it closes
}

// Difference is one field in which the two differ, and why that is so. A "*" at the
// end of a value is any.
type Difference struct {
	Field   string `json:"field"`
	Envoy   string `json:"envoy"`
	Hauberk string `json:"hauberk"`
	Why     string `json:"why"`
	// And are prefixes of further fields that differ as a consequence.
	And []string `json:"and,omitempty"`
}

// Duration is a time.Duration that is written as 300ms.
type Duration time.Duration

// UnmarshalJSON implements json.Unmarshaler.
func (d *Duration) UnmarshalJSON(b []byte) error {
	v, err := time.ParseDuration(strings.Trim(string(b), `"`))
	*d = Duration(v)
	return err
}

// Table is all of testdata.
type Table struct {
	Common
	Groups []Group
}

// Load reads the table.
func Load(dir string) (*Table, error) {
	t := &Table{}
	if err := read(filepath.Join(dir, "common.yaml"), &t.Common); err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	for _, f := range files {
		if filepath.Base(f) == "common.yaml" {
			continue
		}
		g := Group{Name: strings.TrimSuffix(filepath.Base(f), ".yaml")}
		if err := read(f, &g); err != nil {
			return nil, err
		}
		if err := g.check(); err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		t.Groups = append(t.Groups, g)
	}
	return t, t.resolve()
}

func read(file string, into any) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := yaml.UnmarshalStrict(b, into); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

// resolve puts reasons in place of their names.
func (t *Table) resolve() error {
	used := map[string]bool{}
	for i := range t.Groups {
		for j := range t.Groups[i].Configs {
			c := &t.Groups[i].Configs[j]
			for k := range c.Cases {
				for n := range c.Cases[k].Differs {
					d := &c.Cases[k].Differs[n]
					name, ok := strings.CutPrefix(d.Why, "@")
					if !ok {
						continue
					}
					if d.Why = t.Reasons[name]; d.Why == "" {
						return fmt.Errorf("%s: %s: there is no reason %q", c.Name, c.Cases[k].Name, name)
					}
					used[name] = true
				}
			}
		}
	}
	for name := range t.Reasons {
		if !used[name] {
			return fmt.Errorf("the reason %q is not used", name)
		}
	}
	return nil
}

func (g *Group) check() error {
	if g.About == "" || len(g.Configs) == 0 {
		return fmt.Errorf("about and configs are needed")
	}
	names := map[string]bool{}
	for _, c := range g.Configs {
		if c.Name == "" || names[c.Name] {
			return fmt.Errorf("configs need names of their own: %q", c.Name)
		}
		names[c.Name] = true
		if c.About == "" {
			return fmt.Errorf("%s: about is needed", c.Name)
		}
		if len(c.Cases) == 0 && g.Refused == nil {
			return fmt.Errorf("%s: nothing is sent", c.Name)
		}
		seen := map[string]bool{}
		for _, x := range c.Cases {
			if x.Name == "" || seen[x.Name] {
				return fmt.Errorf("%s: cases need names of their own: %q", c.Name, x.Name)
			}
			seen[x.Name] = true
			given := 0
			for _, is := range []bool{x.Send != "", x.Raw != "", x.Frames != nil, x.Hello != nil, x.Acts != nil, x.Dialogue != nil} {
				if is {
					given++
				}
			}
			if given != 1 {
				return fmt.Errorf("%s: %s: one of send, raw, frames, acts, hello and dialogue is needed", c.Name, x.Name)
			}
			for _, d := range x.Differs {
				if d.Field == "" || d.Why == "" || d.Envoy == d.Hauberk {
					return fmt.Errorf("%s: %s: a difference needs a field, two values and a reason: %+v", c.Name, x.Name, d)
				}
			}
		}
	}
	return nil
}

// request is the bytes of a Send: the head, and the body.
func request(text string) (head, body string) {
	head, body, _ = strings.Cut(text, "\n\n")
	body = sized(body)
	lines := strings.Split(strings.TrimSpace(head), "\n")
	if !strings.Contains(lines[0], " HTTP/") {
		lines[0] += " HTTP/1.1"
	}
	has := func(name string) bool {
		return slices.ContainsFunc(lines[1:], func(l string) bool {
			n, _, _ := strings.Cut(l, ":")
			return strings.EqualFold(n, name)
		})
	}
	if !has("host") {
		lines = slices.Insert(lines, 1, "Host: test.example")
	}
	if body != "" && !has("content-length") && !has("transfer-encoding") {
		lines = append(lines, fmt.Sprintf("Content-Length: %d", len(body)))
	}
	if has("transfer-encoding") {
		body = strings.ReplaceAll(body, "\n", "\r\n")
	}
	return strings.Join(lines, "\r\n") + "\r\n\r\n", body
}

// sized is a body that a number in braces stands for, or the body.
func sized(body string) string {
	n := 0
	if _, err := fmt.Sscanf(body, "{%d}", &n); err != nil || body != fmt.Sprintf("{%d}", n) {
		return body
	}
	return strings.Repeat("x", n)
}

// bytes of an answer.
func (a *Answer) bytes() string {
	switch {
	case a.Raw != "":
		return a.Raw
	case a.Send == "" && (a.End == "" || a.Fresh):
		return "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	case a.Send == "":
		return ""
	}
	head, body, _ := strings.Cut(a.Send, "\n\n")
	lines := strings.Split(strings.TrimSpace(head), "\n")
	if !strings.HasPrefix(lines[0], "HTTP/") {
		lines[0] = "HTTP/1.1 " + lines[0]
	}
	lower := strings.ToLower(head)
	chunked := strings.Contains(lower, "transfer-encoding:")
	bodiless := strings.HasPrefix(lines[0], "HTTP/1.1 1") || strings.HasPrefix(lines[0], "HTTP/1.1 204") || strings.HasPrefix(lines[0], "HTTP/1.1 304")
	if !bodiless && !chunked && !strings.Contains(lower, "content-length:") && (a.End != "close" || a.Fresh) {
		lines = append(lines, fmt.Sprintf("Content-Length: %d", len(body)))
	}
	if chunked {
		body = strings.ReplaceAll(body, "\n", "\r\n")
	}
	return strings.Join(lines, "\r\n") + "\r\n\r\n" + body
}

// Hello is a ClientHello byte by byte (RFC 8446 4.1.2), as no TLS library sends it.
type Hello struct {
	// Before it, in hexadecimal.
	Before string `json:"before,omitempty"`
	// Extensions in their order: "sni" and its names, "alpn" and its protocols, "versions",
	// "groups", "signatures", or a number in hexadecimal and the content. A name of another
	// kind than 0 has it in front: "7:name"; {300} is a name of so many bytes.
	Extensions []string `json:"extensions,omitempty"`
	// Ciphers, compressions and session are in hexadecimal, in place of usual ones, or none.
	Ciphers      string `json:"ciphers,omitempty"`
	Compressions string `json:"compressions,omitempty"`
	Session      string `json:"session,omitempty"`
	// Pad fills the message up to so many bytes with an extension (RFC 7685).
	Pad int `json:"pad,omitempty"`
	// Record is how many bytes of the message a record has; all where it is 0. Empty has an
	// empty record before the first or after it.
	Record int    `json:"record,omitempty"`
	Empty  string `json:"empty,omitempty"`
	// Segment is how many bytes are sent at a time, with a pause after each.
	Segment int `json:"segment,omitempty"`
	// Bytes in hexadecimal are sent instead.
	Bytes string `json:"bytes,omitempty"`
}

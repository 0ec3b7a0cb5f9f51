package telemetry

import (
	"crypto/tls"
	"encoding/json"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/xds/logformat"
)

type trailers map[string]string

func (h trailers) Header(lower string) (string, bool) { v, ok := h[lower]; return v, ok }
func (h trailers) HeaderFrom(name message.Name, from int) (string, int, bool) {
	return headers(h).HeaderFrom(name, from)
}
func (h trailers) Bytes() int {
	n := 0
	for k, v := range h {
		n += len(k) + len(v)
	}
	return n
}

type attempt struct {
	addr *net.TCPAddr
	name string
}

type attempts []attempt

func (a attempts) Attempted(i int) (net.Addr, string, bool) {
	if i >= len(a) {
		return nil, "", false
	}
	return a[i].addr, a[i].name, true
}

// full is a record that has everything.
func full() *Record {
	r := sample()
	r.RequestHeaders = headers{
		":method": "POST", ":path": "/new/p?a=1&b=%20x&a=2", ":authority": "new.test", "x-envoy-original-path": "/old?q=1",
		"x-envoy-original-host": "old.test", "content-type": "application/grpc+proto", "x-request-id": "rid",
	}
	r.ResponseHeaders, r.ResponseTrailers = headers{":status": "200"}, trailers{"grpc-status": "5", "grpc-message": "no"}
	r.GRPCStatus = "5"
	r.CodeDetails = "via upstream"
	r.UpstreamHost, r.UpstreamHostname = &net.TCPAddr{IP: net.IPv4(10, 1, 10, 23), Port: 80}, "up.test:80"
	r.UpstreamLocal = &net.TCPAddr{IP: net.ParseIP("2001:db8:1234:5678:9abc:def0:1234:5678"), Port: 9}
	r.UpstreamProtocol, r.UpstreamTLSVersion = "HTTP/2", tls.VersionTLS12
	r.UpstreamCipher, r.UpstreamGroup, r.UpstreamSNI = tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, uint16(tls.X25519MLKEM768), "sni.up"
	r.TLSVersion, r.CipherSuite, r.TLSGroup = tls.VersionTLS13, tls.TLS_AES_128_GCM_SHA256, uint16(tls.CurveP256)
	r.PeerCertHash = "abcd"
	r.Attempted = attempts{{&net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 80}, ""}, {&net.TCPAddr{IP: net.IPv4(10, 0, 0, 2), Port: 81}, "b.test"}}
	r.TraceID, r.SpanID = []byte("4bf92f3577b34da6a3ce929d0e0e4736"), []byte("00f067aa0ba902b7")
	for i := range r.Moments {
		r.Moments[i] = int64(1+i*i) * int64(time.Millisecond)
	}
	return r
}

func TestOperators(t *testing.T) {
	t.Setenv("HAUBERK_TEST_VARIABLE", "set")
	for _, tc := range []struct{ format, want string }{
		{"%REQUEST_HEADER(:METHOD)% %RESPONSE_HEADER(:status)% %TRAILER(GRPC-MESSAGE)% %RESPONSE_TRAILER(x?grpc-status)%", "POST 200 no 5"},
		{"%REQ_WITHOUT_QUERY(X-ENVOY-ORIGINAL-PATH?:PATH)%", "/old"},
		{"%PATH% %PATH(NQ)% %PATH(WQ:PATH)% %PATH(NQ:PATH)% %PATH(NQ:ORIG):2%", "/old?q=1 /old /new/p?a=1&b=%20x&a=2 /new/p /o"},
		{"%QUERY_PARAM(a)% %QUERY_PARAM(b)%. %QUERY_PARAM(c)%", "1  x. -"},
		{"%QUERY_PARAMS% %QUERY_PARAMS(DECODED)%", "a=1&b=%20x&a=2 a=1&b=%20x&a=2"},
		{"%GRPC_STATUS% %GRPC_STATUS(SNAKE_STRING)% %GRPC_STATUS(NUMBER)% %GRPC_STATUS_NUMBER%", "NotFound NOT_FOUND 5 5"},
		{"%RESPONSE_CODE_DETAILS% %RESPONSE_CODE_DETAILS(ALLOW_WHITESPACES)%", "via_upstream via upstream"},
		{"%RESPONSE_FLAGS% %RESPONSE_FLAGS_LONG%", "DC,DPE DownstreamConnectionTermination,DownstreamProtocolError"},
		{"%RESPONSE_TRAILERS_BYTES%", "26"},
		{"%UPSTREAM_PROTOCOL% %UPSTREAM_TLS_CIPHER% %UPSTREAM_TLS_GROUP% %UPSTREAM_SERVER_NAME%", "HTTP/2 ECDHE-RSA-AES128-GCM-SHA256 X25519MLKEM768 sni.up"},
		{"%DOWNSTREAM_TLS_VERSION% %DOWNSTREAM_TLS_CIPHER% %DOWNSTREAM_TLS_GROUP% %DOWNSTREAM_PEER_FINGERPRINT_256%", "TLSv1.3 TLS_AES_128_GCM_SHA256 P-256 abcd"},
		{"%UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(16)% %UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT(64)% %UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(64)%", "10.1.0.0/16 2001:db8:1234:5678::/64 -"},
		{"%UPSTREAM_REMOTE_PORT% %UPSTREAM_LOCAL_PORT% %DOWNSTREAM_DIRECT_REMOTE_PORT%", "80 9 -"},
		{"%UPSTREAM_HOST_NAME% %UPSTREAM_HOST_NAME_WITHOUT_PORT%", "up.test:80 up.test"},
		{"%UPSTREAM_HOSTS_ATTEMPTED% %UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT% %UPSTREAM_HOST_NAMES_ATTEMPTED%", "10.0.0.1:80,10.0.0.2:81 10.0.0.1,10.0.0.2 10.0.0.1:80,b.test"},
		{"%REQUESTED_SERVER_NAME% %REQUESTED_SERVER_NAME(SNI_FIRST)% %REQUESTED_SERVER_NAME(HOST_FIRST:HOST)%", "- old.test new.test"},
		{"%REQUEST_DURATION% %REQUEST_TX_DURATION% %RESPONSE_DURATION% %RESPONSE_TX_DURATION% %COMMON_DURATION(US_TX_BEG:US_RX_BEG:us)%", "1 36 49 72 24000"},
		{"%TRACE_ID% %SPAN_ID% %STREAM_ID% %ENVIRONMENT(HAUBERK_TEST_VARIABLE)%%ENVIRONMENT(HAUBERK_TEST_VARIABLE):1% %ENVIRONMENT(HAUBERK_NO_VARIABLE)%", "4bf92f3577b34da6a3ce929d0e0e4736 00f067aa0ba902b7 rid sets -"},
		{`%COALESCE({"operators": ["REQUESTED_SERVER_NAME", {"command": "REQ", "param": ":authority", "max_length": 3}]})%`, "new"},
		{"%DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_PEER_SUBJECT% %DOWNSTREAM_PEER_CERT_V_END%", "- - -"},
	} {
		f, err := ParseFormat(tc.format)
		if err != nil {
			t.Errorf("%s: %v", tc.format, err)
			continue
		}
		if got := string(f.Append(nil, full())); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.format, got, tc.want)
		}
	}
}

// A call whose response has no status, or one that cannot be read, is not a good one.
func TestCallsWithoutStatus(t *testing.T) {
	f, err := ParseFormat("%GRPC_STATUS% %GRPC_STATUS(NUMBER)%")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name              string
		code              int
		headers, trailers Headers
		want              string
		statuses          uint32 // that a filter finds it by
	}{
		{"the host ended after its head", 200, headers{}, nil, "Unknown 2", 1 << 2},
		{"a status of HTTP", 503, headers{}, nil, "Unavailable 14", 1 << 14},
		{"not a number", 200, headers{}, trailers{"grpc-status": "bad"}, "-1 -1", 0},
		{"not one of gRPC's", 200, headers{}, trailers{"grpc-status": "17"}, "17 17", 0},
		{"of trailers rather than headers", 200, headers{"grpc-status": "0"}, trailers{"grpc-status": "5"}, "NotFound 5", 1 << 5},
		{"of headers", 200, headers{"grpc-status": "0"}, nil, "OK 0", 1},
		{"two", 200, repeated{"grpc-status": {"0", "0"}}, nil, "-1 -1", 0},
		{"no response", 0, nil, nil, "- -", 1 << 2},
	} {
		r := &Record{RequestHeaders: headers{":path": "/", "content-type": "application/grpc"}, Code: tc.code, ResponseHeaders: tc.headers, ResponseTrailers: tc.trailers}
		if got := string(f.Append(nil, r)); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
		for s := range grpcNames {
			if got := (GRPCFilter{Statuses: 1 << s}).Passes(r); got != (tc.statuses == 1<<s) {
				t.Errorf("%s: a filter for %s says %t", tc.name, grpcNames[s][0], got)
			}
		}
		if (GRPCFilter{Statuses: 1, Exclude: true}).Passes(r) == (tc.statuses == 1) {
			t.Errorf("%s: a filter for all but OK", tc.name)
		}
	}
}

// Of a field that comes several times the first value is shown, and one that is empty is
// not one that is absent.
func TestValuesThatAreEmpty(t *testing.T) {
	r := &Record{
		RequestHeaders:  repeated{"x": {"a", "b"}, "e": {"", "f"}, ":path": {"/?p=&q"}},
		ResponseHeaders: repeated{"x": {"c", "d"}, "e": {""}}, ResponseTrailers: repeated{"x": {"g", "h"}},
	}
	bare := &Record{RequestHeaders: repeated{":path": {"/?"}}}
	none := &Record{RequestHeaders: repeated{":path": {"/"}}}
	first := `%COALESCE({"operators": [{"command": "REQ", "param": "e"}, {"command": "REQ", "param": "x"}]})%`
	for _, tc := range []struct {
		format string
		r      *Record
		text   string // with "-" for what is absent
		omit   string
		json   string
	}{
		{"%REQ(x)%", r, "a", "a", `"a"`},
		{"%REQ(none?x)%", r, "a", "a", `"a"`},
		{"%RESP(x)%", r, "c", "c", `"c"`},
		{"%TRAILER(x)%", r, "g", "g", `"g"`},
		{"%REQ(e)%", r, "", "", `""`},
		{"%REQ(e):3%", r, "", "", `""`},
		{"%REQ(e?x)%", r, "", "", `""`},
		{"%RESP(e)%", r, "", "", `""`},
		{"%REQ(none)%", r, "-", "", "null"},
		{"%TRAILER(e)%", r, "-", "", "null"},
		{first, r, "", "", `""`},
		{first, none, "-", "", "null"},
		{"%QUERY_PARAM(p)%", r, "", "", `""`},
		{"%QUERY_PARAM(none)%", r, "-", "", "null"},
		{"%QUERY_PARAMS%", bare, "", "", `""`},
		{"%QUERY_PARAMS%", none, "-", "", "null"},
		{"%RESPONSE_FLAGS%", r, "-", "-", `"-"`},
		{"%RESPONSE_FLAGS_LONG%", r, "-", "-", `"-"`},
		{"%LOCAL_REPLY_BODY%", r, "", "", `""`},
		{"%ENVIRONMENT(HAUBERK_NO_VARIABLE)%", r, "-", "-", `"-"`},
		{"%ROUTE_NAME%", r, "-", "", "null"},
	} {
		for kind, c := range map[string]AccessLogConfig{
			"text": {Format: tc.format}, "omit": {Format: tc.format, OmitEmpty: true}, "JSON": {JSON: true, Fields: map[string]any{"v": tc.format}},
		} {
			f, err := CompileAccessLog(c)
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]string{"text": tc.text, "omit": tc.omit, "JSON": `{"v":` + tc.json + "}"}[kind]
			if got := string(f.Append(nil, tc.r)); got != want+"\n" {
				t.Errorf("%s, %s: %q, want %q", tc.format, kind, got, want)
			}
		}
	}
}

// TestTypeOfAFirstValue: the first of several operators that has a value says of what type that is; texts alone are cut.
func TestTypeOfAFirstValue(t *testing.T) {
	r := &Record{Code: 503, BytesSent: 12, RequestHeaders: repeated{":method": {"POST"}, "n": {"17"}}}
	for _, tc := range []struct{ operators, whole, cut string }{
		{`["RESPONSE_CODE"]`, "503", "503"},
		{`["ROUTE_NAME", "BYTES_SENT"]`, "12", "12"},
		{`[{"command": "REQ", "param": "n"}, "RESPONSE_CODE"]`, `"17"`, `"1"`},
		{`["ROUTE_NAME", {"command": "REQ", "param": ":method", "max_length": 3}]`, `"POS"`, `"P"`},
		{`["ROUTE_NAME", "UPSTREAM_CLUSTER"]`, "null", "null"},
	} {
		for most, want := range map[string]string{"": tc.whole, ":1": tc.cut} {
			f, err := CompileAccessLog(AccessLogConfig{JSON: true, Fields: map[string]any{"v": `%COALESCE({"operators": ` + tc.operators + `})` + most + "%"}})
			if err != nil {
				t.Fatal(err)
			}
			if got := string(f.Append(nil, r)); got != `{"v":`+want+"}\n" {
				t.Errorf("%s%s: %s, want %s", tc.operators, most, got, want)
			}
		}
	}
}

// Reasons of transports have no spaces, and Hauberk's own words stand elsewhere.
func TestTransportFailures(t *testing.T) {
	f, err := ParseFormat("%UPSTREAM_TRANSPORT_FAILURE_REASON% %DOWNSTREAM_TRANSPORT_FAILURE_REASON% %HAUBERK_FAILURE%")
	if err != nil {
		t.Fatal(err)
	}
	for want, r := range map[string]*Record{
		"- - -":                           {},
		"a_b - c d":                       {UpstreamTransportFailure: "a b", UpstreamFailure: "c d"},
		"a_b - a b":                       {UpstreamTransportFailure: "a b"},
		"- - bad_status_line":             {UpstreamFailure: "bad_status_line"},
		"- no_certificate no certificate": {TransportFailure: "no certificate"},
	} {
		if got := string(f.Append(nil, r)); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// Of the fields that Envoy keeps one of, all values are shown.
func TestLists(t *testing.T) {
	two := func(names ...string) repeated {
		out := repeated{}
		for _, n := range names {
			out[n] = []string{"a?b", "c"}
		}
		return out
	}
	r := &Record{
		RequestHeaders:  two("x-forwarded-for", "x-request-id", "user-agent", "cookie", "etag", "x"),
		ResponseHeaders: two("etag", "via", "user-agent", "set-cookie"), ResponseTrailers: two("grpc-message", "etag"),
	}
	r.RequestHeaders.(repeated)["accept"] = []string{"", "a", "", "b"}
	r.RequestHeaders.(repeated)["origin"] = []string{"", ""}
	for format, want := range map[string]string{
		"%REQ(X-FORWARDED-FOR)%": "a?b,c", "%REQ(X-REQUEST-ID)%": "a?b,c", "%REQ(none?USER-AGENT)%": "a?b,c", "%REQ(USER-AGENT):4%": "a?b,",
		"%REQ_WITHOUT_QUERY(USER-AGENT)%": "a", "%REQ(COOKIE)%": "a?b", "%REQ(ETAG)%": "a?b", "%REQ(X)%": "a?b",
		"%REQ(ACCEPT)%": "a,b", "%REQ(ORIGIN)%": "",
		"%RESP(ETAG)%": "a?b,c", "%RESP(VIA)%": "a?b,c", "%RESP(USER-AGENT)%": "a?b", "%RESP(SET-COOKIE)%": "a?b",
		"%TRAILER(GRPC-MESSAGE)%": "a?b,c", "%TRAILER(ETAG)%": "a?b", "%TRAILER(none)%": "-",
	} {
		f, err := ParseFormat(format)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(f.Append(nil, r)); got != want {
			t.Errorf("%s: %q, want %q", format, got, want)
		}
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = AppendRequestField(make([]byte, 0, 64), r.RequestHeaders, "user-agent") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestIsGRPC(t *testing.T) {
	for want, all := range map[bool][]Headers{
		true: {headers{":path": "/", "content-type": "application/grpc"}, headers{":path": "/", "content-type": "application/grpc+proto"}},
		false: {nil, headers{}, headers{":path": "/", "content-type": "application/grpc-web"}, headers{":path": "/", "content-type": "application/grpc;charset=utf-8"},
			repeated{":path": {"/"}, "content-type": {"application/grpc", "application/grpc"}}, headers{":method": "CONNECT", "content-type": "application/grpc"}},
	} {
		for _, h := range all {
			if IsGRPC(h) != want {
				t.Errorf("%v: %t", h, !want)
			}
		}
	}
}

// repeated are headers of which some occur several times.
type repeated map[string][]string

func (h repeated) Header(lower string) (string, bool) {
	return strings.Join(h[lower], ","), h[lower] != nil
}
func (h repeated) HeaderFrom(name message.Name, from int) (string, int, bool) {
	if v := h[name.String()]; from < len(v) {
		return v[from], from + 1, true
	}
	return "", from, false
}

// What is no escape stays as it is, and spares nothing beside it from being decoded.
func TestBrokenEscapes(t *testing.T) {
	r := sample()
	r.RequestHeaders = headers{":path": "/?a=%20x%zz%4&%62=%2"}
	f, err := ParseFormat("%QUERY_PARAM(a)%|%QUERY_PARAM(b)%|%QUERY_PARAMS(DECODED)%")
	if err != nil {
		t.Fatal(err)
	}
	var buf []byte
	if got := string(f.Append(nil, r)); got != " x%zz%4|%2|a=%20x%zz%4&b=%2" {
		t.Error(got)
	}
	if n := testing.AllocsPerRun(100, func() { buf = f.Append(buf[:0], r) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Every operator of Envoy's has a value here or a reason why not.
func TestEveryOperatorIsKnownOrRefused(t *testing.T) {
	for name, why := range logformat.Refused() {
		_, err := ParseFormat("ab %" + name + "%")
		if _, both := logformat.Operators[name]; both || err == nil || !strings.Contains(err.Error(), "byte 4: operator %"+name+"% is refused: "+why) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUUIDs(t *testing.T) {
	f, err := ParseFormat("%UNIQUE_ID% %STREAM_ID% %STREAM_ID%")
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Fields(string(f.Append(nil, &Record{})))
	if len(got) != 3 || got[1] != got[2] || got[0] == got[1] || len(got[0]) != 36 || got[0][14] != '4' {
		t.Errorf("%q", got)
	}
}

// TestUpstreamNotReached: the address of a connection is known once there is one, which may
// be to another than the host that was tried.
func TestUpstreamNotReached(t *testing.T) {
	r := full()
	r.UpstreamLocal = nil
	f, err := ParseFormat("%UPSTREAM_HOST% %UPSTREAM_REMOTE_ADDRESS% %UPSTREAM_REMOTE_PORT% %UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(8)%")
	if err != nil {
		t.Fatal(err)
	}
	if got := string(f.Append(nil, r)); got != "10.1.10.23:80 - - - -" {
		t.Errorf("%q", got)
	}
}

func TestJSONKeepsTypes(t *testing.T) {
	fields := map[string]any{
		"code": "%RESPONSE_CODE%", "grpc": "%GRPC_STATUS(NUMBER)%", "port": "%UPSTREAM_REMOTE_PORT%", "none": "%ROUTE_NAME%",
		"mixed": "%RESPONSE_CODE% %ROUTE_NAME%", "fixed": 4.5, "yes": true, "nil": nil, "empty": "",
		"nested": map[string]any{"method": "%REQ(:METHOD)%", "none": "%ROUTE_NAME%", "list": []any{"%BYTES_SENT%", "%ROUTE_NAME%", "x"}, "o": map[string]any{}},
	}
	for omit, want := range map[bool]string{
		false: `{"code":403,"empty":"","fixed":4.5,"grpc":5,"mixed":"403 -","nested":{"list":[0,null,"x"],"method":"POST","none":null,"o":{}},"nil":null,"none":null,"port":80,"yes":true}`,
		true:  `{"code":403,"empty":"","fixed":4.5,"grpc":5,"mixed":"403 ","nested":{"list":[0,"x"],"method":"POST"},"port":80,"yes":true}`,
	} {
		f, err := CompileAccessLog(AccessLogConfig{JSON: true, Fields: fields, OmitEmpty: omit})
		if err != nil {
			t.Fatal(err)
		}
		got := f.Append(nil, full())
		if string(got) != want+"\n" || !json.Valid(got) {
			t.Errorf("omit %t:\n%s\n%s", omit, got, want)
		}
	}
	if _, err := CompileAccessLog(AccessLogConfig{JSON: true, Fields: map[string]any{"a": map[string]any{"b": "x%NOPE%"}}}); err == nil ||
		!strings.Contains(err.Error(), "a: b: access log format, byte 2: operator %NOPE%") {
		t.Error(err)
	}
}

// A moment that came before another is no time after it: the connection of a request is
// often older than the request.
func TestTimesAreNotNegative(t *testing.T) {
	r := full()
	r.Moments[ConnectBegan] = r.Moments[RequestBegan] - 1
	f, err := ParseFormat("%COMMON_DURATION(DS_RX_BEG:US_CX_BEG:ns)% %COMMON_DURATION(US_CX_BEG:DS_RX_BEG:ns)%")
	if err != nil {
		t.Fatal(err)
	}
	if got := string(f.Append(nil, r)); got != "- 1" {
		t.Error(got)
	}
}

func TestOmitEmptyInText(t *testing.T) {
	f, err := CompileAccessLog(AccessLogConfig{Format: "<%ROUTE_NAME%>\n", OmitEmpty: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := string(f.Append(nil, full())); got != "<>\n" {
		t.Errorf("%q", got)
	}
}

// A line costs no memory but the buffer it is written to, whatever stands in it.
func TestFormatsDoNotAllocate(t *testing.T) {
	var all strings.Builder
	fields := map[string]any{}
	for name, o := range logformat.Operators {
		piece := "%" + name + map[logformat.Kind]string{
			logformat.Header: "(:PATH?x)", logformat.Name: "(a)", logformat.Span: "(DS_RX_BEG:DS_TX_END:ms)", logformat.Host: "(8)",
			logformat.Metadata: "(envoy.filters.http.rbac:a)", logformat.First: `({"operators": ["ROUTE_NAME", "PROTOCOL"]})`, logformat.Time: "(%Y %E3S %s)",
		}[o.Kind] + "%"
		if name == "METADATA" {
			piece = "%METADATA(ROUTE:a:b)%"
		}
		all.WriteString(piece + " ")
		fields[name] = piece
	}
	r := full()
	r.CodeDetails, r.Rule = "a \"quoted\" \x01 text", "caf\u00e9 \xff"
	for _, c := range []AccessLogConfig{{Format: all.String()}, {JSON: true, Fields: fields}} {
		f, err := CompileAccessLog(c)
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 0, 1<<16)
		if n := testing.AllocsPerRun(100, func() { buf = f.Append(buf[:0], r) }); n > 0 {
			t.Errorf("JSON %t: %v allocations a line", c.JSON, n)
		}
	}
}

func TestFlags(t *testing.T) {
	if got := (FlagRetryLimitExceeded | FlagUpstreamConnectFailure | FlagDraining).String(); got != "UF,URX,DRAIN" {
		t.Error(got)
	}
	if len(flagNames) != 31-leadingZeros(flagEnd) {
		t.Errorf("%d names for %b", len(flagNames), flagEnd)
	}
	seen := map[string]bool{}
	for _, f := range flagNames {
		if f.long == "" || f.help == "" || seen[f.short] {
			t.Errorf("%+v", f)
		}
		seen[f.short] = true
	}
	for _, f := range absentFlags {
		if seen[f.Name] {
			t.Errorf("%s is absent and occurs", f.Name)
		}
	}
}

func leadingZeros(f Flags) int {
	n := 0
	for m := Flags(1) << 31; m != 0 && f&m == 0; m >>= 1 {
		n++
	}
	return n
}

// Each flag is set somewhere: the table promises nothing that does not occur.
func TestFlagsOccur(t *testing.T) {
	src, err := os.ReadFile("flags.go")
	if err != nil {
		t.Fatal(err)
	}
	set := map[string]bool{}
	walkGo(t, "..", func(path, text string) {
		if strings.HasSuffix(path, "telemetry/flags.go") || strings.HasSuffix(path, "_test.go") {
			return
		}
		for _, w := range strings.FieldsFunc(text, func(r rune) bool { return r != '_' && (r < '0' || r > 'z' || r > '9' && r < 'A' || r > 'Z' && r < 'a') }) {
			set[w] = true
		}
	})
	for line := range strings.Lines(string(src)) {
		name, _, ok := strings.Cut(strings.TrimSpace(line), " ")
		if ok && strings.HasPrefix(name, "Flag") && name != "FlagDocs" && name != "FlagDoc" && !set[name] {
			t.Errorf("%s is never set", name)
		}
	}
}

// What the table of Envoy's statistics names exists, with the labels it names.
func TestEnvoyStatsAreThere(t *testing.T) {
	have := map[string]Desc{}
	for _, d := range NewMetrics().Registry.Families() {
		have[d.Name] = d
	}
	seen := map[string]bool{}
	for _, g := range EnvoyStats() {
		for _, s := range g.Stats {
			if seen[g.Title+s.Envoy] {
				t.Errorf("%s is there twice", s.Envoy)
			}
			seen[g.Title+s.Envoy] = true
			name, selector, _ := strings.Cut(s.Ours, "{")
			d, ok := have[name]
			switch label, _, _ := strings.Cut(selector, "="); {
			case s.Ours == "" && s.Note == "":
				t.Errorf("%s: neither a metric nor a reason", s.Envoy)
			case s.Ours != "" && !ok:
				t.Errorf("%s: there is no metric %s", s.Envoy, name)
			case selector != "" && !slices.Contains(d.Labels, label):
				t.Errorf("%s: %s has no label %s", s.Envoy, name, label)
			}
		}
	}
}

package hcm

import (
	"fmt"
	"strings"
	"testing"

	xhttp2 "golang.org/x/net/http2"

	"github.com/hauberk-mesh/hauberk/sidecar/http2"
)

// TestCodecRefusalsAreLogged: a request that the codec of HTTP/2 refuses, or whose stream is
// over before anybody serves it, is one all the same: it is counted and logged, with why.
func TestCodecRefusalsAreLogged(t *testing.T) {
	get := []string{":method: GET", ":scheme: http", ":path: /"}
	for _, tc := range []struct {
		name    string
		fields  []string
		then    func(*frames)
		outcome string // where the connection goes on
		log     string
		reason  string // as it is counted
	}{
		{"no authority", get, nil, "RST_STREAM PROTOCOL_ERROR", "- - 0 DPE no_authority ", "no_authority"},
		{"connection", append(get, ":authority: h", "connection: close"), nil, "RST_STREAM PROTOCOL_ERROR", "- - 0 DPE connection_specific_field ", "connection_specific_field"},
		{"two expectations", append(get, ":authority: h", "expect: 100-continue", "expect: 100-continue"), nil, "HEADERS 417", "- - 417 DPE bad_expect ", "bad_expect"},
		{"long path", []string{":method: GET", ":scheme: http", ":authority: h", ":path: /" + strings.Repeat("x", 300)}, nil, "HEADERS 414", "- - 414 DPE uri_too_long ", "uri_too_long"},
		{"large head", append(get, ":authority: h", "x: "+strings.Repeat("x", 2000)), nil, "HEADERS 431", "- - 431 DPE http2.header_list_size_too_large ", "headers_too_large"},
		{"many fields", append(get, strings.Split(strings.Repeat("a: 1|", 8)+"b: 1", "|")...), nil, "HEADERS 431", "- - 431 DPE http2.too_many_headers ", "too_many_headers"},
		{"underscore", append(get, ":authority: h", "a_b: 1"), nil, "RST_STREAM PROTOCOL_ERROR", "- - 0 DPE http2.unexpected_underscore ", "underscore_in_field_name"},
		{"less than was announced", []string{":method: POST", ":scheme: http", ":path: /", ":authority: h", "content-length: 9"},
			func(f *frames) { _ = f.framer.WriteData(1, true, []byte("hi")) }, "RST_STREAM PROTOCOL_ERROR", "POST / 0 DPE content_length_mismatch ", "content_length_mismatch"},
		{"reset at once", []string{":method: POST", ":scheme: http", ":path: /", ":authority: h"},
			func(f *frames) { _ = f.framer.WriteRSTStream(1, xhttp2.ErrCodeCancel) }, "", "POST / 0 DR http2.remote_reset ", ""},
		{"refused by its client", []string{":method: POST", ":scheme: http", ":path: /", ":authority: h"},
			func(f *frames) { _ = f.framer.WriteRSTStream(1, xhttp2.ErrCodeRefusedStream) }, "", "POST / 0 DR http2.remote_refuse ", ""},
		{"a client that takes offence", []string{":method: POST", ":scheme: http", ":path: /", ":authority: h"},
			func(f *frames) { _ = f.framer.WriteRSTStream(1, xhttp2.ErrCodeProtocol) }, "", "POST / 0 DPE http2.remote_reset ", ""},
		{"wrong in the handler's hands", []string{":method: POST", ":scheme: http", ":path: /", ":authority: h", "content-length: 0"},
			func(f *frames) { f.settle(); _ = f.framer.WriteData(1, true, []byte("hi")) }, "RST_STREAM PROTOCOL_ERROR", "POST / 0 DPE content_length_mismatch ", ""},
	} {
		for _, byStream := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/%v", tc.name, byStream), func(t *testing.T) {
				b := newBed(t)
				b.cfg.HTTP2 = http2.Default()
				b.cfg.HTTP2.MalformedEndsConnection = !byStream
				b.cfg.MaxRequestHeadersKB, b.cfg.MaxHeaders, b.cfg.UnderscoreNames = 1, 8, RejectUnderscores
				b.change = func(m *Manager) { m.http2.Limits.LineBytes = 200 }
				b.start()
				f := b.dialHTTP2()
				f.framer.AllowIllegalWrites = true
				if tc.then == nil {
					f.open(1, tc.fields...)
				} else {
					f.headers(tc.fields...)
					tc.then(f)
				}
				if tc.outcome == "" {
					f.write()
				} else if got := f.outcome(); got != tc.outcome && (byStream || got != "GOAWAY PROTOCOL_ERROR") {
					t.Error(got)
				}
				if line := b.logged(1)[0]; !strings.HasPrefix(line, tc.log) || !strings.Contains(line, " rx=0 tx=0 ") {
					t.Errorf("%q", line)
				}
				w := strings.Fields(tc.log)
				if want := fmt.Sprintf(`hauberk_requests_total{direction="inbound",service="api",peer="none",code="%s",flags="%s"} 1`, w[2], w[3]); !b.metric(want) {
					t.Errorf("not counted: %s", want)
				}
				if tc.reason != "" {
					_ = f.Close()
					b.eventually("the refusal is counted", func() bool {
						return b.metric(`hauberk_protocol_errors_total{side="downstream",reason="` + tc.reason + `"} 1`)
					})
				}
				if tc.name == "wrong in the handler's hands" {
					return
				}
				// Each refusal once, and a client's own reset is none.
				want := 0
				if tc.reason != "" {
					want = 1
				}
				if errors := b.counted("hauberk_protocol_errors_total"); strings.Count(errors, "{") != want {
					t.Errorf("counted: %s", errors)
				}
				if b.counted("hauberk_http2_glitches_total") == "" {
					t.Error("what it cost is not counted")
				}
			})
		}
	}
}

package hcm

import (
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// TestDirectResponseFormat: the body of a direct response is made of operators, and of a content type
// that goes before what the route says. Local reply rules see what was made.
func TestDirectResponseFormat(t *testing.T) {
	text := func(s string) telemetry.BodyFormat {
		return telemetry.BodyFormat{Format: telemetry.AccessLogConfig{Format: s}}
	}
	html, quiet := text("<p>%LOCAL_REPLY_BODY%</p>"), text("%REQ(x-none)%")
	html.ContentType, quiet.Format.OmitEmpty = "text/html", true
	rules := text("mapped %LOCAL_REPLY_BODY%")
	for _, tc := range []struct {
		name       string
		format     telemetry.BodyFormat
		rules      *LocalReplies
		body, kind string
	}{
		{"text", text("%LOCAL_REPLY_BODY% %REQ(host)%"), nil, "hi h", "text/css"},
		{"a content type", html, nil, "<p>hi</p>", "text/html"},
		{"JSON", telemetry.BodyFormat{Format: telemetry.AccessLogConfig{JSON: true, Fields: map[string]any{"host": "%REQ(host)%"}}}, nil, "{\"host\":\"h\"}\n", "application/json"},
		{"nothing", quiet, nil, "", ""},
		{"rules", text("%REQ(host)%"), &LocalReplies{Body: &rules}, "mapped h", "text/plain"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBed(t)
			b.route().Forward = nil
			b.route().Direct = &route.DirectResponse{Status: 200, Body: []byte("hi"), Format: &tc.format}
			b.route().Headers = &route.HeaderMutations{ResponseAdd: []route.HeaderAdd{{Name: "content-type", Value: "text/css", Action: route.OverwriteIfExistsOrAdd}}}
			b.cfg.LocalReplies = tc.rules
			b.start()
			resp, body := b.dial().do("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
			if kind := resp.Header.Get("Content-Type"); body != tc.body || kind != tc.kind {
				t.Errorf("%q of %q, want %q of %q", body, kind, tc.body, tc.kind)
			}
		})
	}
}

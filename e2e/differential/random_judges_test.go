//go:build e2e

package differential

import "testing"

// TestJudgeHTTP2: what is odd of a case excuses what is stricter, of its own stream.
func TestJudgeHTTP2(t *testing.T) {
	t.Parallel()
	c := &Config{HCM: map[string]any{"http2_protocol_options": map[string]any{"override_stream_error_on_invalid_http_message": true}}}
	for _, k := range []struct {
		name, field, envoy, hauberk string
		excused                     bool
	}{
		{"0 1:host-other", "stream[1].response.start", "HTTP/2 200", "HTTP/2 400", true},
		{"0 1:host-other", "stream[1].response.start", "HTTP/2 403", "HTTP/2 200", false},
		{"0 1:host-other", "stream[1].response.start", absent, "HTTP/2 200", false},
		{"0 1:host-other", "stream[3].response.start", "HTTP/2 200", "HTTP/2 400", false},
		{"0 1:host-other", "upstream[/s3].start", "GET /s3 HTTP/1.1", absent, false},
		{"0 1:host-other", "upstream[/s1].start", "GET /s1 HTTP/1.1", absent, true},
		{"0 1:host-other", "upstream[/smuggled].start", absent, "GET /smuggled HTTP/1.1", false},
		{"0 1:window-0", "upstream[/s5].start", absent, "GET /s5 HTTP/1.1", false}, // nobody asks for it
		{"0 1:window-0", "upstream[/s3].start", absent, "GET /s3 HTTP/1.1", true},
		{"0 1:r-REFUSED_STREAM", "upstream[/s1][1].start", absent, "GET /s1 HTTP/2", true},
		{"0 1:r-REFUSED_STREAM", "upstream[/s9].start", absent, "GET /s9 HTTP/2", false},
	} {
		x := &Case{Name: k.name, Frames: []string{"HEADERS 3 END\n:path: /s3"}}
		if why := knownOfHTTP2(c, x, Difference{Field: k.field, Envoy: k.envoy, Hauberk: k.hauberk}); (why != "") != k.excused {
			t.Errorf("%s: %s of %s and %s is excused with %q, want %v", k.name, k.field, k.envoy, k.hauberk, why, k.excused)
		}
	}
}

// TestJudgeHTTP1: what net/http takes for content is no request.
func TestJudgeHTTP1(t *testing.T) {
	t.Parallel()
	const head = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 35\r\n\r\n"
	one := observation{"upstream.start": "POST /a HTTP/1.1"}
	two := observation{"upstream.start": "POST /a HTTP/1.1", "upstream[1].start": "GET /smuggled HTTP/1.1"}
	for _, k := range []struct {
		raw            string
		envoy, hauberk observation
		fine           bool
	}{
		{head + smuggled, one, one, true},
		{head + smuggled, one, two, false},
		{head + smuggled, two, two, false},
		{"POST /a HTTP/1.1\r\nHost: a\r\n\r\n" + smuggled, two, two, true},
		{"POST /a HTTP/1.1\r\nHost: a\r\n\r\n" + smuggled, one, two, false},
		{"POST /b HTTP/1.1\r\nHost: a\r\n\r\n", one, one, false},
		{"POST /a HTTP/1.1\r\nHost: a\r\n\r\n", one, observation{"upstream.start": "POST /a HTTP/1.1", "upstream[1].start": "GET /b HTTP/1.1"}, false},
	} {
		if complaint := beyond(k.raw, [2]observation{k.envoy, k.hauberk}); (complaint == "") != k.fine {
			t.Errorf("%q: %v has the complaint %q", k.raw, k.hauberk, complaint)
		}
	}
}

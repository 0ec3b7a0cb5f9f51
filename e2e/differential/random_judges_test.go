//go:build e2e

package differential

import (
	"fmt"
	"testing"
)

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

// TestJudgeBodies: an answer that Envoy loses the rest of is one that a window held up.
func TestJudgeBodies(t *testing.T) {
	t.Parallel()
	const cut, whole = "RST_STREAM INTERNAL_ERROR", "END_STREAM RST_STREAM NO_ERROR"
	for _, k := range []struct {
		name    string
		window  int
		got, of int
		ends    [2]string
		excused bool
	}{
		{"0 client2 early", 100, 100, 20000, [2]string{cut, whole}, true},
		{"0 client2 early", 1 << 20, 65535, 200000, [2]string{cut, whole}, true},
		{"0 client2 early", 100, 99, 20000, [2]string{cut, whole}, false}, // that was no window
		{"0 client2 early", 100, 900, 900, [2]string{cut, whole}, true},   // but the end
		{"0 client2 early", 16384, 20000, 20000, [2]string{cut, whole}, false},
		{"0 client2 early", 100, 20000, 100, [2]string{cut, whole}, false},
		{"0 client2 early", 100, 100, 20000, [2]string{whole, whole}, false},
		{"0 client2 early", 100, 100, 20000, [2]string{cut, cut}, false},
		{"0 client2 early", 100, 100, 20000, [2]string{whole, cut}, false},
		{"0 client1 early", 100, 100, 20000, [2]string{cut, whole}, false},
		{"0 client2 waiting", 100, 100, 20000, [2]string{cut, whole}, false},
	} {
		x := &Case{Name: k.name, Acts: []string{fmt.Sprint("c window ", k.window), "c POST /plain length=5"}}
		x.Seen = [2]map[string]string{{"stream[1]": k.ends[0], "response.body": shown(piece(0, k.got))}, {"stream[1]": k.ends[1], "response.body": shown(piece(0, k.of))}}
		for _, d := range []Difference{
			{Field: "response.trailer.x-end", Envoy: absent, Hauberk: "2"},
			{Field: "response.body", Envoy: x.Seen[0]["response.body"], Hauberk: x.Seen[1]["response.body"]},
			{Field: "stream[1]", Envoy: k.ends[0], Hauberk: k.ends[1]},
			{Field: "vain", Envoy: fmt.Sprint("c await ", k.got+1), Hauberk: absent},
		} {
			if why := knownOfBodies(nil, x, d); (why != "") != k.excused {
				t.Errorf("%s: %s of %d and %d bytes by %d is excused with %q, want %v", k.name, d.Field, k.got, k.of, k.window, why, k.excused)
			}
		}
	}
	x := &Case{Name: "0 client2 early", Acts: []string{"c window 100", "c POST /plain length=5"}}
	x.Seen = [2]map[string]string{{"stream[1]": cut, "response.body": shown(piece(1, 100))}, {"stream[1]": whole, "response.body": shown(piece(0, 200))}}
	if why := knownOfBodies(nil, x, Difference{Field: "response.body", Envoy: x.Seen[0]["response.body"], Hauberk: x.Seen[1]["response.body"]}); why != "" {
		t.Errorf("other bytes are excused with %q", why)
	}
	x = &Case{Name: "0 again answer-trailers client1 te", Acts: []string{"c GET /plain END te=trailers", "c GET /plain END"}}
	for field, excused := range map[string]bool{"response.trailer.x-end": false, "response[1].trailer.x-end": true, "response[2].trailer.x-end": false} {
		if why := knownOfBodies(nil, x, Difference{Field: field, Envoy: "2", Hauberk: absent}); (why != "") != excused {
			t.Errorf("%s is excused with %q, want %v", field, why, excused)
		}
	}
}

// TestJudgeTunnels: a success of CONNECT that Envoy takes for an ordinary answer has one field more, and that is all.
func TestJudgeTunnels(t *testing.T) {
	t.Parallel()
	x := &Case{Dialogue: &Dialogue{Host: []string{"await head", "say HTTP/1.1 204 None\r\n\r\n"}}, Seen: [2]map[string]string{{"response.start": "HTTP/1.1 204", "response.header.connection": "close"}, {"response.start": "HTTP/1.1 204"}}}
	for values, excused := range map[[2]string]bool{
		{"1 2 45 4", "1 2 20 4"}: true,
		{"1 2 20 4", "1 2 20 3"}: false,
		{"1 2 39 4", "1 2 20 4"}: false,
		{"1 3 45 4", "1 2 20 4"}: false,
		{"2 2 45 4", "1 2 20 4"}: false,
		{"1 2 45 4", "null"}:     false,
	} {
		d := Difference{Field: "log.wire", Envoy: values[0], Hauberk: values[1]}
		if why := knownOfTunnels(&Config{About: "passed"}, x, d); (why != "") != excused {
			t.Errorf("%q is excused with %q, want %v", values, why, excused)
		}
	}
}

package smuggling

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/http1"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// atLeast is how large the corpus is promised to be.
const atLeast = 300

// TestCorpus: every case is whole, and there are as many as promised.
func TestCorpus(t *testing.T) {
	requests, responses, http2, hosts := load(t, "requests"), load(t, "responses"), load(t, "http2"), load(t, "hosts")
	if n := len(requests) + len(responses) + len(http2) + len(hosts); n < atLeast {
		t.Errorf("%d cases, fewer than %d", n, atLeast)
	}
	names := map[string]string{}
	for _, c := range slices.Concat(requests, responses, http2, hosts) {
		key := filepath.Dir(c.where) + "/" + c.class + ": " + c.name
		if other, ok := names[key]; ok {
			t.Errorf("%s has the name of %s", c.where, other)
		}
		names[key] = c.where
		if c.cite == "" || len(c.statuses) == 0 && c.conn != "malformed" && c.conn != "mismatch" {
			t.Errorf("%s: a case cites what it is about and has a verdict", c.where)
		}
	}
	for _, c := range requests {
		last := c.statuses[len(c.statuses)-1]
		switch {
		case len(c.client) == 0 || c.conn == "broken":
			t.Errorf("%s: a request has bytes, and its connection is open or closed", c.where)
		case last >= 300 && c.reason == "":
			t.Errorf("%s: a refusal has a reason", c.where)
		case len(c.origin) != seenWhole(c):
			t.Errorf("%s: the origin answers %d messages, and sees %d", c.where, seenWhole(c), len(c.origin))
		}
	}
	for _, c := range responses {
		ok := c.statuses[len(c.statuses)-1] != 502 || c.seen != ""
		if len(c.reply) == 0 || ok && (c.seen == "" || c.upstream == "" && c.conn != "broken") || !ok && c.reason == "" {
			t.Errorf("%s: a response has bytes; one that passes has what is seen and what becomes of the connection, one that does not has a reason", c.where)
		}
	}
	for _, c := range http2 {
		if len(c.frames) == 0 || len(c.origin) != seenWhole(c) {
			t.Errorf("%s: a case of HTTP/2 has frames, and the origin sees %d messages of it", c.where, seenWhole(c))
		}
	}
	for _, c := range hosts {
		if failed := c.statuses[0] >= 500; len(c.frames) == 0 || c.upstream == "" || failed == (c.seen != "") {
			t.Errorf("%s: a response of HTTP/2 has frames, what becomes of the connection, and what is seen where it passes", c.where)
		}
	}
	t.Logf("%d requests, %d responses, %d requests and %d responses of HTTP/2", len(requests), len(responses), len(http2), len(hosts))
}

// seenWhole is how many messages the origin is to see, with a partial one.
func seenWhole(c *testCase) int {
	n := 0
	for _, s := range c.statuses {
		if s == 200 {
			n++
		}
	}
	if c.partial {
		n++
	}
	return n
}

// own are refusals of the connection manager, which the parser takes.
var own = []string{"upgrade_failed", "path_normalization_failed", "route_not_found", "max_forwards"}

// TestParserAgrees: the parser alone refuses each message for the reason that the
// case gives, however the bytes arrive.
func TestParserAgrees(t *testing.T) {
	for _, c := range load(t, "requests") {
		want := c.reason
		if slices.Contains(own, want) {
			want = ""
		}
		for _, step := range []int{1, 2, 3, 7, 1 << 20} {
			if got := reasonOf(readRequests(c, step)); got != want {
				t.Errorf("%s: %s: pieces of %d: got %q, want %q", c.where, c.name, step, got, want)
				break
			}
		}
	}
	for _, c := range load(t, "responses") {
		for _, step := range []int{1, 2, 3, 7, 1 << 20} {
			got := reasonOf(readResponse(c, step))
			// An end that comes too early, and an answer that nobody asked for, are not the parser's.
			if want := strings.TrimPrefix(c.reason, "connection:"); got != want && want == c.reason {
				t.Errorf("%s: %s: pieces of %d: got %q, want %q", c.where, c.name, step, got, want)
				break
			}
		}
	}
}

func reasonOf(err error) string {
	var e *http1.Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}

// input gives bytes in pieces.
type input struct {
	raw       []byte
	end, step int
}

func (in *input) more() bool {
	if in.end == len(in.raw) {
		return false
	}
	in.end = min(in.end+in.step, len(in.raw))
	return true
}

// readRequests reads the client's bytes until one is refused or they are over.
func readRequests(c *testCase, step int) error {
	in := &input{raw: []byte(strings.Join(c.client, "")), step: step}
	var p http1.RequestParser
	p.AcceptHTTP10 = c.listener == "http10"
	p.RegisteredMethods = c.listener != "mesh"
	underscores := http1.AllowUnderscores
	if c.listener == "nounderscore" {
		underscores = http1.RejectUnderscores
	}
	p.Configure(http1.Limits{}, underscores)
	for at := 0; at < len(in.raw); {
		var req message.Request
		p.Reset()
		n, framing, err := readHead(in, at, func(b []byte) (int, http1.Framing, error) { return p.Parse(b, &req) })
		if err != nil || n == 0 {
			return err
		}
		at += n
		if n, err = readBody(in, at, framing, req.ContentLength); err != nil || n < 0 {
			return err
		}
		if at += n; req.Close {
			return nil
		}
	}
	return nil
}

// readResponse reads a hostile origin's first final response.
func readResponse(c *testCase, step int) error {
	in := &input{raw: []byte(strings.Join(c.reply, "")), step: step}
	var p http1.ResponseParser
	p.Configure(http1.Limits{})
	for at := 0; ; {
		var resp message.Response
		p.Reset()
		n, framing, err := readHead(in, at, func(b []byte) (int, http1.Framing, error) { return p.Parse(b, c.method, &resp) })
		if err != nil || n == 0 {
			return err
		}
		if at += n; resp.Status >= 200 {
			_, err = readBody(in, at, framing, resp.ContentLength)
			return err
		}
	}
}

func readHead(in *input, at int, parse func([]byte) (int, http1.Framing, error)) (int, http1.Framing, error) {
	for {
		if in.end > at {
			n, framing, err := parse(in.raw[at:in.end:in.end])
			if err != nil || n > 0 {
				return n, framing, err
			}
		}
		if !in.more() {
			return 0, http1.NoBody, nil
		}
	}
}

// readBody returns the body's length, -1 when it did not end.
func readBody(in *input, at int, f http1.Framing, length int64) (int, error) {
	var d http1.BodyDecoder
	var trailers message.Fields
	d.Start(f, length, http1.Limits{}.WithDefaults())
	start := at
	for {
		_, n, done, err := d.Decode(in.raw[at:in.end:in.end], &trailers)
		if err != nil {
			return 0, err
		}
		at += n
		if done {
			return at - start, nil
		}
		if (n == 0 || at == in.end) && !in.more() {
			return -1, nil
		}
	}
}

//go:build e2e

package smuggling

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hauberk-mesh/hauberk/e2e/conformance/bed"
)

// poison follows every attack on the same connection: where the attack is refused the
// origin never sees it, where it is taken the origin sees exactly this.
const (
	poison     = "GET /poison HTTP/1.1\r\nHost: poison\r\n\r\n"
	poisonSeen = "GET /poison HTTP/1.1\r\nHost: poison\r\nx-forwarded-proto: http\r\n\r\n"
)

// patience is for what comes at once on any machine that is not starved.
const patience = 3 * time.Second

// atOnce is what the sidecar reads of a request in one go.
const atOnce = 4000

// listeners are those that cases name with "on".
func listeners(t *testing.T) map[string]bed.Listener {
	return map[string]bed.Listener{
		"mesh":         {Addr: bed.Addr(t), Options: bed.Mesh},
		"plain":        {Addr: bed.Addr(t)},
		"kept":         {Addr: bed.Addr(t), Options: bed.Mesh + ", stream_error_on_invalid_http_message: true"},
		"http1":        {Addr: bed.Addr(t), Options: "codec_type: HTTP1"},
		"http10":       {Addr: bed.Addr(t), Options: "http_protocol_options: {accept_http_10: true}"},
		"nounderscore": {Addr: bed.Addr(t), Options: "common_http_protocol_options: {headers_with_underscores_action: REJECT_REQUEST}"},
	}
}

func all(m map[string]bed.Listener) (out []bed.Listener) {
	for _, l := range m {
		out = append(out, l)
	}
	return out
}

// TestRequests sends every request of the corpus, at once and byte by byte.
func TestRequests(t *testing.T) {
	o := newOrigin(t)
	on := listeners(t)
	s := bed.Start(t, o.addr, all(on)...)
	var told []string
	began := time.Now()
	for _, c := range load(t, "requests") {
		l, ok := on[c.listener]
		if !ok {
			t.Fatalf("%s: there is no listener %q", c.where, c.listener)
		}
		if t.Failed() && time.Since(began) > 30*time.Second {
			t.Fatal("given up")
		}
		for _, pieces := range []bool{false, true} {
			raw := strings.Join(c.client, "")
			if pieces && (c.whole || len(raw) > 4096) {
				continue
			}
			if err := o.request(c, l.Addr, pieces); err != nil {
				t.Errorf("%s: %s (%s), in pieces: %v:\n%q\n%v", c.where, c.name, c.cite, pieces, raw, err)
				s.Alive()
			}
			told = append(told, c.log()...)
		}
	}
	s.Stop()
	// One connection's line may come behind the next one's: only their number counts.
	got := s.AccessLog()
	slices.Sort(got)
	slices.Sort(told)
	if d := cmp.Diff(told, got); d != "" {
		t.Errorf("the access log (-want +got):\n%s", d)
	}
	if n := len(o.strays); n > 0 {
		t.Errorf("the origin saw %d times what nobody sent it: %q", n, o.strays[0])
	}
}

// logged are the refusals that Envoy has a name of its own for.
var logged = map[string]string{
	"underscore_in_field_name":             "http1.unexpected_underscore",
	"too_many_headers":                     "http1.too_many_headers",
	"headers_too_large":                    "http1.headers_too_large",
	"trailers_too_large":                   "http1.trailers_too_large",
	"bad_field_value":                      "http1.invalid_characters",
	"content_length_and_transfer_encoding": "http1.content_length_and_chunked_not_allowed",
	"unknown_transfer_coding":              "http1.invalid_transfer_encoding",
	"bad_host":                             "http.invalid_authority",
	"no_host":                              "missing_host_header",
	"bad_nomination":                       "http1.connection_header_rejected",
	"http_1_0_not_accepted":                "low_version",
}

// log is what the access log tells of a case.
func (c *testCase) log() (lines []string) {
	for _, s := range c.statuses {
		switch {
		case s < 200:
		case s == 200:
			lines = append(lines, "200 via_upstream")
		default:
			details, ok := logged[c.reason]
			if !ok {
				details = c.reason
			}
			lines = append(lines, fmt.Sprintf("%d %s", s, details))
		}
	}
	if c.conn == "open" {
		lines = append(lines, "200 via_upstream")
	}
	return lines
}

// request runs one case and tells what was wrong.
func (o *origin) request(c *testCase, addr string, pieces bool) error {
	want := slices.Clone(c.origin)
	partial := ""
	statuses := slices.Clone(c.statuses)
	raw := strings.Join(c.client, "")
	if c.partial {
		partial = want[len(want)-1]
		want = want[:len(want)-1]
		if !pieces && len(raw) < atOnce {
			partial = "" // what is malformed came with the head
		}
	}
	if c.conn == "open" {
		want, statuses = append(want, poisonSeen), append(statuses, 200)
	}
	o.expect(want, partial)
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(patience))
	written := make(chan struct{})
	go func() {
		defer close(written)
		send(nc, raw+poison, pieces)
	}()
	err = answers(nc, statuses, method(raw), c.conn == "open", pieces)
	_ = nc.Close()
	<-written
	if seen := o.verdict(); seen != nil && err == nil {
		err = seen
	} else if seen != nil {
		err = fmt.Errorf("%w; %w", err, seen)
	}
	return err
}

func method(raw string) string {
	m, _, _ := strings.Cut(strings.TrimPrefix(raw, "\r\n"), " ")
	return m
}

// send ignores errors: a client that is refused is not heard to the end.
func send(nc net.Conn, raw string, pieces bool) {
	if !pieces {
		_, _ = io.WriteString(nc, raw)
		return
	}
	for i := range len(raw) {
		if _, err := io.WriteString(nc, raw[i:i+1]); err != nil {
			return
		}
	}
}

// answers reads the responses, in order, and then the end where there is to be one.
func answers(nc net.Conn, statuses []int, method string, open, pieces bool) error {
	r := bufio.NewReader(nc)
	for i, want := range statuses {
		resp, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			return fmt.Errorf("response %d: %w, want %d", i, err, want)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != want {
			return fmt.Errorf("response %d is %d %q (%v), want %d", i, resp.StatusCode, body, err, want)
		}
		if last := i == len(statuses)-1; last && resp.Close == open {
			return fmt.Errorf("response %d: Connection: close is %v", i, resp.Close)
		}
		if resp.StatusCode >= 200 {
			method = "GET" // of what follows
		}
	}
	if open {
		return nil
	}
	// A client that goes on writing behind its own "close" may find a reset.
	if rest, err := io.ReadAll(r); err != nil && !(pieces && errors.Is(err, syscall.ECONNRESET)) || len(rest) > 0 {
		return fmt.Errorf("the connection did not end after the answer: %q %v", rest, err)
	}
	return nil
}

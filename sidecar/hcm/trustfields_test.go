package hcm

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

func TestReferer(t *testing.T) {
	for value, want := range map[string]bool{
		"": true, "/a/b?c": true, "word": true, "?a": true, "//h/a": true, "http://h": true, "HTTP://h?x": true,
		"http://[::1]:80/": true, "android-app://com.x/": true, "about:blank": true, "/a://b": true,
		"http://h/a#b": false, "#a": false, "http://u@h/": false, "http://h:99999/": false, "http:///a": false,
		"http://h/a b": false, "http://h/\u00e9": false, "http://[::1/": false, "a:b/c": false, "not a uri": false,
	} {
		if got := validReferer(value); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
}

// TestClientsFields has what becomes of fields of a client whose word is taken.
func TestClientsFields(t *testing.T) {
	b := newBed(t, httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		_, refers := r.Header["Referer"]
		w.Header().Set("X-Seen", r.Header.Get("X-Forwarded-Proto"))
		if refers {
			w.Header().Set("X-Refers", strings.Join(r.Header["Referer"], ","))
		}
	}))
	b.start()
	c := b.dial()
	for _, tc := range []struct{ fields, proto, referer string }{
		{"X-Forwarded-Proto:\r\nReferer: http://h/a#b\r\n", "http", ""},
		{"X-Forwarded-Proto: https\r\nReferer: http://h/a\r\n", "https", "http://h/a"},
		{"Referer: /a\r\nReferer: /b#c\r\n", "http", ""},
		{"X-Forwarded-Proto: https\r\nX-Forwarded-Proto: http\r\n", "https,http", ""},
		{"Referer: /a\r\nReferer: /b\r\n", "http", "/a,/b"},
	} {
		resp, _ := c.do("GET / HTTP/1.1\r\nHost: h\r\n" + tc.fields + "\r\n")
		if got := resp.Header; got.Get("X-Seen") != tc.proto || got.Get("X-Refers") != tc.referer {
			t.Errorf("%q: the host saw %v", tc.fields, got)
		}
	}
}

// TestNoRetriesOfALongBody: that a policy has no retries is told of a body, too, that is kept
// for none, as far as it would be.
func TestNoRetriesOfALongBody(t *testing.T) {
	for _, tc := range []struct {
		status string
		limit  uint64
		log    string
	}{
		{"503", 1 << 20, "503 URX via_upstream"},
		{"503", 80 << 10, "503 - via_upstream"},
		{"close", 1 << 20, "503 URX,UC upstream_reset_before_response_started"},
	} {
		b := newBed(t, httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
			body := make([]byte, 100<<10)
			for n := 0; n < len(body); {
				k, err := r.Body.Read(body[n:])
				if n += k; err != nil {
					break
				}
			}
			if tc.status == "close" {
				panic(http.ErrAbortHandler)
			}
			w.WriteHeader(503)
		}))
		b.route().Forward.Retry = &route.RetryPolicy{On: route.Retry5xx, BackOffBase: time.Millisecond}
		b.route().BufferLimit = &tc.limit
		b.start()
		b.dial().do("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 102400\r\n\r\n" + strings.Repeat("x", 100<<10))
		b.wantLog(tc.log)
	}
}

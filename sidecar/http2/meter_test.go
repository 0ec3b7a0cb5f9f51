package http2

import (
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// TestPlainSizes: what a message has before it is compressed is what its reader finds in it.
func TestPlainSizes(t *testing.T) {
	for name, r := range map[string]*message.Request{
		"get":       {Method: "GET", Scheme: "http", Path: "/a?b", Authority: "test.example", ContentLength: -1},
		"post":      {Method: "POST", Scheme: "https", Path: "/", Authority: "h", ContentLength: 70000, AcceptTrailers: true, ExpectContinue: true},
		"connect":   {Method: "CONNECT", Authority: "h:1", ContentLength: -1},
		"websocket": {Method: "GET", Upgrade: "websocket", Scheme: "http", Path: "/", Authority: "h", ContentLength: -1},
	} {
		r.Fields.Add("x-a", "b")
		r.Fields.Add("User-Agent", "caf\u00e9")
		var e encoder
		e.init(4096, true)
		var d decoder
		d.init(4096)
		h := &head{cfg: Default()}
		h.begin(requestHead, new(message.Fields))
		if reason := d.decode(e.request(nil, r), h); reason != "" {
			t.Fatal(name, reason)
		}
		if got := plainRequest(r); got != h.size {
			t.Errorf("%s: %d, the reader finds %d", name, got, h.size)
		}
	}
	for _, length := range []int64{-1, 0, 9, 10, 12345} {
		r := &message.Response{Status: 200, ContentLength: length}
		r.Fields.Add("x-a", "b")
		var e encoder
		e.init(4096, true)
		var d decoder
		d.init(4096)
		h := &head{cfg: Default()}
		h.begin(responseHead, new(message.Fields))
		if reason := d.decode(e.response(nil, 200, r, true), h); reason != "" {
			t.Fatal(reason)
		}
		if got := plainResponse(r, true); got != h.size {
			t.Errorf("%d: %d, the reader finds %d", length, got, h.size)
		}
	}
}

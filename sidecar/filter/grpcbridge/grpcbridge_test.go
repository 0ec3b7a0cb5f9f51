package grpcbridge

import (
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/filter/filtertest"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

type body struct{ message.Body }

// TestBridge: whose answers are held, and what becomes of their heads.
func TestBridge(t *testing.T) {
	for _, c := range []struct {
		name     string
		version  message.Version
		kind     string   // of the request's content
		trailers []string // of the answer
		length   int      // of its body
		status   int
		grpc     string
		text     string
		told     int64 // content-length
	}{
		{"succeeds", message.HTTP11, "application/grpc", []string{"grpc-status", "0"}, 7, 200, "0", "", 7},
		{"a subtype", message.HTTP11, "application/grpc+proto", []string{"grpc-status", "0"}, 7, 200, "0", "", 7},
		{"fails", message.HTTP11, "application/grpc", []string{"grpc-status", "5", "grpc-message", "no"}, 0, 503, "5", "no", 0},
		{"HTTP/1.0", message.HTTP10, "application/grpc", []string{"grpc-status", "5"}, 1, 503, "5", "", 1},
		{"no number", message.HTTP11, "application/grpc", []string{"grpc-status", "x"}, 1, 503, "x", "", 1},
		{"no status", message.HTTP11, "application/grpc", []string{"x-sum", "1"}, 1, 200, "", "", 1},
		{"no trailers", message.HTTP11, "application/grpc", nil, 1, 200, "", "", message.UnknownLength},
		{"not gRPC", message.HTTP11, "application/json", []string{"grpc-status", "5"}, 1, 200, "", "", message.UnknownLength},
		{"HTTP/2", message.HTTP2, "application/grpc", []string{"grpc-status", "5"}, 1, 200, "", "", message.UnknownLength},
		{"HTTP/3", message.HTTP3, "application/grpc", []string{"grpc-status", "5"}, 1, 200, "", "", message.UnknownLength},
		{"too long", message.HTTP11, "application/grpc", []string{"grpc-status", "5"}, MaxBytes + 1, 200, "", "", message.UnknownLength},
		{"just so long", message.HTTP11, "application/grpc", []string{"grpc-status", "0"}, MaxBytes, 200, "0", "", MaxBytes},
	} {
		x := filtertest.New("POST", "/a.B/C", "content-type", c.kind)
		x.Request.Version, x.AnswerLength = c.version, c.length
		for i := 0; i < len(c.trailers); i += 2 {
			if x.Trailers == nil {
				x.Trailers = &message.Fields{}
			}
			x.Trailers.Add(c.trailers[i], c.trailers[i+1])
		}
		f := New(&Config{})
		if v := f.Request(&x.Context); !v.Continues() {
			t.Fatalf("%s: the request does not go on", c.name)
		}
		x.Response = &message.Response{Status: 200, Reason: "OK", Body: body{}, ContentLength: message.UnknownLength}
		f.Response(&x.Context)
		grpc, _ := x.Response.Header("grpc-status")
		text, _ := x.Response.Header("grpc-message")
		if r := x.Response; r.Status != c.status || grpc != c.grpc || text != c.text || r.ContentLength != c.told {
			t.Errorf("%s: %d, grpc-status %q, grpc-message %q, length %d", c.name, r.Status, grpc, text, r.ContentLength)
		}
	}
}

// TestHeadsAlone: what has no body is not held.
func TestHeadsAlone(t *testing.T) {
	x := filtertest.New("POST", "/a.B/C", "content-type", "application/grpc")
	x.Trailers = &message.Fields{}
	x.Trailers.Add("grpc-status", "5")
	f := New(&Config{})
	f.Request(&x.Context)
	if r := x.Answered(f, 200); r.Status != 200 {
		t.Errorf("%d", r.Status)
	}
}

// TestQuery: of calls alone it is taken off, where that is wanted.
func TestQuery(t *testing.T) {
	for _, c := range []struct {
		ignore     bool
		kind, path string
		want       string
	}{
		{true, "application/grpc", "/a.B/C?x=1&y", "/a.B/C"},
		{true, "application/grpc", "/a.B/C?", "/a.B/C"},
		{true, "application/grpc", "/a.B/C", "/a.B/C"},
		{true, "text/plain", "/a?x", "/a?x"},
		{false, "application/grpc", "/a.B/C?x", "/a.B/C?x"},
	} {
		x := filtertest.New("POST", c.path, "content-type", c.kind)
		New(&Config{IgnoreQuery: c.ignore}).Request(&x.Context)
		if x.Request.Path != c.want {
			t.Errorf("%+v: %s", c, x.Request.Path)
		}
	}
}

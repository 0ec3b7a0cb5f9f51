package grpcbridge

import (
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/filter/filtertest"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// FuzzTrailers: only a call whose status is a number of no value succeeded, and a client is told
// what the trailers said, byte by byte.
func FuzzTrailers(f *testing.F) {
	for _, v := range [][2]string{{"0", ""}, {"00", "ok"}, {"5", "no"}, {"x", "%00"}, {"", "\xff"}, {"-0", ""}, {"+0", ""}, {"0x0", ""}, {"18446744073709551616", ""}, {"0_0", ""}} {
		f.Add(v[0], v[1])
	}
	f.Fuzz(func(t *testing.T, status, text string) {
		x := filtertest.New("POST", "/a.B/C", "content-type", "application/grpc")
		x.Request.Version, x.AnswerLength, x.Trailers = message.HTTP11, 7, &message.Fields{}
		x.Trailers.Add("grpc-status", status)
		x.Trailers.Add("grpc-message", text)
		b := New(&Config{})
		b.Request(&x.Context)
		x.Response = &message.Response{Status: 200, Body: body{}, ContentLength: message.UnknownLength}
		b.Response(&x.Context)
		want := 503
		if status != "" && strings.Trim(status, "0") == "" {
			want = 200
		}
		told, _ := x.Response.Header("grpc-status")
		why, _ := x.Response.Header("grpc-message")
		if r := x.Response; r.Status != want || told != status || why != text || r.ContentLength != 7 {
			t.Errorf("%q %q: %d, %q %q, %d bytes", status, text, r.Status, told, why, r.ContentLength)
		}
	})
}

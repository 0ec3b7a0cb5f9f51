package buffer

import (
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/filter/filtertest"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// body stands for one that has not arrived.
type body struct{ message.Body }

func TestBuffer(t *testing.T) {
	for _, c := range []struct {
		name     string
		body     int
		length   int64
		override *Config
		want     int
	}{
		{"fits", 10, message.UnknownLength, nil, 0},
		{"too long", 11, message.UnknownLength, nil, 413},
		{"says that it is too long", 0, 11, nil, 413},
		{"route takes more", 100, 100, &Config{MaxBytes: 100}, 0},
		{"route does not buffer", 11, message.UnknownLength, &Config{Disabled: true}, 0},
		{"no body", -1, 0, nil, 0},
	} {
		f := New(&Config{MaxBytes: 10})
		x := filtertest.New("POST", "/")
		x.Body, x.Request.ContentLength = c.body, c.length
		if c.body >= 0 {
			x.Request.Body = body{}
		}
		if c.override != nil {
			_ = x.With(f, c.override)
		}
		got := 0
		if r := f.Request(&x.Context).Reply(); r != nil {
			got = r.Status
		}
		if got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
	if _, err := New(&Config{}).Override(1); err == nil {
		t.Error("a number was taken")
	}
}

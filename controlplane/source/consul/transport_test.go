package consul

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A token that is replaced is used from the next second on; a file that is gone
// or empty changes nothing.
func TestTokenFileIsReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	replace := func(text string) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	replace("one\n")
	synctest.Test(t, func(t *testing.T) {
		var have string
		f := &tokenFile{path: path, next: roundTrip(func(r *http.Request) (*http.Response, error) {
			have = r.Header.Get("X-Consul-Token")
			return &http.Response{}, nil
		})}
		for i, step := range []struct {
			do   func()
			want string
		}{
			{func() {}, "one"},
			{func() { replace("two") }, "two"},
			{func() { _ = os.Remove(path) }, "two"},
			{func() { replace(" ") }, "two"},
			{func() { replace("three") }, "three"},
		} {
			step.do()
			time.Sleep(tokenEvery)
			r, _ := http.NewRequest(http.MethodGet, "http://consul/", nil)
			r.Header.Set("X-Consul-Token", "of the start")
			if _, err := f.RoundTrip(r); err != nil || have != step.want {
				t.Errorf("step %d: %q %v, want %q", i, have, err, step.want)
			}
			if r.Header.Get("X-Consul-Token") != "of the start" {
				t.Error("the caller's request was changed")
			}
		}
	})
}

func TestTokenFileMustHoldOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	for _, want := range []string{"no such file", "is empty"} {
		t.Setenv("CONSUL_HTTP_TOKEN_FILE", path)
		if _, err := New(Config{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

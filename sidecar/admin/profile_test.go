package admin

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

func TestCPUProfile(t *testing.T) {
	s := start(t)
	code, body := s.do(t, "POST", "unix", s.socket, "/cpuprofiler?time=30ms", "localhost")
	if code != http.StatusOK || !strings.HasPrefix(body, "\x1f\x8b") { // gzip, as pprof reads it
		t.Errorf("%d, %d bytes", code, len(body))
	}
	for _, bad := range []string{"", "?time=x", "?time=0s", "?time=-1s", "?time=6m"} {
		if code, _ := s.do(t, "POST", "unix", s.socket, "/cpuprofiler"+bad, "localhost"); code != http.StatusBadRequest {
			t.Errorf("%q: %d", bad, code)
		}
	}
	// It costs CPU and shows code: not for anyone who can connect to loopback.
	if code, _ := s.do(t, "POST", "tcp", s.Addrs().Admin.String(), "/cpuprofiler?time=1ms", "localhost"); code == http.StatusOK {
		t.Error("a profile over TCP")
	}
}

func TestHeapProfile(t *testing.T) {
	s := start(t)
	if code, body := s.do(t, "POST", "unix", s.socket, "/heapprofiler", "localhost"); code != http.StatusOK || !strings.HasPrefix(body, "\x1f\x8b") {
		t.Errorf("%d, %d bytes", code, len(body))
	}
	if code, _ := s.do(t, "POST", "tcp", s.Addrs().Admin.String(), "/heapprofiler", "localhost"); code == http.StatusOK {
		t.Error("a profile over TCP")
	}
}

func TestMemory(t *testing.T) {
	s := start(t)
	code, body := s.do(t, "GET", "unix", s.socket, "/memory", "localhost")
	var got map[string]uint64
	if err := json.Unmarshal([]byte(body), &got); code != http.StatusOK || err != nil {
		t.Fatalf("%d %s %v", code, body, err)
	}
	for name := range memoryNames {
		if _, ok := got[name]; !ok || got["allocated_objects"] == 0 {
			t.Errorf("%s: %s", name, body)
		}
	}
}

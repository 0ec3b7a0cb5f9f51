//go:build e2e

package mesh

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// journal is what an instance of api saw of each request, by path.
type journal struct {
	id   string
	hold chan struct{} // requests to /hold/ wait for it, or for their end

	mu       sync.Mutex
	arrived  map[string]bool
	answered map[string]bool
}

func newJournal(id string) *journal {
	return &journal{id: id, hold: make(chan struct{}), arrived: map[string]bool{}, answered: map[string]bool{}}
}

func (j *journal) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	j.mu.Lock()
	j.arrived[r.URL.Path] = true
	j.mu.Unlock()
	_, _ = io.Copy(io.Discard, r.Body)
	if strings.HasPrefix(r.URL.Path, "/hold/") {
		select {
		case <-j.hold:
		case <-r.Context().Done():
			return
		}
	}
	fmt.Fprint(w, j.id)
	j.mu.Lock()
	j.answered[r.URL.Path] = true
	j.mu.Unlock()
}

func (j *journal) held() (n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for p := range j.arrived {
		if strings.HasPrefix(p, "/hold/") && !j.answered[p] {
			n++
		}
	}
	return n
}

// results is how each request of a load ended, by path; the path says its method.
type results struct {
	mu     sync.Mutex
	failed map[string]string
	sent   int
}

func (r *results) one(client *http.Client, url, path string) {
	method, _, _ := strings.Cut(path[strings.LastIndexByte(path, '/')+1:], "-")
	var body io.Reader
	if method == http.MethodPost {
		body = struct{ io.Reader }{strings.NewReader("x")} // not to be replayed by the client
	}
	req, err := http.NewRequest(method, url+path, body)
	if err == nil {
		if body != nil {
			req.ContentLength = 1
		}
		var resp *http.Response
		if resp, err = client.Do(req); err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if err == nil && resp.StatusCode != 200 {
				err = fmt.Errorf("status %d", resp.StatusCode)
			}
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent++
	if err != nil {
		r.failed[path] = err.Error()
	}
}

// killUnderLoad kills an instance, application and sidecar, while requests of the kind
// "r" are sent, one each time that every has passed, and once it holds ten of 40 of the
// kind "hold". It returns when every request has ended.
func (m *mesh) killUnderLoad(killed *workload, every time.Duration, held func() int, request func(kind string, n int)) {
	m.t.Helper()
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			case <-tick.C:
				wg.Go(func() { request("r", n) })
			}
		}
	})
	for n := range 40 {
		wg.Go(func() { request("hold", n) })
	}
	m.eventually(5*second, "the instance holds requests", func() error {
		if n := held(); n < 10 {
			return fmt.Errorf("%d held", n)
		}
		return nil
	})
	time.Sleep(300 * time.Millisecond)
	killed.sidecar.kill()
	killed.crash()
	time.Sleep(time.Second)
	close(stop)
	wg.Wait()
}

// TestInstanceKilled: of two instances one is killed, application and sidecar.
// Only what had been sent to it and is not safe to send again fails: each failed
// request is a POST that the caller's sidecar had written to the killed one, and
// each POST that the killed application held fails.
func TestInstanceKilled(t *testing.T) {
	m := newMesh(t)
	m.allow("web", "api")
	web := m.workload(spec{id: "web-1", service: "web", upstreams: []string{"api"}})
	stays, dies := newJournal("api-a"), newJournal("api-k")
	close(stays.hold)
	m.workload(spec{id: "api-a", service: "api", handler: stays})
	killed := m.workload(spec{id: "api-k", service: "api", handler: dies})
	web.answers(5*second, "api", "/", 200, "api-a")
	web.answers(5*second, "api", "/", 200, "api-k")

	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 256}}
	defer client.CloseIdleConnections()
	url := "http://" + web.upstreams["api"]
	out := &results{failed: map[string]string{}}
	m.killUnderLoad(killed, 2*time.Millisecond, dies.held, func(kind string, n int) {
		// Two of a kind in a row: where requests come in order, every other one goes to the killed.
		out.one(client, url, fmt.Sprintf("/%s/%s-%d", kind, []string{"GET", "POST"}[n/2%2], n))
	})

	dies.mu.Lock()
	defer dies.mu.Unlock()
	// A record is written after the answer: wait for the last.
	written := map[string]bool{}
	m.eventually(5*second, "the access log is written", func() error {
		for _, r := range web.records(func(r map[string]any) bool { return r["upstream"] == killed.mesh && r["code"] == 503.0 }) {
			written[r["path"].(string)] = true
		}
		for path := range out.failed {
			if !written[path] && strings.Contains(path, "/POST") {
				return fmt.Errorf("%s failed (%s), and was not sent to the killed instance", path, out.failed[path])
			}
		}
		return nil
	})
	heldPosts := 0
	for path := range dies.arrived {
		if dies.answered[path] || !strings.Contains(path, "/POST") {
			continue
		}
		heldPosts++
		if _, ok := out.failed[path]; !ok {
			t.Errorf("%s was at the killed instance, was not answered by it, and did not fail: it was sent twice", path)
		}
	}
	for path, why := range out.failed {
		if strings.Contains(path, "/GET-") {
			t.Errorf("%s is safe to send again, and failed: %s: %v", path, why,
				web.records(func(r map[string]any) bool { return r["path"] == path }))
		}
	}
	for path := range dies.arrived {
		if strings.Contains(path, "/POST") && stays.arrived[path] {
			t.Errorf("%s arrived at both instances", path)
		}
	}
	t.Logf("%d requests, %d failed: %d POSTs that the killed application held, %d that were on their way to it",
		out.sent, len(out.failed), heldPosts, len(out.failed)-heldPosts)
	if heldPosts == 0 {
		t.Error("no POST was in flight: the test showed nothing")
	}
}

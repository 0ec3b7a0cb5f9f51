package hcm

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// paced is a bed with the least rate of a mesh, whose host reads what it is sent.
func paced(t *testing.T, down, up int) *bed {
	b := versionedBed(t, down, up, func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err == nil {
			fmt.Fprint(w, n)
		}
	})
	b.options.Patience.BodyRate = 100
	b.route().Forward.Timeout = 0
	b.route().Forward.Retry = &route.RetryPolicy{On: route.Retry5xx | route.RetryReset, NumRetries: 3}
	return b
}

// TestSlowBodyOfThisHost: what a mesh does of itself cuts nobody of this host; what was asked
// for does.
func TestSlowBodyOfThisHost(t *testing.T) {
	bothInBubbles(t, func(t *testing.T, version int) {
		for strangers, want := range map[bool]int{true: 200, false: 408} {
			b := paced(t, version, 1)
			b.options.Patience.BodyRateOfStrangers = strangers
			b.start()
			if status, text, took := b.post(version, trickle(t, 1, 3, time.Minute), -1); status != want {
				t.Errorf("strangers alone: %v: %d %q after %v, want %d", strangers, status, text, took, want)
			}
		}
	})
}

// trickle is a body of size pieces, one after each pause.
func trickle(t *testing.T, size, pieces int, pause time.Duration) io.Reader {
	r, w := io.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() {
		for range pieces {
			if _, err := w.Write(make([]byte, size)); err != nil {
				return
			}
			time.Sleep(pause)
		}
		_ = w.Close()
	})
	t.Cleanup(func() {
		_ = r.Close()
		wg.Wait()
	})
	return r
}

// post sends a body of some length, -1 for one that is not known.
func (b *bed) post(down int, body io.Reader, length int64, header ...string) (status int, text string, took time.Duration) {
	b.t.Helper()
	req, err := http.NewRequest("POST", "http://"+b.addr+"/", body)
	if err != nil {
		b.t.Fatal(err)
	}
	req.ContentLength = length
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	began := time.Now()
	client := b.httpClient(down)
	client.Timeout = 0
	if req.Header.Get("X-Sends") != "at-once" {
		client.Transport.(*http.Transport).ExpectContinueTimeout = time.Hour
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err.Error(), time.Since(began)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Error(err)
	}
	return resp.StatusCode, string(answer), time.Since(began)
}

// TestSlowBody: a client below the least rate is waited for half a minute and what its bytes
// are worth, one that keeps to it as long as it takes, with and without a length.
func TestSlowBody(t *testing.T) {
	for name, tc := range map[string]struct {
		size, pieces int
		pause        time.Duration
		least, most  time.Duration
		status       int
	}{
		"a byte now and then":  {1, 1000, 5 * time.Second, 29 * time.Second, 32 * time.Second, 408},
		"half the rate":        {50, 1000, time.Second, 55 * time.Second, 75 * time.Second, 408},
		"the rate":             {110, 300, time.Second, 299 * time.Second, 302 * time.Second, 200},
		"much, then a rest":    {100 << 10, 3, 4 * time.Minute, 8 * time.Minute, 13 * time.Minute, 200},
		"a start, then a rest": {50, 3, 29 * time.Second, 30 * time.Second, 32 * time.Second, 408},
	} {
		t.Run(name, func(t *testing.T) {
			bubbles(t, func(t *testing.T, down, up int) {
				for _, known := range []bool{true, false} {
					length := int64(-1)
					if known {
						length = int64(tc.size * tc.pieces)
					}
					b := paced(t, down, up).start()
					status, text, took := b.post(down, trickle(t, tc.size, tc.pieces, tc.pause), length)
					if status != tc.status || took < tc.least || took > tc.most {
						t.Errorf("length %d: %d %q after %v, want %d after %v to %v", length, status, text, took, tc.status, tc.least, tc.most)
					}
					if line := b.logged(1)[0]; tc.status == 408 && !(strings.Contains(line, " request_body_rate ") && strings.Contains(line, "retries=0")) {
						t.Errorf("logged: %s", line)
					}
				}
			})
		})
	}
}

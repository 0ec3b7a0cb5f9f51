//go:build e2e

package h2spec

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/e2e/conformance/bed"
)

// hostile are the servers that play a case each, to every connection anew.
type hostile struct {
	cases   []result // with their addresses
	results <-chan result
}

func startHostile(t testing.TB) *hostile {
	t.Helper()
	cmd := command(t, "upstream")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	results := make(chan result, 1000)
	t.Cleanup(func() {
		_ = stdin.Close()
		for range results {
		}
		_ = cmd.Wait()
	})
	d, h := json.NewDecoder(stdout), &hostile{results: results}
	for {
		var r result
		if err := d.Decode(&r); err != nil {
			t.Fatal(err)
		}
		if r.Case == "" {
			break
		}
		h.cases = append(h.cases, r)
	}
	go func() {
		defer close(results)
		for {
			var r result
			if d.Decode(&r) != nil {
				return
			}
			results <- r
		}
	}()
	return h
}

// whole are the cases whose server gives a whole answer before anything that is wrong; the
// answer is the client's. Every other server leaves it without one.
var whole = map[string]bool{
	"client/4.2/1": true, "client/5.1/8": true, "client/5.1/9": true, "client/5.1/10": true, "client/6.1/2": true, "client/6.3/2": true,
	"client/6.4/3": true, "client/6.10/1": true, "client/6.10/4": true, "client/6.10/5": true,
}

// TestUpstream: no hostile server brings the sidecar to what h2spec forbids. Its client gets a
// whole answer, or 502, 503 or one that is seen to break off; all clients but those of HTTP/1 share
// one connection, on which requests to another origin are served all the time.
func TestUpstream(t *testing.T) {
	h := startHostile(t)
	plain, overTLS := bed.Addr(t), bed.Addr(t)
	upstreams := []upstream{{name: "origin", addr: origin(t)}}
	for i, c := range h.cases {
		upstreams = append(upstreams, upstream{fmt.Sprint("case", i), c.Addr, true})
	}
	s := bed.StartFile(t, bootstrap(t, "AUTO", plain, overTLS, upstreams...), plain, overTLS)
	if len(h.cases) != 57 {
		t.Errorf("%d cases", len(h.cases))
	}
	shared, dials := client(true)
	if got := outcome(shared, "http://"+plain+"/"); got != "200" { // so that they find its connection
		t.Fatal(got)
	}
	var wait sync.WaitGroup
	for i, c := range h.cases {
		wait.Go(func() {
			alone, _ := client(false)
			for name, of := range map[string]*http.Client{"HTTP/2": shared, "HTTP/1": alone} {
				if got := outcome(of, fmt.Sprintf("http://%s/case%d/", plain, i)); !fits(got, whole[c.id()]) {
					t.Errorf("%s: a client of %s gets %s", c.Case, name, got)
				}
				if got := outcome(of, "http://"+plain+"/"); got != "200" {
					t.Errorf("%s: a client of %s gets %s for its next request", c.Case, name, got)
				}
			}
		})
	}
	wait.Wait()
	if n := dials.Load(); n != 1 {
		t.Errorf("the clients of HTTP/2 needed %d connections", n)
	}
	s.Alive()
	played := map[string]int{}
	for range 2 * len(h.cases) {
		r := <-h.results
		if played[r.Case]++; r.Error != "" || r.Skipped {
			t.Errorf("%s: %s", r.Case, r.Error)
		}
	}
	for _, c := range h.cases {
		if played[c.Case] == 0 {
			t.Errorf("%s: nobody came", c.Case)
		}
	}
}

func fits(outcome string, whole bool) bool {
	if whole {
		return outcome == "200"
	}
	return outcome == "502" || outcome == "503" || outcome == "broken"
}

// client is one of HTTP/2 or HTTP/1 in plain text, and the number of its connections.
func client(http2 bool) (*http.Client, *atomic.Int32) {
	var p http.Protocols
	p.SetUnencryptedHTTP2(http2)
	p.SetHTTP1(!http2)
	dials := new(atomic.Int32)
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		dials.Add(1)
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	return &http.Client{Transport: &http.Transport{Protocols: &p, DialContext: dial}, Timeout: 10 * time.Second}, dials
}

// outcome is what a client learns: a status, or that its answer broke off.
func outcome(c *http.Client, url string) string {
	resp, err := c.Get(url)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	if _, err = io.ReadAll(resp.Body); err != nil && resp.StatusCode == http.StatusOK {
		return "broken"
	}
	return fmt.Sprint(resp.StatusCode)
}

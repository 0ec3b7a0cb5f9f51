package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"net/http"
)

// allocs is how many objects the runtimes of all hops have allocated, NaN when a
// hop does not tell.
func (m *measured) allocs() float64 {
	var sum float64
	for _, p := range m.procs {
		sum += p.allocs()
	}
	return sum
}

func (p *process) allocs() float64 {
	if p.admin == "" {
		return math.NaN()
	}
	resp, err := p.adminClient().Get("http://localhost/memory")
	if err != nil {
		return math.NaN()
	}
	defer resp.Body.Close()
	var got struct {
		Objects uint64 `json:"allocated_objects"`
	}
	if resp.StatusCode != http.StatusOK || json.NewDecoder(resp.Body).Decode(&got) != nil {
		return math.NaN()
	}
	return float64(got.Objects)
}

// adminClient asks a sidecar's admin socket.
func (p *process) adminClient() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", p.admin)
	}}}
}

func (m *measured) allocsText() string {
	if len(m.Allocs) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", median(m.Allocs))
}

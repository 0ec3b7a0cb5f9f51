// Package faultproxy stands in front of a real Consul in tests and does to its
// answers what overload, networks, restores and operators do: refuses with a
// status, resets connections, turns the index back, answers filtered.
package faultproxy

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// Fault is what happens to one request. The zero Fault lets it pass.
type Fault struct {
	// Status and Body answer in place of Consul.
	Status int
	Body   string
	// Reset closes the connection without an answer.
	Reset bool
	// Answer changes Consul's own answer.
	Answer func(*http.Response)
}

// Proxy passes requests to a target, except for what the fault says.
type Proxy struct {
	server *httptest.Server

	mu    sync.Mutex
	fault func(*http.Request) Fault
	cut   context.CancelFunc // ends the requests that are under way
	live  context.Context
	hits  int
}

// New starts a proxy in front of an address, until the test ends.
func New(t testing.TB, target string) *Proxy {
	t.Helper()
	p := &Proxy{}
	p.live, p.cut = context.WithCancel(context.Background())
	transport := &http.Transport{}
	reverse := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: target})
		},
		Transport:      transport,
		ModifyResponse: p.answer,
		ErrorHandler:   func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	p.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.serve(reverse, w, r)
	}))
	t.Cleanup(func() {
		p.Set(nil)
		p.server.CloseClientConnections()
		p.server.Close()
		transport.CloseIdleConnections()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.cut()
	})
	return p
}

type faultKey struct{}

func (p *Proxy) serve(next http.Handler, w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	live, fault := p.live, Fault{}
	p.hits++
	if p.fault != nil {
		fault = p.fault(r)
	}
	p.mu.Unlock()
	switch {
	case fault.Reset:
		reset(w)
	case fault.Status != 0:
		http.Error(w, fault.Body, fault.Status)
	default:
		ctx, cancel := context.WithCancel(context.WithValue(r.Context(), faultKey{}, fault))
		defer cancel()
		defer context.AfterFunc(live, cancel)()
		next.ServeHTTP(w, r.WithContext(ctx))
	}
}

func (p *Proxy) answer(r *http.Response) error {
	if f, ok := r.Request.Context().Value(faultKey{}).(Fault); ok && f.Answer != nil {
		f.Answer(r)
	}
	return nil
}

func reset(w http.ResponseWriter) {
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // a reset, not an orderly close
	}
	_ = c.Close()
}

// Set chooses the fault for each request from now on, nil for none, and cuts
// the requests that are under way, so that blocking queries meet it too.
func (p *Proxy) Set(fault func(*http.Request) Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = fault
	p.cut()
	p.live, p.cut = context.WithCancel(context.Background())
}

// Hits is the number of requests so far.
func (p *Proxy) Hits() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hits
}

// Addr is host:port.
func (p *Proxy) Addr() string { return strings.TrimPrefix(p.server.URL, "http://") }

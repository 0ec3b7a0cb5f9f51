//go:build e2e

package mesh

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	consulapi "github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/server/api"
)

// has waits until the workload's sidecar has acknowledged clusters with every
// text in them and none of the others, and still serves.
func (w *workload) has(what string, texts []string, not ...string) {
	w.m.t.Helper()
	took := w.m.eventually(5*second, what, func() error {
		var res []api.Resource
		path := strings.Replace(api.ResourcesPath, "{name}", w.id, 1) + "?type=CDS"
		if err := w.m.api.Get(w.m.t.Context(), path, &res); err != nil {
			return err
		}
		text := ""
		for _, r := range res {
			if r.State != "acked" {
				return fmt.Errorf("%s is %s", r.Name, r.State)
			}
			text += strings.ReplaceAll(string(r.Body), " ", "")
		}
		for _, x := range texts {
			if !strings.Contains(text, x) {
				return fmt.Errorf("no %s; registered is %s", x, w.registered())
			}
		}
		for _, x := range not {
			if strings.Contains(text, x) {
				return fmt.Errorf("there is %s", x)
			}
		}
		return nil
	})
	w.m.t.Logf("%s: %v", what, took)
	// By the connection that the first request opened, too.
	w.answers(second, "api", "/", 200, "api-1")
}

// registered is what Consul's servers hold of the first upstream's Config.
func (w *workload) registered() string {
	p, err := w.proxy()
	if err != nil {
		return err.Error()
	}
	return fmt.Sprint(p.Upstreams[0].Config)
}

// registers waits until what Consul's servers hold of that has a text in it, or has one
// no more.
func (w *workload) registers(text string, want bool) {
	w.m.t.Helper()
	w.m.eventually(consulLag, fmt.Sprintf("Consul's servers have %q: %t", text, want), func() error {
		if got := w.registered(); strings.Contains(got, text) != want {
			return errors.New(got)
		}
		return nil
	})
}

// TestUpstreamConfig: what a registration says of its upstream is in force, over
// the caller's service-defaults, of which Consul's agent puts a copy into the
// registration; and a change or removal of what was copied arrives.
func TestUpstreamConfig(t *testing.T) {
	m := newMesh(t)
	m.allow("web", "api")
	m.workload(spec{id: "api-1", service: "api"})
	// Every limit: Consul 1.13 panics when it streams its own copy with a null in it.
	defaults := &consulapi.ServiceConfigEntry{Kind: consulapi.ServiceDefaults, Name: "web", Protocol: "http",
		UpstreamConfig: &consulapi.UpstreamConfiguration{Overrides: []*consulapi.UpstreamConfig{{Name: "api", ConnectTimeoutMs: 3210,
			Limits: &consulapi.UpstreamLimits{MaxConnections: number(321), MaxPendingRequests: number(322), MaxConcurrentRequests: number(323)}}}}}
	m.entry(defaults)
	web := m.workload(spec{id: "web-1", service: "web", upstreams: []string{"api"}})
	web.answers(5*second, "api", "/", 200, "api-1")
	web.registers("3210", true)
	web.has("service-defaults", []string{`"3.210s"`, `"maxConnections":321`, `"maxPendingRequests":322`})

	up := &web.reg.Connect.SidecarService.Proxy.Upstreams[0]
	up.Config = map[string]any{"connect_timeout_ms": 1230, "limits": map[string]any{"max_connections": 123}}
	register := func() {
		t.Helper()
		if err := m.catalog.Agent().ServiceRegister(web.reg); err != nil {
			t.Fatal(err)
		}
	}
	register()
	web.registers("1230", true)
	web.has("the registration over them", []string{`"1.230s"`, `"maxConnections":123`}, `"3.210s"`, `"maxConnections":321`)

	up.Config = nil
	register()
	// One thing after the other: an agent of Consul 1.13 that is registered with
	// while an entry changes can miss the change.
	web.registers("3210", true)
	web.has("the copy again", []string{`"3.210s"`, `"maxConnections":321`}, `"1.230s"`)
	defaults.UpstreamConfig.Overrides[0].ConnectTimeoutMs = 4560
	m.entry(defaults)
	web.registers("4560", true)
	web.has("a changed copy", []string{`"4.560s"`, `"maxConnections":321`}, `"3.210s"`, `"1.230s"`, `"maxConnections":123,`)
	defaults.UpstreamConfig = nil
	m.entry(defaults)
	web.registers("4560", false)
	web.has("a removed copy", nil, `"4.560s"`, `"maxConnections":321`)

	// The protocol of an upstream is its own: what says otherwise is named.
	up.Config = map[string]any{"protocol": "tcp"}
	register()
	web.registers("tcp", true)
	m.eventually(5*second, "the status names the protocol", func() error {
		var st api.Status
		if err := m.api.Get(t.Context(), api.StatusPath, &st); err != nil {
			return err
		}
		for _, p := range st.Problems {
			if strings.Contains(p.Where+p.What, "Upstreams[0].Config.protocol") {
				return nil
			}
		}
		return fmt.Errorf("problems %+v", st.Problems)
	})
	web.answers(second, "api", "/", 200, "api-1")
}

func number(n int) *int { return &n }

// TestApplicationMoves: an application that goes to another port takes the
// connections of its peers with it; they are its sidecar's, and stay open.
func TestApplicationMoves(t *testing.T) {
	m := newMesh(t)
	m.allow("web", "api")
	api := m.workload(spec{id: "api-1", service: "api"})
	web := m.workload(spec{id: "web-1", service: "web", upstreams: []string{"api"}})
	web.answers(5*second, "api", "/", 200, "api-1")

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	moved := &http.Server{Handler: echoName("moved")}
	go func() { _ = moved.Serve(ln) }()
	t.Cleanup(func() { moved.Close() })
	port := ln.Addr().(*net.TCPAddr).Port
	api.reg.Port, api.reg.Connect.SidecarService.Proxy.LocalServicePort = port, port
	if err := m.catalog.Agent().ServiceRegister(api.reg); err != nil {
		t.Fatal(err)
	}
	requests := 0
	ask := func() (body string) {
		requests++
		code, body, err := web.get("api", "/")
		if err != nil || code != 200 {
			t.Fatalf("request %d: %d %q %v", requests, code, body, err)
		}
		return body
	}
	m.eventually(consulLag, "Consul's servers have the new port", func() error {
		ask()
		p, err := api.proxy()
		if err == nil && p.LocalServicePort != port {
			err = fmt.Errorf("it is %d", p.LocalServicePort)
		}
		return err
	})
	took := m.eventually(5*second, "the application is reached at its new port", func() error {
		if body := ask(); body != "moved" {
			return fmt.Errorf("answered by %s", body)
		}
		return nil
	})
	t.Logf("after %v, %d requests, none failed", took, requests)
}

//go:build e2e

package consul

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/source"
	"github.com/hauberk-mesh/hauberk/controlplane/source/sourcetest"
	"github.com/hauberk-mesh/hauberk/controlplane/source/sourcetest/faultproxy"
	"github.com/hauberk-mesh/hauberk/controlplane/store"
	"github.com/hauberk-mesh/hauberk/e2e/consultest"
)

// world is a real Consul behind a proxy that can break.
type world struct {
	t      *testing.T
	server *consultest.Server
	proxy  *faultproxy.Proxy
	client *api.Client
}

func startConsul(t *testing.T, acl bool) *consultest.Server {
	t.Helper()
	return startConsulWith(t, consultest.Options{ACL: acl})
}

func startConsulWith(t *testing.T, opts consultest.Options) *consultest.Server {
	t.Helper()
	dir, err := os.MkdirTemp("", "hauberk-consul")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	opts.Dir, opts.Progress = dir, os.Stderr
	s, err := consultest.Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Errorf("stopping Consul: %v", err)
		}
	})
	return s
}

func newWorld(t *testing.T, s *consultest.Server) *world {
	conf := api.DefaultConfig()
	conf.Address, conf.Token = s.HTTPAddr(), s.ManagementToken
	c, err := api.NewClient(conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conf.Transport.CloseIdleConnections)
	return &world{t, s, faultproxy.New(t, s.HTTPAddr()), c}
}

func (w *world) source(token string) *Source {
	conf := api.DefaultConfig()
	conf.Address, conf.Token = w.proxy.Addr(), token
	s, err := New(Config{API: conf, Wait: 20 * time.Second})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(conf.Transport.CloseIdleConnections)
	return s
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) PutService(name string, port int) {
	w.t.Helper()
	w.must(w.client.Agent().ServiceRegister(&api.AgentServiceRegistration{
		Name: name, Port: 9000,
		Connect: &api.AgentServiceConnect{SidecarService: &api.AgentServiceRegistration{Port: port}},
	}))
}

func (w *world) RemoveService(name string) {
	w.t.Helper()
	w.must(w.client.Agent().ServiceDeregister(name))
}

func (w *world) PutEntry(e api.ConfigEntry) {
	w.t.Helper()
	_, _, err := w.client.ConfigEntries().Set(e, nil)
	// For a moment after it was elected a leader takes no intentions, though it is ready.
	for end := time.Now().Add(10 * time.Second); err != nil && strings.Contains(err.Error(), "being upgraded") && time.Now().Before(end); {
		<-time.After(50 * time.Millisecond)
		_, _, err = w.client.ConfigEntries().Set(e, nil)
	}
	w.must(err)
}

func (w *world) DeleteEntry(kind, name string) {
	w.t.Helper()
	_, err := w.client.ConfigEntries().Delete(kind, name, nil)
	w.must(err)
}

func (w *world) Break() {
	w.proxy.Set(func(*http.Request) faultproxy.Fault {
		return faultproxy.Fault{Status: 500, Body: "No cluster leader"}
	})
}

func (w *world) Mend() { w.proxy.Set(nil) }

// wipe makes the world empty for the next test.
func (w *world) wipe() {
	services, err := w.client.Agent().Services()
	w.must(err)
	for id, s := range services {
		if s.Kind == "" {
			w.RemoveService(id)
		}
	}
	for _, kind := range catalog.Kinds {
		entries, _, err := w.client.ConfigEntries().List(kind, nil)
		w.must(err)
		for _, e := range entries {
			w.DeleteEntry(kind, e.GetName())
		}
	}
	for end := time.Now().Add(sourcetest.Patience); ; time.Sleep(50 * time.Millisecond) {
		left, _, err := w.client.Catalog().Services(nil)
		w.must(err)
		if len(left) <= 1 {
			return
		}
		if time.Now().After(end) {
			w.t.Fatalf("services do not go: %v", left)
		}
	}
}

func TestContract(t *testing.T) {
	server := startConsul(t, false)
	sourcetest.Contract(t, func(t *testing.T) (sourcetest.World, func() source.Source) {
		w := newWorld(t, server)
		w.wipe()
		return w, func() source.Source { return w.source("") }
	})
}

// TestFaults: each of them is reported, loses nothing, and is overcome.
func TestFaults(t *testing.T) {
	server := startConsul(t, false)
	for name, fault := range map[string]func(*http.Request) faultproxy.Fault{
		"too many connections": func(*http.Request) faultproxy.Fault {
			return faultproxy.Fault{Status: 429, Body: "Your IP is issuing too many concurrent connections"}
		},
		"no leader": func(*http.Request) faultproxy.Fault {
			return faultproxy.Fault{Status: 500, Body: "No cluster leader"}
		},
		"reset": func(*http.Request) faultproxy.Fault { return faultproxy.Fault{Reset: true} },
		"filtered": func(*http.Request) faultproxy.Fault {
			return faultproxy.Fault{Answer: func(r *http.Response) { r.Header.Set("X-Consul-Results-Filtered-By-ACLs", "true") }}
		},
		"token gone": func(*http.Request) faultproxy.Fault {
			return faultproxy.Fault{Status: 403, Body: "ACL not found"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, server)
			w.wipe()
			w.PutService("api", 21001)
			w.PutEntry(&api.ServiceConfigEntry{Kind: api.ServiceDefaults, Name: "api", Protocol: "http"})
			s := w.source("")
			r := sourcetest.Start(t, s)
			whole := func(s sourcetest.State) bool { l, _ := s.Service("api"); return len(l) == 1 && len(s.Entries) == 1 }
			r.Until("everything", whole)
			w.proxy.Set(fault)
			sourcetest.UntilStatus(t, s, "an error", func(st source.Status) bool { return len(st.Errors) > 0 })
			w.PutService("web", 21002)
			before := w.proxy.Hits()
			r.Never("a loss", 2*time.Second, func(s sourcetest.State) bool { return !whole(s) })
			if n := w.proxy.Hits() - before; n > 200 {
				t.Errorf("%d requests in two seconds of failure", n)
			}
			w.Mend()
			r.Until("what came meanwhile", func(s sourcetest.State) bool { l, _ := s.Service("web"); return len(l) == 1 && whole(s) })
			sourcetest.UntilStatus(t, s, "no error", func(st source.Status) bool { return len(st.Errors) == 0 })
			if name != "filtered" && name != "token gone" && r.State().Reconnects == 0 {
				t.Error("nothing said that the server was lost")
			}
		})
	}
}

// TestIndexGoesBack: as after the restore of a snapshot.
func TestIndexGoesBack(t *testing.T) {
	w := newWorld(t, startConsul(t, false))
	w.PutService("api", 21001)
	s := w.source("")
	r := sourcetest.Start(t, s)
	r.Until("api", func(s sourcetest.State) bool { l, _ := s.Service("api"); return len(l) == 1 })
	w.proxy.Set(func(*http.Request) faultproxy.Fault {
		return faultproxy.Fault{Answer: func(r *http.Response) {
			if i, err := strconv.Atoi(r.Header.Get("X-Consul-Index")); err == nil {
				r.Header.Set("X-Consul-Index", fmt.Sprint(max(1, i/2)))
			}
		}}
	})
	w.PutService("web", 21002)
	r.Until("web", func(s sourcetest.State) bool { l, _ := s.Service("web"); return len(l) == 1 })
	before := w.proxy.Hits()
	r.Never("a loss", 2*time.Second, func(s sourcetest.State) bool { l, _ := s.Service("api"); return len(l) != 1 })
	if n := w.proxy.Hits() - before; n > 600 {
		t.Errorf("%d requests in two seconds: a busy loop", n)
	}
}

// TestTokens: a token that cannot see everything is refused at the start, and
// one that loses a rule later loses nothing but freshness.
func TestTokens(t *testing.T) {
	w := newWorld(t, startConsul(t, true))
	w.PutService("api", 21001)
	w.PutEntry(&api.ServiceIntentionsConfigEntry{Kind: api.ServiceIntentions, Name: "api",
		Sources: []*api.SourceIntention{{Name: "web", Action: api.IntentionActionAllow}}})
	token := func(rules string) (*api.ACLPolicy, string) {
		p, _, err := w.client.ACL().PolicyCreate(&api.ACLPolicy{Name: fmt.Sprintf("p%d", time.Now().UnixNano()), Rules: rules}, nil)
		w.must(err)
		tok, _, err := w.client.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLTokenPolicyLink{{ID: p.ID}}}, nil)
		w.must(err)
		return p, tok.SecretID
	}
	for rules, missing := range map[string]string{
		`node_prefix "" { policy = "read" }`:    `service_prefix ""`,
		`service_prefix "" { policy = "read" }`: `node_prefix ""`,
	} {
		_, tok := token(rules)
		ctx, cancel := context.WithTimeout(t.Context(), sourcetest.Patience)
		err := w.source(tok).Run(ctx, sourcetest.NewRecorder(t))
		cancel()
		if err == nil || !strings.Contains(err.Error(), missing) {
			t.Errorf("with %s: %v, want it to name %s", rules, err, missing)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), sourcetest.Patience)
	defer cancel()
	if err := w.source("").Run(ctx, sourcetest.NewRecorder(t)); err == nil || !strings.Contains(err.Error(), "token") {
		t.Errorf("without a token: %v", err)
	}
	p, tok := token(serviceRule + "\n" + nodeRule)
	s := w.source(tok)
	r := sourcetest.Start(t, s)
	whole := func(s sourcetest.State) bool {
		l, _ := s.Service("api")
		return len(l) == 1 && s.Entries[catalog.Entry(api.ServiceIntentions, "api")] != nil
	}
	r.Until("everything", whole)
	if r.State().DefaultAllow {
		t.Error("default deny was taken for allow")
	}
	p.Rules = `node_prefix "" { policy = "read" }`
	_, _, err := w.client.ACL().PolicyUpdate(p, nil)
	w.must(err)
	w.PutEntry(&api.ServiceIntentionsConfigEntry{Kind: api.ServiceIntentions, Name: "db",
		Sources: []*api.SourceIntention{{Name: "web", Action: api.IntentionActionDeny}}})
	sourcetest.UntilStatus(t, s, "the missing rule", func(st source.Status) bool {
		for _, e := range st.Errors {
			if strings.Contains(e, "service_prefix") {
				return true
			}
		}
		return false
	})
	r.Never("a loss", 3*time.Second, func(s sourcetest.State) bool { return !whole(s) })

	// The rule comes back: so does everything, with what was written meanwhile.
	p.Rules = serviceRule + "\n" + nodeRule
	_, _, err = w.client.ACL().PolicyUpdate(p, nil)
	w.must(err)
	r.Until("what was written meanwhile", func(s sourcetest.State) bool {
		return whole(s) && s.Entries[catalog.Entry(api.ServiceIntentions, "db")] != nil
	})
	sourcetest.UntilStatus(t, s, "no error", func(st source.Status) bool { return len(st.Errors) == 0 })

	// The token is deleted: everything stays, and the status says why it is old.
	self, _, err := w.client.ACL().TokenReadSelf(&api.QueryOptions{Token: tok})
	w.must(err)
	_, err = w.client.ACL().TokenDelete(self.AccessorID, nil)
	w.must(err)
	w.PutService("web", 21002)
	sourcetest.UntilStatus(t, s, "the refusal", func(st source.Status) bool {
		for _, e := range st.Errors {
			if strings.Contains(e, "the token may not read") {
				return true
			}
		}
		return false
	})
	r.Never("a loss", 2*time.Second, func(s sourcetest.State) bool { return !whole(s) })
}

// TestDefaultFollowsTheWildcard: while `* -> *` allows, it answers in place of the
// default, which is to deny; neither is taken for the other.
func TestDefaultFollowsTheWildcard(t *testing.T) {
	w := newWorld(t, startConsul(t, true))
	w.PutEntry(&api.ServiceIntentionsConfigEntry{Kind: api.ServiceIntentions, Name: "*",
		Sources: []*api.SourceIntention{{Name: "*", Action: api.IntentionActionAllow}}})
	r := sourcetest.Start(t, w.source(w.server.ManagementToken))
	if s := r.Until("the wildcard", func(s sourcetest.State) bool { return len(s.Entries) == 1 }); s.DefaultAllow {
		t.Error("what a wildcard allows is taken for the default")
	}
	w.DeleteEntry(api.ServiceIntentions, "*")
	if s := r.Until("its deletion", func(s sourcetest.State) bool { return len(s.Entries) == 0 }); s.DefaultAllow {
		t.Error("the wildcard is gone and everything is still allowed")
	}
}

// TestRestart: Consul restored with its data says that everything is critical
// until its checks run. The store keeps what was known meanwhile.
func TestRestart(t *testing.T) {
	w := newWorld(t, startConsul(t, false))
	const n = 3
	for i := range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		w.must(err)
		defer l.Close()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				c.Close()
			}
		}()
		w.PutService(fmt.Sprint("s", i), l.Addr().(*net.TCPAddr).Port)
	}
	s := w.source("")
	st := store.New(store.Config{TrustDomain: "td", Confirmer: s})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stored, ran := make(chan struct{}), make(chan struct{})
	go func() { defer close(stored); _ = st.Run(ctx) }()
	rec := sourcetest.NewRecorder(t)
	go func() { defer close(ran); _ = s.Run(ctx, tee{rec, st}) }()
	defer func() { cancel(); <-stored; <-ran }()
	serving := func(snap *catalog.Snapshot) int {
		c := 0
		for _, l := range snap.Instances {
			for _, i := range l {
				if i.Health.Serving() {
					c++
				}
			}
		}
		return c
	}
	for end := time.Now().Add(2 * sourcetest.Patience); ; time.Sleep(50 * time.Millisecond) {
		if p := st.Current(); p != nil && serving(p.Snapshot) == n {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("services do not pass: %s", rec.State())
		}
	}
	sub := st.Subscribe()
	defer sub.Close()
	w.must(w.server.Stop())
	w.must(w.server.Restart(ctx))
	sawCritical := false
	for end := time.Now().Add(25 * time.Second); time.Now().Before(end); {
		wait, stop := context.WithTimeout(ctx, 200*time.Millisecond)
		if p, err := sub.Next(wait); err == nil && serving(p.Snapshot) != n {
			stop()
			t.Fatalf("published %d of %d serving; %+v; source said %s", serving(p.Snapshot), n, st.Status(), rec.State())
		}
		stop()
		for i := range n {
			for _, h := range rec.State().Health(fmt.Sprint("s", i)) {
				sawCritical = sawCritical || h == catalog.Critical
			}
		}
	}
	t.Logf("the source reported critical: %v; reconnects %d", sawCritical, rec.State().Reconnects)
	if rec.State().Reconnects == 0 {
		t.Error("the restart went unnoticed")
	}
}

type tee struct{ a, b source.Sink }

func (t tee) Update(ctx context.Context, u source.Update) error {
	if err := t.a.Update(ctx, u); err != nil {
		return err
	}
	return t.b.Update(ctx, u)
}

package consul

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"
)

// restartedAgent is a server that came back a moment ago: what it has replayed
// of its log so far is old, and it answers stale reads from that. It leads, and
// has everything, after a second.
type restartedAgent struct {
	since time.Time
	old   string // the answer from half a log
	whole string
}

func (a *restartedAgent) RoundTrip(r *http.Request) (*http.Response, error) {
	answer := func(code int, index, body string) (*http.Response, error) {
		return &http.Response{StatusCode: code, Header: http.Header{"X-Consul-Index": {index}},
			Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
	}
	q := r.URL.Query()
	_, stale := q["stale"]
	switch ready := time.Since(a.since) > time.Second; {
	case ready && q.Get("index") == "9":
		return nil, pause(r.Context(), time.Hour)
	case ready:
		return answer(http.StatusOK, "9", a.whole)
	case q.Get("index") == "9":
		// A blocking query from before ends, with what there is.
		if err := pause(r.Context(), 100*time.Millisecond); err != nil {
			return nil, err
		}
		return answer(http.StatusOK, "3", a.old)
	case stale:
		return answer(http.StatusOK, "3", a.old)
	}
	return answer(http.StatusInternalServerError, "", "No cluster leader")
}

// TestHalfALogIsNotBelieved: what a restarted server has not replayed yet is no
// deletion. Here it would be that of an intention.
func TestHalfALogIsNotBelieved(t *testing.T) {
	const intention = `{"Kind":"service-intentions","Name":"db","Sources":[{"Name":"web","Action":"allow","Precedence":9,"Type":"consul"}],"CreateIndex":9,"ModifyIndex":9}`
	synctest.Test(t, func(t *testing.T) {
		s, err := New(Config{Wait: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		agent := &restartedAgent{since: time.Now(), old: "[]", whole: "[" + intention + "]"}
		if s.client, err = api.NewClient(&api.Config{HttpClient: &http.Client{Transport: agent}}); err != nil {
			t.Fatal(err)
		}
		st := &kindState{}
		s.changes(api.ServiceIntentions, []json.RawMessage{json.RawMessage(intention)}, st, 9)
		st.index = 9
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		wg.Go(func() { s.watchKind(ctx, api.ServiceIntentions, st) })
		end := time.After(10 * time.Second)
		for {
			select {
			case u := <-s.updates:
				if len(u.DeletedEntries) > 0 {
					t.Fatalf("deleted: %v", u.DeletedEntries)
				}
			case <-end:
				if errs := s.Status().Errors; len(errs) > 0 {
					t.Errorf("errors: %v", errs)
				}
				return
			}
		}
	})
}

// blockingAgent answers every query for a service with nothing: at once, or
// after the wait when it is a blocking one. It counts the latter.
type blockingAgent struct {
	mu       sync.Mutex
	blocking map[string]int
	polls    map[string]int
}

func (a *blockingAgent) RoundTrip(r *http.Request) (*http.Response, error) {
	name := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	a.mu.Lock()
	if r.URL.Query().Get("index") != "" {
		a.blocking[name]++
	} else {
		a.polls[name]++
	}
	a.mu.Unlock()
	if r.URL.Query().Get("index") != "" {
		if err := pause(r.Context(), time.Minute); err != nil {
			return nil, err
		}
	}
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"X-Consul-Index": {"7"}},
		Body: io.NopCloser(strings.NewReader("[]")), Request: r}, nil
}

func (a *blockingAgent) count(name string) (blocking, polls int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.blocking[name], a.polls[name]
}

// TestPolledNamesTakeFreeWatches: over plain HTTP a name beyond the limit is
// polled, and takes the watch of one that is gone.
func TestPolledNamesTakeFreeWatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		agent := &blockingAgent{blocking: map[string]int{}, polls: map[string]int{}}
		s, err := New(Config{Wait: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		if s.client, err = api.NewClient(&api.Config{HttpClient: &http.Client{Transport: agent}}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		wg.Go(func() {
			for {
				select {
				case <-s.reports:
				case <-ctx.Done():
					return
				}
			}
		})
		for i := range plainHTTPWatches {
			s.startService(ctx, &wg, fmt.Sprint("s", i), 7)
		}
		s.startService(ctx, &wg, "late", 7)
		time.Sleep(3 * pollEvery)
		if blocking, polls := agent.count("late"); blocking != 0 || polls < 2 {
			t.Fatalf("with every watch taken: %d blocking queries, %d polls", blocking, polls)
		}
		s.mu.Lock()
		s.services["s0"].stop()
		s.mu.Unlock()
		time.Sleep(2 * pollEvery)
		if blocking, _ := agent.count("late"); blocking == 0 {
			t.Error("a watch is free and the name is still polled")
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.watching != plainHTTPWatches {
			t.Errorf("%d watches are counted, want %d", s.watching, plainHTTPWatches)
		}
	})
}

// oddAgent lists one service with a name that no mesh service can have, and
// refuses to say what is registered under it, as Consul does.
type oddAgent struct{ odd string }

func (a *oddAgent) RoundTrip(r *http.Request) (*http.Response, error) {
	code, body := http.StatusOK, "[]"
	switch {
	case r.URL.Path == "/v1/catalog/nodes":
		body = `[{"Node":"n","Datacenter":"dc1"}]`
	case r.URL.Path == "/v1/catalog/services":
		list, err := json.Marshal(map[string][]string{a.odd: {}, "api": {}})
		if err != nil {
			return nil, err
		}
		body = string(list)
	case strings.HasPrefix(r.URL.Path, "/v1/health/service/") && r.URL.Path != "/v1/health/service/api":
		code, body = http.StatusBadRequest, "invalid path"
	case r.URL.Path == "/v1/connect/intentions/match":
		body = "{}"
	case r.URL.Path == "/v1/connect/intentions/check":
		body = `{"Allowed":true}`
	}
	return &http.Response{StatusCode: code, Header: http.Header{"X-Consul-Index": {"7"}},
		Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

// TestOddNamesAreLeftOut: a name that cannot be a mesh service's is no reason to
// know nothing of the others.
func TestOddNamesAreLeftOut(t *testing.T) {
	for _, odd := range []string{"team-a-\u0001", "team-a/..", "..", ""} {
		s, err := New(Config{Wait: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		if s.client, err = api.NewClient(&api.Config{HttpClient: &http.Client{Transport: &oddAgent{odd: odd}}}); err != nil {
			t.Fatal(err)
		}
		_, marks, err := s.readAll(t.Context())
		if err != nil {
			t.Errorf("%q: %v", odd, err)
			continue
		}
		if _, ok := marks.services["api"]; !ok || len(marks.services) != 1 {
			t.Errorf("%q: services %v, want api", odd, marks.services)
		}
		what := fmt.Sprintf("service %q", odd)
		if s.Status().Errors[what] == "" {
			t.Errorf("%q: the status says nothing of it: %v", odd, s.Status().Errors)
		}
		s.sift(map[string][]string{"api": {}})
		if errs := s.Status().Errors; len(errs) > 0 {
			t.Errorf("%q: gone, and the status says %v", odd, errs)
		}
	}
}

// TestARefusedNameIsLeftForItsWatch: what Consul will not answer for one name
// does not keep the others waiting.
func TestARefusedNameIsLeftForItsWatch(t *testing.T) {
	s, err := New(Config{Wait: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if s.client, err = api.NewClient(&api.Config{HttpClient: &http.Client{Transport: &oddAgent{odd: "team-a"}}}); err != nil {
		t.Fatal(err)
	}
	_, marks, err := s.readAll(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if index, ok := marks.services["team-a"]; !ok || index != 0 || marks.services["api"] != 7 {
		t.Errorf("services %v", marks.services)
	}
}

// TestOnlyALossIsALoss: an agent that refuses one query has not gone away, so
// the answer after it reconnects nothing.
func TestOnlyALossIsALoss(t *testing.T) {
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	s.problem("service x", fmt.Errorf("consul: %w", api.StatusError{Code: http.StatusBadRequest, Body: "invalid path"}))
	if s.answered("service y", 1) {
		t.Error("a query that was refused counts as a loss")
	}
	for _, lost := range []error{io.ErrUnexpectedEOF, fmt.Errorf("consul: %w", api.StatusError{Code: http.StatusInternalServerError, Body: "No cluster leader"})} {
		s.problem("service x", lost)
		if !s.answered("service y", 1) {
			t.Errorf("%v is no loss", lost)
		}
	}
}

// policyAgent answers the probe for the default as check says.
type policyAgent struct {
	check func() bool
	match string // the intentions that match, empty for none
}

func (a *policyAgent) RoundTrip(r *http.Request) (*http.Response, error) {
	body := "{}"
	if r.URL.Path == "/v1/connect/intentions/check" {
		body = fmt.Sprintf(`{"Allowed":%v}`, a.check())
	} else if a.match != "" {
		body = fmt.Sprintf(`{%q:[%s]}`, r.URL.Query().Get("name"), a.match)
	}
	return answer(r, http.StatusOK, body), nil
}

func answer(r *http.Request, code int, body string) *http.Response {
	return &http.Response{StatusCode: code, Header: http.Header{"X-Consul-Index": {"7"}}, Body: io.NopCloser(strings.NewReader(body)), Request: r}
}

type agentFunc func(*http.Request) (*http.Response, error)

func (f agentFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func watchPolicyOf(t *testing.T, s *Source, agent *policyAgent) {
	t.Helper()
	watchOf(t, s, agent, s.watchPolicy)
}

// watchOf runs a watch against an agent until the test ends.
func watchOf(t *testing.T, s *Source, agent http.RoundTripper, watch func(context.Context)) {
	t.Helper()
	var err error
	if s.client, err = api.NewClient(&api.Config{HttpClient: &http.Client{Transport: agent}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { watch(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
}

// TestAWildcardIsNotTheDefault: where a wildcard intention allows the probe, the default may
// still be to deny, and what a source's Permissions do not allow must not be allowed by it.
func TestAWildcardIsNotTheDefault(t *testing.T) {
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		match string
		want  bool
	}{
		{``, true},
		{`{"SourceName":"web","DestinationName":"*","Action":"allow"}`, true},
		{`{"SourceName":"web","DestinationName":"*","Action":"deny"},{"SourceName":"*","DestinationName":"*","Action":"allow"}`, false},
	} {
		agent := &policyAgent{check: func() bool { return true }, match: c.match}
		if s.client, err = api.NewClient(&api.Config{HttpClient: &http.Client{Transport: agent}}); err != nil {
			t.Fatal(err)
		}
		if got, err := s.defaultAllow(t.Context()); err != nil || got != c.want {
			t.Errorf("allowed, with the intentions %q: %v, %v, want %v", c.match, got, err, c.want)
		}
	}
}

const aDeny = `[{"Kind":"service-intentions","Name":"api","Sources":[{"Name":"web","Action":"deny","Precedence":9,"Type":"consul"}],"CreateIndex":1,"ModifyIndex":1}]`

// TestAKindThatTheServerLearns: a server is asked again, in time, for a kind that it did not
// know, and that is no loss of the server.
func TestAKindThatTheServerLearns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := New(Config{})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		watchOf(t, s, agentFunc(func(r *http.Request) (*http.Response, error) {
			if time.Since(began) < reprobe {
				return answer(r, http.StatusBadRequest, "invalid config entry kind: service-intentions"), nil
			}
			if r.URL.Query().Get("index") != "" {
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
			return answer(r, http.StatusOK, aDeny), nil
		}), func(ctx context.Context) { s.watchKind(ctx, api.ServiceIntentions, &kindState{}) })
		select {
		case u := <-s.updates:
			if len(u.Entries) != 1 || u.Reconnected {
				t.Errorf("%+v, want the entry and no reconnection", u)
			}
		case <-time.After(2 * reprobe):
			t.Errorf("the server was never asked again; status %v", s.Status().Errors)
		}
	})
}

// TestReadIsDelivered: what was read is not read again, so it is delivered though the time for
// reading it ends meanwhile.
func TestReadIsDelivered(t *testing.T) {
	for what, run := range map[string]func(*Source, context.Context) (delivered func() bool){
		"entries": func(s *Source, ctx context.Context) func() bool {
			go s.watchKind(ctx, api.ServiceIntentions, &kindState{index: 1})
			return func() bool {
				select {
				case u := <-s.updates:
					return len(u.Entries) == 1
				case <-time.After(time.Minute):
					return false
				}
			}
		},
		"instances": func(s *Source, ctx context.Context) func() bool {
			w := &serviceWatch{name: "api"}
			go s.watchService(ctx, w, 1)
			return func() bool {
				select {
				case r := <-s.reports:
					return r.watch == w
				case <-time.After(time.Minute):
					return false
				}
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, err := New(Config{})
				if err != nil {
					t.Fatal(err)
				}
				s.secure = true
				const late = time.Second
				first := true
				if s.client, err = api.NewClient(&api.Config{HttpClient: &http.Client{Transport: agentFunc(func(r *http.Request) (*http.Response, error) {
					if !first {
						<-r.Context().Done()
						return nil, r.Context().Err()
					}
					first = false
					end, _ := r.Context().Deadline()
					time.Sleep(time.Until(end) - late)
					body := "[]"
					if strings.HasPrefix(r.URL.Path, "/v1/config/") {
						body = aDeny
					}
					return answer(r, http.StatusOK, body), nil
				})}}); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				delivered := run(s, ctx)
				// Nobody takes it until long after.
				time.Sleep(s.wait + s.wait/16 + time.Minute)
				if !delivered() {
					t.Error("it is lost")
				}
				cancel()
				synctest.Wait()
			})
		})
	}
}

// TestTheProbeReconnects: the first answer after a loss says so whichever watch
// has it, or the store believes all that a restarted Consul calls critical.
func TestTheProbeReconnects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := New(Config{})
		if err != nil {
			t.Fatal(err)
		}
		watchPolicyOf(t, s, &policyAgent{check: func() bool { return false }})
		s.problem("services", io.ErrUnexpectedEOF)
		select {
		case u := <-s.updates:
			if !u.Reconnected {
				t.Errorf("%+v, want Reconnected", u)
			}
		case <-time.After(2 * pollEvery):
			t.Error("nothing was sent")
		}
	})
}

// TestAnOldProbeChangesNothing: what a probe saw of a wildcard that is deleted
// while it is under way is not the default.
func TestAnOldProbeChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := New(Config{})
		if err != nil {
			t.Fatal(err)
		}
		first := true
		watchPolicyOf(t, s, &policyAgent{check: func() bool {
			if !first {
				return false
			}
			first = false
			s.defaultAfterWildcard(t.Context()) // sees the deny
			return true
		}})
		select {
		case u := <-s.updates:
			t.Errorf("sent %v", *u.DefaultAllow)
		case <-time.After(pollEvery + time.Second):
		}
	})
}

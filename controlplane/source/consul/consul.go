// Package consul is a source that watches a Consul agent with blocking queries.
//
// There are few watches and all proxies share them: one for the list of
// services, one for what is registered under each name, one for each kind of
// config entry. Over HTTPS they share a few HTTP/2 connections; over plain HTTP each
// holds one, and the agent refuses the 201st, so there what is over a limit is
// polled.
//
// "200 OK, nothing" is often a lie: an ACL that filters answers so, and so does a
// cache. A filtered answer is an error here, never a fact.
package consul

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/source"
)

// Config says which agent to watch. Address, token and TLS come from Consul's
// own CONSUL_* variables unless API is set.
type Config struct {
	API *api.Config
	// Wait bounds one blocking query; 5 minutes when zero.
	Wait   time.Duration
	Logger *slog.Logger
}

const (
	defaultWait = 5 * time.Minute
	// plainHTTPWatches leaves room below the agent's limit of 200 connections.
	plainHTTPWatches = 150
	// pollEvery is how often a service without a watch is read.
	pollEvery = 10 * time.Second
	// maxConnsPerHost bounds the connections that HTTP/2 multiplexes over.
	maxConnsPerHost = 24
)

// Source watches one Consul agent. It implements source.Source and
// source.Confirmer.
type Source struct {
	client *api.Client
	where  string
	secure bool
	token  bool
	wait   time.Duration
	log    *slog.Logger

	updates chan source.Update
	reports chan report

	mu     sync.Mutex
	status source.Status
	lost   bool // the agent did not answer; the next answer says Reconnected
	dc     string
	allow  bool   // the default that was found last
	asked  uint64 // how often that was by defaultAfterWildcard
	// watching counts the services that hold a blocking query.
	watching int
	services map[string]*serviceWatch
	// unusable are the instances in the status, by service.
	unusable map[string]map[string]string
	// odd are the names that are left out of every list.
	odd map[string]struct{}
	// mended is closed when the agent answers again after a loss.
	mended chan struct{}
}

var (
	_ source.Source    = (*Source)(nil)
	_ source.Confirmer = (*Source)(nil)
)

// New makes a source. It makes no connection.
func New(cfg Config) (*Source, error) {
	conf := cfg.API
	if conf == nil {
		conf = api.DefaultConfig()
	}
	s := &Source{
		wait: cfg.Wait, log: cfg.Logger,
		updates: make(chan source.Update), reports: make(chan report),
		services: map[string]*serviceWatch{}, unusable: map[string]map[string]string{}, odd: map[string]struct{}{}, mended: make(chan struct{}),
		where: conf.Address, token: conf.Token != "" || conf.TokenFile != "",
	}
	if s.wait <= 0 {
		s.wait = defaultWait
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.secure = overTLS(conf)
	s.status = source.Status{Kind: "consul", Where: s.where, Errors: map[string]string{}}
	var err error
	if s.client, err = newClient(conf, s.tokenFile); err != nil {
		return nil, err
	}
	return s, nil
}

// Status implements source.Source.
func (s *Source) Status() source.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.status
	st.Errors = make(map[string]string, len(s.status.Errors))
	for k, v := range s.status.Errors {
		st.Errors[k] = v
	}
	return st
}

// Run implements source.Source. A token that lacks a rule ends it at once: what
// the control plane would not see could be the entry that denies.
func (s *Source) Run(ctx context.Context, sink source.Sink) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()

	full, marks, err := s.firstSync(ctx)
	if err != nil {
		return err
	}
	if err := sink.Update(ctx, *full); err != nil {
		return err
	}
	s.mu.Lock()
	s.status.Synced = true
	s.allow = *full.DefaultAllow
	s.mu.Unlock()

	for _, kind := range catalog.Kinds {
		wg.Go(func() { s.watchKind(ctx, kind, marks.kinds[kind]) })
	}
	wg.Go(func() { s.watchPolicy(ctx) })
	wg.Go(func() { s.watchServices(ctx, &wg, marks) })
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case u := <-s.updates:
			s.latestPolicy(&u)
			if err := sink.Update(ctx, u); err != nil {
				return err
			}
		case r := <-s.reports:
			u, news := s.take(marks.directory, r)
			if !news {
				continue
			}
			if err := sink.Update(ctx, u); err != nil {
				return err
			}
		}
	}
}

// send queues an update for the one goroutine that talks to the sink.
func (s *Source) send(ctx context.Context, u source.Update) {
	select {
	case s.updates <- u:
	case <-ctx.Done():
	}
}

// firstSync reads everything once, retrying what waiting can mend.
func (s *Source) firstSync(ctx context.Context) (*source.Update, *marks, error) {
	retry := newBackoff()
	for {
		u, m, err := s.readAll(ctx)
		if err == nil {
			return u, m, nil
		}
		var refused *RefusedError
		if errors.As(err, &refused) || ctx.Err() != nil {
			return nil, nil, err
		}
		s.problem("consul", err)
		s.log.Warn("consul is not ready", "err", err)
		if !retry.wait(ctx, nil) {
			return nil, nil, ctx.Err()
		}
	}
}

// RefusedError says that the token may not read what is needed, and which rule
// it lacks.
type RefusedError struct{ Missing, Where string }

func (e *RefusedError) Error() string {
	return fmt.Sprintf("consul: the token may not read %s; its policy needs: %s", e.Where, e.Missing)
}

// The rules of a policy that lets the control plane see everything it must.
const (
	serviceRule = `service_prefix "" { policy = "read" intentions = "read" }`
	nodeRule    = `node_prefix "" { policy = "read" }`
	catalogRule = serviceRule + " and " + nodeRule
)

// check turns a filtered answer, or one that a missing token empties, into an
// error.
func (s *Source) check(what, rule string, meta *api.QueryMeta) error {
	if meta == nil {
		return nil
	}
	if meta.ResultsFilteredByACLs {
		return &RefusedError{Missing: rule, Where: what}
	}
	// Without a token Consul does not even say that it filtered.
	if !s.token && meta.DefaultACLPolicy == "deny" {
		return &RefusedError{Missing: rule, Where: what + " without a token (set CONSUL_HTTP_TOKEN or CONSUL_HTTP_TOKEN_FILE)"}
	}
	return nil
}

// asRefusal names the rule when Consul refuses outright.
func asRefusal(what, rule string, err error) error {
	var st api.StatusError
	if errors.As(err, &st) && st.Code == http.StatusForbidden {
		return &RefusedError{Missing: rule, Where: what}
	}
	return fmt.Errorf("consul: %s: %w", what, err)
}

// problem records why something is stale; answered takes it back.
func (s *Source) problem(what string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Errors[what] = err.Error()
	var refused *RefusedError
	if !errors.As(err, &refused) && !refusesName(err) {
		s.lost = true
	}
}

// tokenFile notes that the token file cannot be read, or can be again. The
// agent is not lost by that: the token that was read last still serves.
func (s *Source) tokenFile(err error) {
	if err != nil {
		s.log.Warn("the token file cannot be read; the last token stands", "err", err)
	} else {
		s.log.Info("the token file can be read again")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.status.Errors, source.ConcernTokenFile)
	if err != nil {
		s.status.Errors[source.ConcernTokenFile] = err.Error() + "; the last token stands: write the file again, readable for this user"
	}
}

// answered notes a good answer and tells whether it is the first after a loss.
func (s *Source) answered(what string, index uint64) (reconnected bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.status.Errors, what)
	delete(s.status.Errors, "consul")
	s.status.LastSuccess = time.Now()
	s.status.Index = max(s.status.Index, index)
	reconnected, s.lost = s.lost, false
	if reconnected {
		close(s.mended)
		s.mended = make(chan struct{})
	}
	return reconnected
}

// wentBack notes that the server is not the one it was: its index is lower.
func (s *Source) wentBack() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost = true
}

// recovery is closed when the agent answers again.
func (s *Source) recovery() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mended
}

// watchPolicy asks now and then what happens where no intention matches: no
// config entry says it, and nothing wakes a query for it.
func (s *Source) watchPolicy(ctx context.Context) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		before := s.policyAge()
		allow, err := s.defaultAllow(ctx)
		if err != nil {
			if ctx.Err() == nil {
				s.problem("default policy", err)
			}
			continue
		}
		u := source.Update{Reconnected: s.answered("default policy", 0), Received: time.Now()}
		if s.setPolicy(allow, before) {
			u.DefaultAllow = &allow
		}
		if u.Reconnected || u.DefaultAllow != nil {
			s.send(ctx, u)
		}
	}
}

// policyAge counts what defaultAfterWildcard has found.
func (s *Source) policyAge() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// setPolicy notes what watchPolicy found, and tells whether it is another
// default. A probe that defaultAfterWildcard overtook, as its age tells, may
// have seen a wildcard intention that is gone, and says nothing.
func (s *Source) setPolicy(allow bool, age uint64) (changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked != age {
		return false
	}
	changed, s.allow = s.allow != allow, allow
	return changed
}

// latestPolicy makes an update say the default that was found last: two watches
// find it, and their updates may overtake each other.
func (s *Source) latestPolicy(u *source.Update) {
	if u.DefaultAllow == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	allow := s.allow
	u.DefaultAllow = &allow
}

// policyTime bounds the questions for the default. They do not block, and an agent that takes
// them and never answers must not keep the next one from being asked.
const policyTime = 30 * time.Second

// defaultAllow asks about two services that nobody has named. Where a wildcard intention
// answers for them, Consul does not tell its default, and it is taken to be deny. It still
// decides: about a request that none of a source's Permissions is for, and about a peer that is
// no service; neither is meant by a wildcard that allows.
func (s *Source) defaultAllow(ctx context.Context) (bool, error) {
	const nobody, what = "hauberk-probe-c3b1f0a2", "the default intention policy"
	ctx, cancel := context.WithTimeout(ctx, policyTime)
	defer cancel()
	opts := (&api.QueryOptions{RequireConsistent: true}).WithContext(ctx)
	// First, so that a wildcard that goes meanwhile is not taken for the default.
	match, _, err := s.client.Connect().IntentionMatch(&api.IntentionMatch{By: api.IntentionMatchDestination, Names: []string{nobody}}, opts)
	if err != nil {
		return false, asRefusal(what, serviceRule, err)
	}
	allowed, _, err := s.client.Connect().IntentionCheck(&api.IntentionCheck{Source: nobody, Destination: nobody}, opts)
	if err != nil {
		return false, asRefusal(what, serviceRule, err)
	}
	answers := func(i *api.Intention) bool { return i.SourceName == catalog.Wildcard }
	return allowed && !slices.ContainsFunc(match[nobody], answers), nil
}

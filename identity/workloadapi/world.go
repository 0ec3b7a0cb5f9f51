package workloadapi

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/hauberk-mesh/hauberk/identity/agent"
	"github.com/hauberk-mesh/hauberk/identity/selector"
	"github.com/hauberk-mesh/hauberk/identity/svid"
)

// world is everything that an answer depends on besides the caller. Immutable.
type world struct {
	record   *agent.Record // nil before the join
	snapshot *svid.Snapshot
	grants   []grant
	// why there is nothing to give to anybody; empty when there is.
	why string
	// needsUnit: some grant looks at the caller's unit.
	needsUnit bool
	// changed is closed by the successor.
	changed chan struct{}
}

// grant is one identity and the processes it is for.
type grant struct {
	id spiffeid.ID
	to []alternative // any
}

// alternative is one way to be entitled.
type alternative struct {
	set       selector.Set
	hint      string
	isDefault bool
}

// granted is an identity as one caller has it.
type granted struct {
	id        spiffeid.ID
	hint      string
	isDefault bool
}

// granted are the identities of a process: the one marked as default first, then
// in the order of the file and of the node's record.
func (w *world) granted(f selector.Facts) []granted {
	var out []granted
	for _, g := range w.grants {
		i := slices.IndexFunc(g.to, func(a alternative) bool { return a.set.Matches(f) })
		if i < 0 {
			continue
		}
		out = append(out, granted{g.id, g.to[i].hint, g.to[i].isDefault})
	}
	slices.SortStableFunc(out, func(a, b granted) int {
		switch {
		case a.isDefault == b.isDefault:
			return 0
		case a.isDefault:
			return -1
		}
		return 1
	})
	return out
}

// grants joins the node's record with the host's own file. The record decides
// which identities there are, and where it has selectors they must hold: the
// file can narrow them, not widen them. Where it has none, the file says who.
// What cannot be granted is returned as problems, for the log.
func grants(r *agent.Record, entries []Entry) (out []grant, problems []string) {
	if r == nil || r.Banned {
		return nil, nil
	}
	index := map[spiffeid.ID]int{}
	for _, e := range entries {
		named, problem := permitted(r, e)
		if problem != "" {
			problems = append(problems, problem)
			continue
		}
		of, err := selector.ParseSet(named.Selectors)
		if err != nil {
			problems = append(problems, fmt.Sprintf("%s is served to nobody: %s", named.ID, err))
			continue
		}
		i, ok := index[named.ID]
		if !ok {
			i = len(out)
			index[named.ID] = i
			out = append(out, grant{id: named.ID})
		}
		out[i].to = append(out[i].to, alternative{slices.Concat(e.Selectors, of), e.Hint, e.Default})
	}
	for _, w := range r.Workloads {
		if _, ok := index[w.ID]; ok || len(w.Selectors) == 0 {
			continue
		}
		of, err := selector.ParseSet(w.Selectors)
		if err != nil {
			problems = append(problems, fmt.Sprintf("%s is served to nobody: %s", w.ID, err))
			continue
		}
		if !slices.ContainsFunc(entries, func(e Entry) bool { return e.Names(w.ID) }) {
			out = append(out, grant{id: w.ID, to: []alternative{{set: of}}})
		}
	}
	return out, problems
}

// permitted finds the one identity of the node that an entry names.
func permitted(r *agent.Record, e Entry) (agent.Workload, string) {
	var found []agent.Workload
	for _, w := range r.Workloads {
		if e.Names(w.ID) {
			found = append(found, w)
		}
	}
	switch len(found) {
	case 0:
		return agent.Workload{}, fmt.Sprintf("%s is served to nobody: this node is not permitted to be it (hauberk token create --service fixes what a node may be)", e)
	case 1:
		return found[0], ""
	}
	return agent.Workload{}, fmt.Sprintf("%s is served to nobody: this node may be %s and %s: name one by spiffe_id", e, found[0].ID, found[1].ID)
}

// look makes the world of what is there now.
func (s *Server) look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := &world{changed: make(chan struct{})}
	record := s.cfg.Source.Record()
	next.record, next.snapshot = record, s.cfg.Source.Snapshot()
	var problems []string
	next.grants, problems = grants(record, s.file.entries)
	switch {
	case record == nil:
		next.why = "the agent has not joined the mesh yet"
	case record.Banned:
		next.why = "this node is banned: " + record.BanReason
	}
	var ids []spiffeid.ID
	for _, g := range next.grants {
		ids = append(ids, g.id)
		for _, a := range g.to {
			next.needsUnit = next.needsUnit || a.set.Needs(selector.Unit)
		}
	}
	if s.cfg.Want != nil && len(ids) > 0 {
		s.cfg.Want(ids...)
	}
	for _, p := range problems {
		if !slices.Contains(s.problems, p) {
			s.log.Warn(p)
		}
	}
	s.problems = problems
	if old := s.world.Swap(next); old != nil {
		close(old.changed)
	}
	s.setHealth(next)
}

func (s *Server) setHealth(w *world) {
	state := healthv1.HealthCheckResponse_NOT_SERVING
	if w.why == "" && len(w.snapshot.Bundles) > 0 {
		state = healthv1.HealthCheckResponse_SERVING
	}
	s.health.SetServingStatus("", state)
}

// follow keeps the world current until ctx ends.
func (s *Server) follow(ctx context.Context) {
	tick := time.NewTicker(s.interval)
	defer tick.Stop()
	for {
		changed := s.cfg.Source.Changed()
		s.look()
		if !s.await(ctx, changed, tick.C) {
			return
		}
	}
}

// await returns true at a change of what is served, false when ctx ends.
func (s *Server) await(ctx context.Context, changed <-chan struct{}, tick <-chan time.Time) bool {
	for {
		select {
		case <-changed:
			return true
		case <-ctx.Done():
			return false
		case <-tick:
			reloaded, err := s.file.reload()
			switch {
			case err != nil && err.Error() != s.fileErr:
				s.fileErr = err.Error()
				s.log.Error("the file of workloads cannot be used; the entries read before stay in force", "err", err)
			case reloaded:
				s.fileErr = ""
				s.log.Info("workloads read", "file", s.file.path, "entries", len(s.file.entries))
				return true
			}
		}
	}
}

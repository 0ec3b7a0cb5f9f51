package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/hauberk-mesh/hauberk/sidecar/discovery"
	"github.com/hauberk-mesh/hauberk/xds/client"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// streamer is who asks services of one type for what resources name.
type streamer interface {
	subscriber
	// Usable says why nothing can come from a service. One that is usable may be asked for
	// names of it from then on.
	Usable(*discovery.Stream) error
}

// streams are the services of endpoints and of routes that resources come from. Each has one
// stream, for as long as anybody asks it for a name, which asks it for all of them. Safe for
// concurrent use.
type streams struct {
	// Set once.
	usable func(*discovery.Stream) error
	open   func(from *discovery.Stream, url string, h client.Handler) (*client.Client, error)
	// closed is told that a stream has ended, and nothing is kept of it; nil tells nobody.
	closed func(streamKey)
	apply  func(u client.Update, live func(name string) bool) map[string]error
	log    *slog.Logger

	wg sync.WaitGroup

	mu       sync.Mutex
	ctx      context.Context // nil unless they run
	routes   bool            // routes may be asked for
	services map[string]*discovery.Stream
	byKey    map[streamKey]*ownStream
	// ending are closed when the last stream of a key has ended, and what was kept of it is gone.
	ending map[streamKey]<-chan struct{}
}

type streamKey struct{ url, service string }

// ownStream is the stream of one service. streams.mu guards it.
type ownStream struct {
	all     *streams
	key     streamKey
	client  *client.Client
	names   map[string]bool
	cancel  context.CancelFunc
	started bool
	done    chan struct{}
}

func newStreams(s *streams) *streams {
	s.services, s.byKey, s.ending = map[string]*discovery.Stream{}, map[streamKey]*ownStream{}, map[streamKey]<-chan struct{}{}
	return s
}

// Usable implements streamer.
func (s *streams) Usable(from *discovery.Stream) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := from.Key()
	if s.services[key] != nil {
		return nil
	}
	if err := s.usable(from); err != nil {
		return err
	}
	s.services[key] = from
	return nil
}

// Subscribe asks for names of resource.InStream, whose services are usable.
func (s *streams) Subscribe(url string, names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, asked := range names {
		service, name, _ := resource.SplitStream(asked)
		o, err := s.of(streamKey{url, service})
		if err != nil {
			s.log.Error("discovery stream", "service", service, "err", err)
			continue
		}
		o.names[name] = true
		o.client.Subscribe(url, name)
		s.start(o)
	}
}

func (s *streams) of(key streamKey) (*ownStream, error) {
	if o := s.byKey[key]; o != nil {
		return o, nil
	}
	from := s.services[key.service]
	if from == nil {
		return nil, errors.New("it was not found usable")
	}
	o := &ownStream{all: s, key: key, names: map[string]bool{}, done: make(chan struct{})}
	var err error
	if o.client, err = s.open(from, key.url, o); err != nil {
		return nil, err
	}
	s.byKey[key] = o
	return o, nil
}

// Unsubscribe ends that. A stream that nothing is asked on any more ends.
func (s *streams) Unsubscribe(url string, names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, asked := range names {
		service, name, _ := resource.SplitStream(asked)
		o := s.byKey[streamKey{url, service}]
		if o == nil {
			continue
		}
		delete(o.names, name)
		o.client.Unsubscribe(url, name)
		if len(o.names) == 0 {
			s.end(o)
		}
	}
}

func (s *streams) end(o *ownStream) {
	delete(s.byKey, o.key)
	if o.cancel != nil {
		o.cancel()
		s.ending[o.key] = o.done
	}
	for key := range s.byKey {
		if key.service == o.key.service {
			return
		}
	}
	delete(s.services, o.key.service)
}

// start begins a stream where it may begin.
func (s *streams) start(o *ownStream) {
	if s.ctx == nil || o.started || o.key.url == resource.RouteType && !s.routes {
		return
	}
	o.started = true
	var ctx context.Context
	ctx, o.cancel = context.WithCancel(s.ctx)
	all, before := s.ctx, s.ending[o.key]
	s.wg.Go(func() {
		defer s.ended(o, all)
		if before != nil {
			<-before // it may still write what the new one would read
		}
		if err := o.client.Run(ctx); err != nil {
			s.log.Error("discovery stream", "service", o.key.service, "err", err)
		}
		if all.Err() != nil {
			return
		}
		// Nobody asks for anything of it: what was kept would come back after it is removed.
		if err := o.client.Forget(); err != nil {
			s.log.Error("discovery stream", "service", o.key.service, "err", err)
		}
	})
}

// ended notes that a stream has; at the end of all of them what they kept stays theirs.
func (s *streams) ended(o *ownStream, all context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(o.done)
	if s.ending[o.key] == o.done {
		delete(s.ending, o.key)
	}
	if s.byKey[o.key] == nil && s.closed != nil && all.Err() == nil {
		s.closed(o.key)
	}
}

// Run keeps the streams until ctx ends. Routes are asked for after the clusters that they
// lead to, as in Envoy: those that are to be validated would be refused.
func (s *streams) Run(ctx context.Context, clusters <-chan struct{}) {
	begin := func(change func()) {
		s.mu.Lock()
		defer s.mu.Unlock()
		change()
		for _, o := range s.byKey {
			s.start(o)
		}
	}
	begin(func() { s.ctx = ctx })
	select {
	case <-clusters:
		begin(func() { s.routes = true })
		<-ctx.Done()
	case <-ctx.Done():
	}
	s.mu.Lock()
	s.ctx = nil
	s.mu.Unlock()
	s.wg.Wait()
}

// live tells whether somebody still asks for a name on this very stream: while what came on
// it waits for its turn, another may have had its cluster or listener removed.
func (o *ownStream) live(asked string) bool {
	o.all.mu.Lock()
	defer o.all.mu.Unlock()
	_, name, _ := resource.SplitStream(asked)
	return o.all.byKey[o.key] == o && o.names[name]
}

// Apply implements client.Handler: what a service has is known by its name and the service.
func (o *ownStream) Apply(u client.Update) map[string]error {
	marked := func(names []string) (out []string) {
		for _, n := range names {
			out = append(out, resource.InStream(o.key.service, n))
		}
		return out
	}
	u.Removed, u.Refused = marked(u.Removed), marked(u.Refused)
	u.Upserts = slices.Clone(u.Upserts)
	for i, r := range u.Upserts {
		named := *r
		named.Name = resource.InStream(o.key.service, r.Name)
		u.Upserts[i] = &named
	}
	errs := map[string]error{}
	for asked, err := range o.all.apply(u, o.live) {
		_, name, _ := resource.SplitStream(asked)
		errs[name] = err
	}
	return errs
}

// streamStatus is a stream of one type as operators see it.
type streamStatus struct {
	Type    string        `json:"type"`
	Service string        `json:"service"`
	Status  client.Status `json:"status"`
}

// Status lists the streams.
func (s *streams) Status() []streamStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []streamStatus
	for _, key := range slices.SortedFunc(maps.Keys(s.byKey), func(a, b streamKey) int {
		return strings.Compare(a.url+" "+a.service, b.url+" "+b.service)
	}) {
		out = append(out, streamStatus{shortType(key.url), key.service, s.byKey[key].client.Status()})
	}
	return out
}

// comes says why what is asked for by a name cannot come from where it is said to.
func (s *state) comes(asked string, from discovery.Source) error {
	switch {
	case from.Stream != nil:
		return s.sub.streams.Usable(from.Stream)
	case s.unaggregated && resource.Aggregated(asked):
		return fmt.Errorf("%q is to come by ads, but there is no dynamic_resources.ads_config", asked)
	}
	return nil
}

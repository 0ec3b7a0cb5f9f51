// Package filtertest runs filters in tests, without a connection manager.
package filtertest

import (
	"sync"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/filter"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// Exchange is one exchange with a filter.
type Exchange struct {
	filter.Context
	Waited time.Duration
	// Left: the client leaves while a filter waits.
	Left bool
	// Body is what the request's body would be read as.
	Body int
	// AnswerLength and Trailers are what a host's answer would be read as.
	AnswerLength int
	Trailers     *message.Fields
	// Slowed is what SlowAnswer was given.
	Slowed uint32
	// Drains is what Draining says.
	Drains bool
	// Checks is how often NoteHealthCheck was called.
	Checks int
	// TrailerChanges are what ChangeRequestTrailers was given.
	TrailerChanges []route.Mutations
	// Conn is the client's connection; exchanges may share one.
	Conn  *sync.Map
	state filter.State
	mem   []byte
}

// New makes an exchange of a request: method, path, and names and values of fields.
func New(method, path string, headers ...string) *Exchange {
	x := &Exchange{Conn: &sync.Map{}}
	req := &message.Request{Method: method, Scheme: "http", Authority: "h", Path: path}
	for i := 0; i < len(headers); i += 2 {
		req.Fields.Add(headers[i], headers[i+1])
	}
	x.Context = filter.Context{
		Exchange: x, Request: req, State: &x.state, Scratch: &x.mem,
		Selected: &route.Selected{Cluster: "c", Route: &route.Route{Forward: &route.Forward{Cluster: "c"}}},
	}
	return x
}

// With gives the exchange configurations of routes, the most specific first.
func (x *Exchange) With(f filter.Overrider, configs ...any) error {
	for _, c := range configs {
		o, err := f.Override(c)
		if err != nil {
			return err
		}
		x.Overrides = append(x.Overrides, o)
	}
	return nil
}

// Answered has a response pass the filter and returns it.
func (x *Exchange) Answered(f filter.Filter, status int) *message.Response {
	x.Response = &message.Response{Status: status}
	f.Response(&x.Context)
	return x.Response
}

// Replied makes the filter's answer, has it pass the filter and returns it.
func (x *Exchange) Replied(f filter.Filter, r *filter.Reply) *message.Response {
	x.Response = &message.Response{Status: r.Status}
	if r.Headers != nil {
		r.Headers(&x.Context)
	}
	f.Response(&x.Context)
	return x.Response
}

// Record implements filter.Exchange.
func (x *Exchange) Record() *telemetry.Record {
	r := telemetry.NewRecord()
	r.RequestHeaders = x.Request
	return r
}

// Wait implements filter.Exchange.
func (x *Exchange) Wait(d time.Duration) bool {
	x.Waited += d
	return !x.Left
}

// ReadBody implements filter.Exchange.
func (x *Exchange) ReadBody(limit int) (bool, filter.Verdict) {
	return x.Body <= limit, filter.Continue
}

// HoldAnswer implements filter.Exchange.
func (x *Exchange) HoldAnswer(limit int) (int, *message.Fields, bool) {
	if x.AnswerLength > limit {
		return 0, nil, false
	}
	return x.AnswerLength, x.Trailers, true
}

// SlowAnswer implements filter.Exchange.
func (x *Exchange) SlowAnswer(kib uint32) { x.Slowed = kib }

// ChangeRequestTrailers implements filter.Exchange.
func (x *Exchange) ChangeRequestTrailers(steps route.Mutations) {
	x.TrailerChanges = append(x.TrailerChanges, steps)
}

// NoteHealthCheck implements filter.Exchange.
func (x *Exchange) NoteHealthCheck() { x.Checks++ }

// Draining implements filter.Exchange.
func (x *Exchange) Draining() bool { return x.Drains }

// Connection implements filter.Exchange.
func (x *Exchange) Connection(key any, make func() any) any {
	v, _ := x.Conn.LoadOrStore(key, make())
	return v
}

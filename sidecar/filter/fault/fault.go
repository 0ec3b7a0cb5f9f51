// Package fault injects delays and aborts, and slows answers (envoy.filters.http.fault).
package fault

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/filter"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// Config is envoy.extensions.filters.http.fault.v3.HTTPFault.
type Config struct {
	Delay *Delay
	Abort *Abort
	Rate  *Rate
	// Cluster, when set, restricts faults to requests bound for it.
	Cluster string
	// Headers that a request must have, all of them.
	Headers []route.HeaderMatch
	// MaxActive bounds the exchanges with a fault at once, nil for no bound.
	MaxActive *uint32
}

// Delay holds requests back. With FromHeader the request says for how long.
type Delay struct {
	Fixed      time.Duration // with FromHeader, if it is set: the header only asks
	FromHeader bool
	Share      route.Share
	Unit       route.Share // what 1 in a header of the share means; a percent when 0
	Settled    bool        // no header of the share counts
}

// Abort answers requests. Exactly one of Status, GRPC and FromHeader is set.
type Abort struct {
	Status     int
	GRPC       *uint32
	FromHeader bool
	Share      route.Share
	Unit       route.Share // what 1 in a header of the share means; a percent when 0
	Settled    bool        // no header of the share counts
	Body       string      // "fault filter abort" when empty
}

// Rate slows the answers of hosts. With FromHeader the request says how much.
type Rate struct {
	KiB        uint32 // a second
	FromHeader bool
	Share      route.Share
	Unit       route.Share // what 1 in a header of the share means; a percent when 0
	Settled    bool        // no header of the share counts
}

// The headers by which a request chooses its fault. A share of its own, in the unit of
// the configured one, can only lower that.
const (
	delayHeader      = "x-envoy-fault-delay-request"
	delayShareHeader = "x-envoy-fault-delay-request-percentage"
	abortHeader      = "x-envoy-fault-abort-request"
	abortGRPCHeader  = "x-envoy-fault-abort-grpc-request"
	abortShareHeader = "x-envoy-fault-abort-request-percentage"
	rateHeader       = "x-envoy-fault-throughput-response"
	rateShareHeader  = "x-envoy-fault-throughput-response-percentage"
)

// Filter is the filter of one chain.
type Filter struct {
	config                          *settings
	active                          *atomic.Int64 // exchanges with a fault
	delays, aborts, rates, overflow *telemetry.Counter
}

// settings are a Config with its reply.
type settings struct {
	*Config
	reply *filter.Reply // of a fixed abort
}

// New makes a filter. count may be nil.
func New(c *Config, count filter.Counter) (*Filter, error) {
	s, err := compile(c)
	if err != nil {
		return nil, err
	}
	return &Filter{config: s, active: new(atomic.Int64), delays: count.Of("delay"), aborts: count.Of("abort"), rates: count.Of("rate"), overflow: count.Of("overflow")}, nil
}

func compile(c *Config) (*settings, error) {
	s := &settings{Config: c}
	if a := c.Abort; a != nil {
		set := 0
		for _, b := range []bool{a.Status != 0, a.GRPC != nil, a.FromHeader} {
			if b {
				set++
			}
		}
		if set != 1 {
			return nil, errors.New("fault: an abort needs exactly one of a status, a gRPC status and the header")
		}
		if a.GRPC != nil {
			s.reply = s.abort(200, int(*a.GRPC))
		} else {
			s.reply = s.abort(a.Status, filter.NoGRPC)
		}
	}
	return s, nil
}

// Inherit implements filter.Heir: exchanges that an update finds with a fault count for its bound, too.
func (f *Filter) Inherit(before any) {
	if b, ok := before.(*Filter); ok {
		f.active = b.active
	}
}

// Override implements filter.Overrider: a route's faults replace the filter's.
func (f *Filter) Override(config any) (any, error) {
	c, ok := config.(*Config)
	if !ok {
		return nil, fmt.Errorf("fault: the route's configuration is a %T", config)
	}
	return compile(c)
}

// Request implements filter.Filter. The rate of the answer is settled first, and a delay comes
// before an abort; each is drawn for itself.
func (f *Filter) Request(c *filter.Context) filter.Verdict {
	s := f.config
	if o, ok := c.Override().(*settings); ok {
		s = o
	}
	if s.Delay == nil && s.Abort == nil && s.Rate == nil || !s.matches(c) {
		return filter.Continue
	}
	if kib := s.rate(c.Request); kib > 0 && f.begin(c, s) {
		f.rates.Inc(c.Shard)
		c.State.Value |= int64(kib) << 1
	}
	if d := s.delay(c.Request); d > 0 && f.begin(c, s) {
		f.delays.Inc(c.Shard)
		c.Flags |= telemetry.FlagDelayInjected
		if !c.Wait(d) {
			return filter.Gone
		}
	}
	if r := s.aborts(c.Request); r != nil && f.begin(c, s) {
		f.aborts.Inc(c.Shard)
		return filter.Answer(r)
	}
	return filter.Continue
}

// begin counts the exchange as one with a fault, once, until it ends: its State is 1, and twice the
// rate of its answer. It is false where there are as many as there may be.
func (f *Filter) begin(c *filter.Context, s *settings) bool {
	if c.State.Value != 0 {
		return true
	}
	if n := f.active.Add(1); s.MaxActive != nil && n > int64(*s.MaxActive) {
		f.active.Add(-1)
		f.overflow.Inc(c.Shard)
		return false
	}
	c.State.Value = 1
	return true
}

// End implements filter.Ender.
func (f *Filter) End(c *filter.Context) {
	if c.State.Value != 0 {
		f.active.Add(-1)
	}
}

// Response implements filter.Filter.
func (f *Filter) Response(c *filter.Context) {
	if kib := c.State.Value >> 1; kib > 0 {
		c.SlowAnswer(uint32(kib))
	}
}

func (s *settings) matches(c *filter.Context) bool {
	if s.Cluster != "" && c.Selected.Cluster != s.Cluster {
		return false
	}
	for i := range s.Headers {
		if !s.Headers[i].Match(c.Request) {
			return false
		}
	}
	return true
}

func (s *settings) delay(req *message.Request) time.Duration {
	d := s.Delay
	if d == nil || !share(req, d.Share, d.Unit, d.FromHeader && !d.Settled, delayShareHeader).Holds(rand.Uint32()) {
		return 0
	}
	if !d.FromHeader {
		return d.Fixed
	}
	ms, ok := number(req, delayHeader)
	switch {
	case !ok:
		return 0
	case d.Fixed > 0:
		return d.Fixed
	}
	const longest = uint64(time.Hour / time.Millisecond)
	return time.Duration(min(ms, longest)) * time.Millisecond
}

// rate is how many KiB of the answer may pass in a second, 0 for any.
func (s *settings) rate(req *message.Request) uint32 {
	r := s.Rate
	if r == nil || !share(req, r.Share, r.Unit, r.FromHeader && !r.Settled, rateShareHeader).Holds(rand.Uint32()) {
		return 0
	}
	if !r.FromHeader {
		return r.KiB
	}
	n, _ := number(req, rateHeader)
	return uint32(min(n, math.MaxUint32))
}

func (s *settings) aborts(req *message.Request) *filter.Reply {
	a := s.Abort
	if a == nil || !share(req, a.Share, a.Unit, a.FromHeader && !a.Settled, abortShareHeader).Holds(rand.Uint32()) {
		return nil
	}
	if !a.FromHeader {
		return s.reply
	}
	if status, ok := number(req, abortHeader); ok && status >= 200 && status < 600 {
		return s.abort(int(status), filter.NoGRPC)
	}
	if status, ok := number(req, abortGRPCHeader); ok {
		return s.abort(200, int(status))
	}
	return nil
}

func (s *settings) abort(status, grpc int) *filter.Reply {
	r := &filter.Reply{
		Status: status, GRPC: grpc, Body: s.Abort.Body, Details: "fault_filter_abort", Flags: telemetry.FlagFaultInjected,
	}
	if r.Body == "" {
		r.Body = "fault filter abort"
	}
	return r
}

func share(req *message.Request, configured, unit route.Share, fromHeader bool, name string) route.Share {
	if !fromHeader {
		return configured
	}
	if unit == 0 {
		unit = route.All / 100
	}
	if n, ok := number(req, name); ok {
		return min(configured, route.Share(min(n, uint64(route.All/unit)))*unit)
	}
	return configured
}

func number(req *message.Request, name string) (uint64, bool) {
	v, ok := req.HeaderValue(name, 0)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(v, "+"), 10, 63)
	return n, err == nil
}

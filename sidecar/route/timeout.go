package route

import (
	"strconv"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// Timeouts are an exchange's, 0 for none.
type Timeouts struct {
	// Total is for the whole upstream response, from the request's end on.
	Total time.Duration
	// PerTry and PerTryIdle are each attempt's.
	PerTry, PerTryIdle time.Duration
	// RewriteGRPC: grpc-timeout is to say what Expected says.
	RewriteGRPC bool
	hedges      bool
}

// Timeouts settles the time a request may take, as Envoy does.
func (s *Selected) Timeouts(req *message.Request) Timeouts {
	fw := s.Route.Forward
	t := Timeouts{hedges: s.Hedge != nil && s.Hedge.OnPerTryTimeout}
	if fw.StreamDuration == nil {
		t.Total = fw.Timeout
		if fw.GRPCLimit != nil && IsGRPC(req) {
			t.Total, t.RewriteGRPC = fw.grpcTimeout(req), true
		}
	}
	if s.Retry != nil {
		t.PerTry, t.PerTryIdle = s.Retry.PerTryTimeout, s.Retry.PerTryIdleTimeout
	}
	t.SetTotal(t.Total)
	return t
}

// SetTotal replaces Total. An attempt that may take as long has no time of its own.
func (t *Timeouts) SetTotal(d time.Duration) {
	t.Total = d
	if d != 0 && t.PerTry >= d {
		t.PerTry = 0
	}
}

// grpcTimeout is the client's, up to the route's maximum.
func (f *Forward) grpcTimeout(req *message.Request) time.Duration {
	d, _ := GRPCTimeout(req)
	// An offset that would leave nothing is not applied: 0 is no limit.
	if f.GRPCLimit.Offset < d {
		d -= f.GRPCLimit.Offset
	}
	if most := f.GRPCLimit.Max; most != 0 && (d == 0 || d > most) {
		d = most
	}
	return d
}

// Expected is how long the upstream has for an answer when elapsed has gone since
// the request's end, for x-envoy-expected-rq-timeout-ms; 0 when there is no limit.
func (t *Timeouts) Expected(elapsed time.Duration) time.Duration {
	d := t.PerTry
	if t.hedges || d == 0 {
		d = t.Total
	}
	if d > 0 && t.Total > 0 {
		// 0 would mean for ever.
		d = min(d, max(t.Total-elapsed, time.Millisecond))
	}
	return d
}

// MaxDuration bounds the whole exchange; fallback is the connection manager's
// limit. 0 is none.
func (f *Forward) MaxDuration(req *message.Request, fallback time.Duration) time.Duration {
	s := f.StreamDuration
	if s == nil {
		return fallback
	}
	if s.GRPCMax != nil {
		if d, ok := GRPCTimeout(req); ok {
			if *s.GRPCMax != 0 {
				d = min(d, *s.GRPCMax)
			}
			if d != 0 && s.GRPCOffset != 0 {
				d = max(d-s.GRPCOffset, 0)
			}
			// The client's time is over: the shortest limit, not none.
			return max(d, 1)
		}
	}
	if s.Max != nil {
		return *s.Max
	}
	return fallback
}

// GRPCTimeout reads grpc-timeout: at most eight digits and a unit.
func GRPCTimeout(req *message.Request) (time.Duration, bool) {
	v, ok := req.Fields.ByID(message.GRPCTimeout)
	if !ok || len(v) < 2 || len(v) > 9 {
		return 0, false
	}
	n, err := strconv.ParseUint(v[:len(v)-1], 10, 32)
	if err != nil {
		return 0, false
	}
	var unit time.Duration
	switch v[len(v)-1] {
	case 'H':
		unit = time.Hour
	case 'M':
		unit = time.Minute
	case 'S':
		unit = time.Second
	case 'm':
		unit = time.Millisecond
	case 'u':
		unit = time.Microsecond
	case 'n':
		unit = time.Nanosecond
	default:
		return 0, false
	}
	if most := uint64(1<<62) / uint64(unit); n > most {
		n = most // so far from the end of time that whoever adds it to now does not come past it
	}
	return time.Duration(n) * unit, true
}

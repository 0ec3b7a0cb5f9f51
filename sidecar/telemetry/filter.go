package telemetry

import (
	"math/rand/v2"
	"slices"
	"strconv"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// Filter decides which records an access log takes, and which answers of our own a
// mapper changes (envoy.config.accesslog.v3.AccessLogFilter). Immutable.
type Filter interface{ Passes(*Record) bool }

// All is an and_filter, Any an or_filter.
type (
	All []Filter
	Any []Filter
)

// Passes implements Filter.
func (f All) Passes(r *Record) bool {
	return !slices.ContainsFunc(f, func(one Filter) bool { return !one.Passes(r) })
}

// Passes implements Filter.
func (f Any) Passes(r *Record) bool {
	return slices.ContainsFunc(f, func(one Filter) bool { return one.Passes(r) })
}

// Comparison is how a number is compared.
type Comparison uint8

// Envoy's ComparisonFilter.Op values.
const (
	Equal Comparison = iota
	GreaterOrEqual
	LessOrEqual
	NotEqual
)

func (c Comparison) holds(have, want int64) bool {
	switch c {
	case Equal:
		return have == want
	case GreaterOrEqual:
		return have >= want
	case LessOrEqual:
		return have <= want
	}
	return have != want
}

// StatusFilter compares the status; 0 when no response began.
type StatusFilter struct {
	Op    Comparison
	Value int64
}

// Passes implements Filter.
func (f StatusFilter) Passes(r *Record) bool { return f.Op.holds(int64(r.Code), f.Value) }

// DurationFilter compares the milliseconds from beginning to end.
type DurationFilter struct {
	Op    Comparison
	Value int64
}

// Passes implements Filter.
func (f DurationFilter) Passes(r *Record) bool {
	return f.Op.holds(r.Duration.Milliseconds(), f.Value)
}

// NotHealthCheckFilter takes what the health check filter did not mark.
type NotHealthCheckFilter struct{}

// Passes implements Filter.
func (NotHealthCheckFilter) Passes(r *Record) bool { return !r.HealthCheck }

// TraceableFilter takes what was forced to be traced, but for health checks. What is
// traced by chance or for its client it does not take, as in Envoy.
type TraceableFilter struct{}

// Passes implements Filter.
func (TraceableFilter) Passes(r *Record) bool { return r.TraceForced && !r.HealthCheck }

// FlagsFilter takes records with one of the flags, or with Any any flag.
type FlagsFilter struct {
	Any   bool
	Flags Flags
}

// Passes implements Filter.
func (f FlagsFilter) Passes(r *Record) bool { return r.Flags&f.Flags != 0 || f.Any && r.Flags != 0 }

// ParseFlag reads a flag's short name. It is 0 and true for a flag of Envoy's that
// never arises here.
func ParseFlag(name string) (Flags, bool) {
	for i := range flagNames {
		if flagNames[i].short == name {
			return 1 << i, true
		}
	}
	return 0, slices.ContainsFunc(absentFlags, func(f FlagDoc) bool { return f.Name == name })
}

// GRPCFilter compares the gRPC status of the response: of its trailers, its head, or
// what its HTTP status means (Statuses is a set of bits). A status that is none of
// gRPC's is in no set.
type GRPCFilter struct {
	Statuses uint32
	Exclude  bool
}

// Passes implements Filter.
func (f GRPCFilter) Passes(r *Record) bool {
	status, ok := r.responseStatus()
	if !ok {
		status = grpcOfHTTP(r.Code)
	}
	return (status >= 0 && status < len(grpcNames) && f.Statuses&(1<<status) != 0) != f.Exclude
}

// grpcOfHTTP is gRPC's mapping for answers without a status
// (doc/http-grpc-status-mapping.md of gRPC), which has none for success: a call that
// went well has a status.
func grpcOfHTTP(code int) int {
	switch code {
	case 400:
		return 13
	case 401:
		return 16
	case 403:
		return 7
	case 404:
		return 12
	case 429, 502, 503, 504:
		return 14
	}
	return 2
}

// SampleFilter takes a part of the records: Numerator of Denominator. Those of one
// request id share one fate in all sidecars, unless Independent.
type SampleFilter struct {
	Numerator, Denominator uint64
	Independent            bool
}

var nameRequestID = message.NameOf("x-request-id")

// Passes implements Filter.
func (f SampleFilter) Passes(r *Record) bool {
	n := uint64(rand.Uint32())
	if !f.Independent && r.RequestHeaders != nil {
		if id, _, ok := r.RequestHeaders.HeaderFrom(nameRequestID, 0); ok && len(id) >= 8 {
			if v, err := strconv.ParseUint(id[:8], 16, 32); err == nil {
				n = v
			}
		}
	}
	return n%f.Denominator < f.Numerator
}

// LogType says on which occasion a record is logged.
type LogType uint8

// The occasions, with the numbers of envoy.data.accesslog.v3.AccessLogType.
const (
	LogNotSet             LogType = 0
	LogUpstreamConnected  LogType = 1
	LogConnectionPeriodic LogType = 2
	LogConnectionEnd      LogType = 3
	LogStart              LogType = 4
	LogPeriodic           LogType = 5
	LogEnd                LogType = 6
	LogAttemptConnected   LogType = 7
	LogAttemptPeriodic    LogType = 8
	LogAttemptEnd         LogType = 9
	LogTunnelStarted      LogType = 10
	LogConnectionStart    LogType = 14
)

func (t LogType) String() string {
	switch t {
	case LogUpstreamConnected:
		return "TcpUpstreamConnected"
	case LogConnectionPeriodic:
		return "TcpPeriodic"
	case LogConnectionStart:
		return "TcpConnectionStart"
	case LogConnectionEnd:
		return "TcpConnectionEnd"
	case LogStart:
		return "DownstreamStart"
	case LogPeriodic:
		return "DownstreamPeriodic"
	case LogEnd:
		return "DownstreamEnd"
	case LogAttemptConnected:
		return "UpstreamPoolReady"
	case LogAttemptPeriodic:
		return "UpstreamPeriodic"
	case LogAttemptEnd:
		return "UpstreamEnd"
	case LogTunnelStarted:
		return "DownstreamTunnelSuccessfullyEstablished"
	}
	return "NotSet"
}

// OfAttempt tells whether the record is of an attempt, not of its request.
func (t LogType) OfAttempt() bool { return t >= LogAttemptConnected && t <= LogAttemptEnd }

// TypeFilter takes records of some occasions (Types is a set of bits).
type TypeFilter struct {
	Types   uint32
	Exclude bool
}

// Passes implements Filter.
func (f TypeFilter) Passes(r *Record) bool { return (f.Types&(1<<r.Type) != 0) != f.Exclude }

package telemetry

import (
	"cmp"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/hauberk-mesh/hauberk/xds/logformat"
)

// OperatorDoc is one row of the documentation.
type OperatorDoc struct{ Name, Argument, Help string }

// valueFunc appends a value; ok is false where there is none, which is not the same as
// an empty one, and nothing was appended.
type valueFunc = func(dst []byte, r *Record) (out []byte, ok bool)

type operatorDef struct {
	OperatorDoc
	wants Want
	// plain: without an argument, its values hold nothing that would be escaped.
	plain        bool
	value        valueFunc
	withArgument func(argument string) (valueFunc, error)
	// compile takes the place of all of these; most is the longest text that is kept, as op.max.
	compile func(argument string, most int) (op, error)
}

// operators are all there are; init fills them in, because COALESCE looks at them.
var operators []operatorDef

func init() {
	operators = slices.Concat(exchangeOperators, timeOperators, upstreamOperators, downstreamOperators, sizeOperators, processOperators, ownOperators)
}

// OperatorDocs lists the operators of access-log formats.
func OperatorDocs() []OperatorDoc {
	out := make([]OperatorDoc, len(operators))
	for i := range operators {
		out[i] = operators[i].OperatorDoc
	}
	return out
}

// text is an operator whose value is absent when it is empty.
func text(name, help string, get func(*Record) string) operatorDef {
	return appends(name, help, func(dst []byte, r *Record) []byte { return append(dst, get(r)...) })
}

// appends is an operator that has no value where it appends nothing.
func appends(name, help string, value func(dst []byte, r *Record) []byte) operatorDef {
	return operatorDef{OperatorDoc: OperatorDoc{Name: name, Help: help}, value: ifAny(value)}
}

// ifAny makes a value of what appends nothing where there is none.
func ifAny(value func(dst []byte, r *Record) []byte) valueFunc {
	return func(dst []byte, r *Record) ([]byte, bool) {
		out := value(dst, r)
		return out, len(out) > len(dst)
	}
}

func number(name, help string, get func(*Record) int64) operatorDef {
	return plain(operatorDef{OperatorDoc: OperatorDoc{Name: name, Help: help},
		value: func(dst []byte, r *Record) ([]byte, bool) { return appendNumber(dst, get(r)), true }})
}

func plain(d operatorDef) operatorDef {
	d.plain = true
	return d
}

// takes is an operator with an argument.
func takes(name, argument, help string, compile func(argument string) (valueFunc, error)) operatorDef {
	return operatorDef{OperatorDoc: OperatorDoc{Name: name, Argument: argument, Help: help}, withArgument: compile}
}

var processOperators = []operatorDef{
	number("CONNECTION_ID", "Number of the downstream connection in this process.", func(r *Record) int64 { return int64(r.ConnectionID) }),
	appends("STREAM_ID", "The request's x-request-id; of a plain connection a UUID that all its lines have, of a request without one a random UUID, of an attempt none.", appendStreamID),
	appends("UNIQUE_ID", "A random UUID for each place where it stands.", func(dst []byte, _ *Record) []byte { return AppendUUID(dst) }),
	appends("TRACE_ID", "The request's trace, where tracing is configured.", func(dst []byte, r *Record) []byte { return append(dst, r.TraceID...) }),
	appends("SPAN_ID", "The request's span, where tracing is configured.", func(dst []byte, r *Record) []byte { return append(dst, r.SpanID...) }),
	text("HOSTNAME", "Name of this host.", func(*Record) string { return hostname }),
	takes("ENVIRONMENT", "NAME", "Environment variable of the sidecar, as it was when the format was compiled; \"-\" for one that is not set.", func(name string) (valueFunc, error) {
		v, ok := os.LookupEnv(name)
		if !ok {
			v = "-"
		}
		return func(dst []byte, _ *Record) ([]byte, bool) { return append(dst, v...), true }, nil
	}),
	{OperatorDoc: OperatorDoc{"COALESCE", "JSON", "The first of several operators that has a value, which may be empty: {\"operators\": [NAME or {\"command\": NAME, \"param\": ARGUMENT, \"max_length\": LENGTH}, …]}. A parenthesis in it is written \\u0029."}, compile: firstValue},
}

var hostname = func() string { h, _ := os.Hostname(); return h }()

func appendStreamID(dst []byte, r *Record) []byte {
	if r.Type.OfAttempt() {
		return dst
	}
	if r.RequestHeaders != nil {
		if id, ok := r.RequestHeaders.Header("x-request-id"); ok {
			return append(dst, id...)
		}
	}
	switch {
	case r.streamID[0] != 0:
	case r.RequestHeaders == nil && r.Protocol == "":
		appendConnectionUUID(r.streamID[:0], r.ConnectionID, r.Start)
	default:
		AppendUUID(r.streamID[:0])
	}
	return append(dst, r.streamID[:]...)
}

// firstValue is of the type of the operator whose value it shows; only texts are cut.
func firstValue(argument string, most int) (out op, err error) {
	pieces, err := logformat.Alternatives(argument)
	if err != nil {
		return out, err
	}
	ops, cut := make([]op, len(pieces)), make([]op, len(pieces))
	for i, p := range pieces {
		if ops[i], err = operator(p); err != nil {
			return out, err
		}
		if cut[i] = ops[i]; most != 0 && !cut[i].number && (cut[i].max == 0 || most < cut[i].max) {
			cut[i].max = most
		}
	}
	first := func(of []op, show func(*op, []byte, *Record) ([]byte, bool)) valueFunc {
		return func(dst []byte, r *Record) (out []byte, ok bool) {
			for i := range of {
				if out, ok = show(&of[i], dst, r); ok {
					return out, true
				}
			}
			return dst, false
		}
	}
	out.value, out.typed = first(ops, (*op).appendValue), first(cut, (*op).appendTyped)
	return out, nil
}

// ownOperators are Hauberk's own.
var ownOperators = []operatorDef{
	text("HAUBERK_DIRECTION", "inbound, outbound or unspecified.", func(r *Record) string { return r.Direction.String() }),
	text("HAUBERK_LISTENER", "Name of the listener.", func(r *Record) string { return r.Listener }),
	text("HAUBERK_SERVICE", "Service of the workload whose listener this is.", func(r *Record) string { return r.Service }),
	text("HAUBERK_WORKLOAD", "SPIFFE ID of the workload whose listener this is.", func(r *Record) string { return r.Workload }),
	text("HAUBERK_SRC_ID", "SPIFFE ID of who asked: the verified peer inbound, the workload outbound.", (*Record).SourceID),
	text("HAUBERK_DST_ID", "SPIFFE ID of who was asked: the workload inbound, the verified upstream outbound.", (*Record).DestinationID),
	text("HAUBERK_DECISION", "allow or deny; absent when no rule was asked.", (*Record).decision),
	text("HAUBERK_RULE", "The authorization rule that decided.", func(r *Record) string { return r.Rule }),
	appends("HAUBERK_SHADOW_RULE", "The shadow rule that would have decided, with its decision.", appendShadow),
	number("HAUBERK_RETRIES", "Upstream attempts after the first.", func(r *Record) int64 { return int64(r.Retries()) }),
	text("HAUBERK_VIRTUAL_HOST", "Virtual host that matched.", func(r *Record) string { return r.VirtualHost }),
	text("HAUBERK_FAILURE", "Why a handshake or connection failed, on either side, or what was wrong with the upstream's answer, in the sidecar's words.", (*Record).failure),
	appends("HAUBERK_UPSTREAM_DURATION", "Milliseconds that the upstream took to begin its answer.", func(dst []byte, r *Record) []byte {
		if r.UpstreamDuration < 0 {
			return dst
		}
		return strconv.AppendInt(dst, r.UpstreamDuration.Milliseconds(), 10)
	}),
}

func (r *Record) decision() string {
	switch {
	case r.Denied:
		return "deny"
	case r.Rule != "":
		return "allow"
	}
	return ""
}

func appendShadow(dst []byte, r *Record) []byte {
	if r.ShadowRule == "" {
		return dst
	}
	if r.ShadowDenied {
		dst = append(dst, "deny: "...)
	} else {
		dst = append(dst, "allow: "...)
	}
	return append(dst, r.ShadowRule...)
}

func (r *Record) failure() string {
	return cmp.Or(r.TransportFailure, r.UpstreamFailure, r.UpstreamTransportFailure)
}

// timeOf shows a time in a format, in UTC unless local.
func timeOf(local bool, get func(*Record) (time.Time, bool)) func(string) (valueFunc, error) {
	return func(argument string) (valueFunc, error) {
		parts, err := logformat.ParseTime(argument)
		if err != nil {
			return nil, err
		}
		seconds := &secondCache{}
		return func(dst []byte, r *Record) ([]byte, bool) {
			t, ok := get(r)
			if !ok {
				return dst, false
			}
			if t = t.UTC(); local {
				t = t.Local()
			}
			if argument == "" {
				return seconds.append(dst, t), true
			}
			for i := range parts {
				dst = parts[i].Append(dst, t)
			}
			return dst, true
		}, nil
	}
}

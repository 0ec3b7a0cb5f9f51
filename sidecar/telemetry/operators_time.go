package telemetry

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/hauberk-mesh/hauberk/xds/logformat"
)

const (
	timeArgument = "FORMAT"
	timeHelp     = " FORMAT is strftime's, with %E3S, %E*S, %1f to %9f, %s, %:z; RFC 3339 with milliseconds when absent."
)

// rfc3339Second, milliseconds and a Z are Envoy's default.
const rfc3339Second = "2006-01-02T15:04:05."

// secondCache keeps the text of the second shown last: formatting a date costs more
// than all that follows from the request's own figures. Safe for concurrent use.
type secondCache struct{ last atomic.Pointer[secondText] }

type secondText struct {
	unix int64
	text string
}

// append shows a time, which is always in the same zone, with milliseconds.
func (c *secondCache) append(dst []byte, t time.Time) []byte {
	s, unix := c.last.Load(), t.Unix()
	switch {
	case s != nil && unix < s.unix:
		// Of a request that took long: the newer text will be asked for more often.
		return t.AppendFormat(dst, rfc3339Second+"000Z")
	case s == nil || s.unix != unix:
		s = &secondText{unix, t.Format(rfc3339Second)}
		c.last.Store(s)
	}
	millis := t.Nanosecond() / 1e6
	return append(append(dst, s.text...), byte('0'+millis/100), byte('0'+millis/10%10), byte('0'+millis%10), 'Z')
}

func started(r *Record) (time.Time, bool) { return r.Start, true }
func emitted(*Record) (time.Time, bool)   { return time.Now(), true }

var timeOperators = []operatorDef{
	plain(takes("START_TIME", timeArgument, "When the request or connection began, UTC."+timeHelp, timeOf(false, started))),
	plain(takes("START_TIME_LOCAL", timeArgument, "The same in the host's time zone.", timeOf(true, started))),
	plain(takes("EMIT_TIME", timeArgument, "When the line is written, UTC.", timeOf(false, emitted))),
	plain(takes("EMIT_TIME_LOCAL", timeArgument, "The same in the host's time zone.", timeOf(true, emitted))),
	number("DURATION", "Milliseconds from the beginning to the end.", func(r *Record) int64 { return r.Duration.Milliseconds() }),
	lasting("REQUEST_DURATION", "Milliseconds from the beginning to the last byte of the request from the downstream.", RequestBegan, RequestEnded),
	lasting("REQUEST_TX_DURATION", "Milliseconds from the beginning to the last byte of the request to the upstream.", RequestBegan, SendingEnded),
	lasting("RESPONSE_DURATION", "Milliseconds from the beginning to the first byte from the upstream.", RequestBegan, AnswerBegan),
	lasting("RESPONSE_TX_DURATION", "Milliseconds from the first byte from the upstream to the last to the downstream.", AnswerBegan, ResponseEnded),
	lasting("UPSTREAM_CONNECTION_POOL_READY_DURATION", "Milliseconds until the last attempt had a connection.", AttemptBegan, AttemptReady),
	{OperatorDoc: OperatorDoc{"COMMON_DURATION", "START:END:PRECISION", "Time between two moments, in ms, us or ns. Moments of a request: DS_RX_BEG, DS_RX_END, US_CX_BEG, US_CX_END, US_HS_END, US_TX_BEG, US_TX_END, US_RX_BEG, US_RX_BODY_BEG, US_RX_END, DS_TX_BEG, DS_TX_END, and DS_CX_BEG, when its connection was accepted, and DS_CX_END where that is over; of a plain connection: DS_CX_BEG, or DS_RX_BEG (it was accepted), US_CX_BEG, US_CX_END, US_HS_END, DS_CX_END."},
		wants: WantMoments, withArgument: func(argument string) (valueFunc, error) {
			start, end, unit, err := logformat.SpanBetween(argument)
			return appendBetween(Moment(start), Moment(end), unit), err
		}},
}

func lasting(name, help string, from, to Moment) operatorDef {
	return operatorDef{OperatorDoc: OperatorDoc{Name: name, Help: help}, wants: WantMoments, value: appendBetween(from, to, 1e6)}
}

func appendBetween(from, to Moment, unit int64) valueFunc {
	return ifAny(func(dst []byte, r *Record) []byte {
		d, ok := r.Moments.between(from, to)
		if !ok {
			return dst
		}
		return strconv.AppendInt(dst, int64(d)/unit, 10)
	})
}

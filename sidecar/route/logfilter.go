package route

import "github.com/hauberk-mesh/hauberk/sidecar/telemetry"

// HeaderFilter takes the records of requests that a matcher matches. It implements
// telemetry.Filter.
type HeaderFilter struct{ Match HeaderMatch }

// Passes implements telemetry.Filter.
func (f HeaderFilter) Passes(r *telemetry.Record) bool {
	return r.RequestHeaders != nil && f.Match.Match(r.RequestHeaders)
}

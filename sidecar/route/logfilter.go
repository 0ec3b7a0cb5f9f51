package route

import (
	"strconv"

	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// HeaderFilter takes the records of requests that a matcher matches. It implements
// telemetry.Filter.
type HeaderFilter struct{ Match HeaderMatch }

// Passes implements telemetry.Filter.
func (f HeaderFilter) Passes(r *telemetry.Record) bool {
	return r.RequestHeaders != nil && f.Match.Match(r.RequestHeaders)
}

// MetadataFilter takes the records of requests whose metadata have a value under a key: Text matches
// it, or it is the truth value Flag, or any with neither. Missing says whether those without the key
// are taken. It implements telemetry.Filter.
type MetadataFilter struct {
	Namespace, Key string
	Text           *StringMatch
	Flag           *bool
	Missing        bool
}

// Passes implements telemetry.Filter.
func (f MetadataFilter) Passes(r *telemetry.Record) bool {
	v, ok := r.Metadata.Get(f.Namespace, f.Key)
	switch {
	case !ok:
		return f.Missing
	case f.Text != nil:
		return f.Text.Match(v)
	case f.Flag != nil:
		return v == strconv.FormatBool(*f.Flag)
	}
	return true
}

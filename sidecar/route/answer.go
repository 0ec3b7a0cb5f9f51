package route

import (
	"slices"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// AnswerMatch judges the head of an answer (envoy.config.common.matcher.v3.MatchPredicate).
// Exactly one of its fields is set.
type AnswerMatch struct {
	Any     []AnswerMatch `json:",omitempty"`
	All     []AnswerMatch `json:",omitempty"`
	Not     *AnswerMatch  `json:",omitempty"`
	Headers []HeaderMatch `json:",omitempty"` // all of them
}

// Match tells whether it holds for an answer.
func (a *AnswerMatch) Match(r *message.Response) bool {
	switch {
	case a.Not != nil:
		return !a.Not.Match(r)
	case a.Any != nil:
		return slices.ContainsFunc(a.Any, func(a AnswerMatch) bool { return a.Match(r) })
	case a.All != nil:
		return !slices.ContainsFunc(a.All, func(a AnswerMatch) bool { return !a.Match(r) })
	}
	return !slices.ContainsFunc(a.Headers, func(h HeaderMatch) bool { return !h.Match(r) })
}

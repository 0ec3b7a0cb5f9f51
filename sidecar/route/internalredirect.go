package route

import "slices"

// InternalRedirect has redirects of hosts followed here, in place of being passed on.
type InternalRedirect struct {
	// Max is how many a request may have been sent on by before it is no more.
	Max uint32
	// Codes are the statuses that are followed.
	Codes []int
	// CrossScheme lets a redirect lead from http to https, or the other way round.
	CrossScheme bool
	// Copy are the header fields, in lower case, that the next request has of the answer, and
	// not of the request before it.
	Copy       []string
	Predicates []RedirectPredicate
}

// RedirectPredicate is what one predicate asks of the route that a redirect leads to.
type RedirectPredicate struct {
	Kind   RedirectPredicateKind
	Routes []string // of AllowListedRoutes, by name
}

// RedirectPredicateKind is one of Envoy's predicates.
type RedirectPredicateKind uint8

// The predicates.
const (
	// PreviousRoutes: the request was not sent from this route to that one before.
	PreviousRoutes RedirectPredicateKind = iota
	// AllowListedRoutes: it is one of those that are listed.
	AllowListedRoutes
	// SafeCrossScheme: no request that came by http goes to https.
	SafeCrossScheme
)

// RedirectTrail is what is known of the redirects of one request.
type RedirectTrail struct {
	Count    uint32
	previous []redirectStep
}

type redirectStep struct{ from, to string }

// Follows tells whether a status is one that is followed.
func (p *InternalRedirect) Follows(status int) bool { return slices.Contains(p.Codes, status) }

// Admits asks the predicates for a redirect from one route to another, by their names.
func (p *InternalRedirect) Admits(t *RedirectTrail, from, to string, fromHTTPS, toHTTPS bool) bool {
	for i := range p.Predicates {
		q := &p.Predicates[i]
		switch q.Kind {
		case PreviousRoutes:
			step := redirectStep{from, to}
			if slices.Contains(t.previous, step) {
				return false
			}
			t.previous = append(t.previous, step)
		case AllowListedRoutes:
			if !slices.Contains(q.Routes, to) {
				return false
			}
		case SafeCrossScheme:
			if toHTTPS && !fromHTTPS {
				return false
			}
		}
	}
	return true
}

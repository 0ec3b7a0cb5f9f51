package server

import (
	"sync"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// limits bound what callers can make the control plane do. A join costs a
// signature and two files on disk; the callers of the other methods are known,
// and each has its own budget, so that one node in a loop starves no other.
type limits struct {
	joins *rate.Limiter

	mu      sync.Mutex
	callers map[string]*rate.Limiter
}

const (
	joinsPerSecond = 10
	joinBurst      = 100
	// A node asks once for each workload when it starts, and hardly ever after.
	callsPerSecond = 20
	callBurst      = 500
	maxCallers     = 50_000
)

func newLimits() *limits {
	return &limits{joins: rate.NewLimiter(joinsPerSecond, joinBurst), callers: map[string]*rate.Limiter{}}
}

func (l *limits) join() error {
	if l.joins.Allow() {
		return nil
	}
	return status.Errorf(codes.ResourceExhausted, "more than %d joins a second: try again, the token has not been used", joinsPerSecond)
}

func (l *limits) caller(id string) error {
	l.mu.Lock()
	limiter, ok := l.callers[id]
	if !ok {
		// Full budgets are those of callers that have been quiet; forgetting them
		// changes nothing.
		if len(l.callers) >= maxCallers {
			for other, full := range l.callers {
				if full.Tokens() >= callBurst {
					delete(l.callers, other)
				}
			}
		}
		limiter = rate.NewLimiter(callsPerSecond, callBurst)
		l.callers[id] = limiter
	}
	l.mu.Unlock()
	if limiter.Allow() {
		return nil
	}
	return status.Errorf(codes.ResourceExhausted, "%s asks more than %d times a second: try again later", id, callsPerSecond)
}

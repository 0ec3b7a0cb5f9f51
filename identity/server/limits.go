package server

import (
	"sync"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// limits bound what callers can make the control plane do. A join costs a
// signature and two files on disk, and is counted once its token is known to be
// good: what no token is good for costs next to nothing. The callers of the other methods are known,
// and each has its own budget, so that one node in a loop starves no other.
type limits struct {
	joins *rate.Limiter
	// refusals bounds what those who are refused have written to the log: whoever reaches the
	// port can be refused as often as he likes.
	refusals *rate.Limiter

	mu      sync.Mutex
	callers map[string]*rate.Limiter
}

const (
	joinsPerSecond = 10
	joinBurst      = 100

	refusalsPerSecond = 10
	refusalBurst      = 100
	// A node asks once for each workload when it starts, and hardly ever after.
	callsPerSecond = 20
	callBurst      = 500
	maxCallers     = 50_000
	// An agent keeps its node's key. Each other key is a change of the record, which every
	// node and control plane is woken for.
	rotationsPerMinute = 6
	rotationBurst      = 10
)

func newLimits() *limits {
	return &limits{joins: rate.NewLimiter(joinsPerSecond, joinBurst), refusals: rate.NewLimiter(refusalsPerSecond, refusalBurst), callers: map[string]*rate.Limiter{}}
}

func (l *limits) join() error {
	if l.joins.Allow() {
		return nil
	}
	return status.Errorf(codes.ResourceExhausted, "more than %d joins a second: try again, the token has not been used", joinsPerSecond)
}

func (l *limits) caller(id string) error {
	if l.allow(id, callsPerSecond, callBurst) {
		return nil
	}
	return status.Errorf(codes.ResourceExhausted, "%s asks more than %d times a second: try again later", id, callsPerSecond)
}

func (l *limits) rotation(id string) error {
	if l.allow("the key of "+id, rotationsPerMinute/60.0, rotationBurst) {
		return nil
	}
	return status.Errorf(codes.ResourceExhausted, "%s changes its key more than %d times a minute: try again later", id, rotationsPerMinute)
}

func (l *limits) allow(what string, perSecond rate.Limit, burst int) bool {
	l.mu.Lock()
	limiter, ok := l.callers[what]
	if !ok {
		// Full budgets are those of callers that have been quiet; forgetting them
		// changes nothing.
		if len(l.callers) >= maxCallers {
			for other, full := range l.callers {
				if full.Tokens() >= float64(full.Burst()) {
					delete(l.callers, other)
				}
			}
		}
		limiter = rate.NewLimiter(perSecond, burst)
		l.callers[what] = limiter
	}
	l.mu.Unlock()
	return limiter.Allow()
}

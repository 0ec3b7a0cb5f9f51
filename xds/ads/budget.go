package ads

import (
	"fmt"
	"slices"
	"sync"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"golang.org/x/time/rate"
)

// What the requests of one peer may cost, in names that are looked at. One is about 150 ns, so that
// a peer in a loop takes a third of a processor; what it sends beyond that is read later.
const (
	namesPerSecond = 2 << 20
	namesBurst     = 8 << 20
	// perRequest is what a request costs that names nothing.
	perRequest = 64
)

// What is written to the log of the rejections of one peer. Each may have a reason of maxDetail bytes.
const (
	rejectionsPerSecond = 10
	rejectionBurst      = 1000
)

// maxBudgets is from how many on budgets are forgotten that are full, as are those that never were.
const maxBudgets = 10_000

// budgets are a rate for each peer. They outlive its streams: it would end them to get a new one.
type budgets struct {
	perSecond rate.Limit
	burst     int

	mu sync.Mutex
	of map[string]*rate.Limiter
}

func newBudgets(perSecond rate.Limit, burst int) *budgets {
	return &budgets{perSecond: perSecond, burst: max(1, burst), of: map[string]*rate.Limiter{}}
}

func (b *budgets) peer(id string, now time.Time) *rate.Limiter {
	b.mu.Lock()
	defer b.mu.Unlock()
	l, ok := b.of[id]
	if !ok {
		if len(b.of) >= maxBudgets {
			for other, full := range b.of {
				if full.TokensAt(now) >= float64(full.Burst()) {
					delete(b.of, other)
				}
			}
		}
		l = rate.NewLimiter(b.perSecond, b.burst)
		b.of[id] = l
	}
	return l
}

// spend takes n and returns how long its peer has to wait for that. Who has no identity shares
// nothing with anybody.
func (b *budgets) spend(id string, n int, now time.Time) time.Duration {
	if id == "" {
		return 0
	}
	return b.peer(id, now).ReserveN(now, min(n, b.burst)).DelayFrom(now)
}

// allow takes one, if it is there.
func (b *budgets) allow(id string, now time.Time) bool {
	return id == "" || b.peer(id, now).AllowN(now, 1)
}

// few are as many of the names as a line of the log has.
func few(names []string) []string {
	const most = 20
	if len(names) <= most {
		return names
	}
	return append(slices.Clone(names[:most]), fmt.Sprintf("and %d more", len(names)-most))
}

// cost is how many names a request has looked at, or will have: those in it, and all of the type
// where what the client is to have must be derived anew.
func (c *core) cost(req request) int {
	n := perRequest
	switch m := req.(type) {
	case *discoveryv3.DeltaDiscoveryRequest:
		n += len(m.GetResourceNamesSubscribe()) + len(m.GetResourceNamesUnsubscribe()) + len(m.GetInitialResourceVersions())
	case *discoveryv3.DiscoveryRequest:
		n += len(m.GetResourceNames())
	}
	if ts := c.types[req.GetTypeUrl()]; ts != nil && ts.dirty {
		n += max(len(ts.names), len(ts.held))
	}
	return n
}

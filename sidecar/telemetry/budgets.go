package telemetry

import "time"

// budgetBounds are of shares of a time; of what has no limit nothing is used.
var budgetBounds = []time.Duration{
	share / 100, share / 20, share / 10, share / 4, share / 2, share * 3 / 4, share * 9 / 10, share, share * 2,
}

// share is all of a time: a histogram counts durations, and its seconds are shares here.
const share = time.Second

// Budgets count how much of the time that they have a cluster's requests, and their attempts,
// take (Envoy's timeout budgets). A nil Budgets counts nothing.
type Budgets struct{ request, attempt *Histogram }

// Budgets are made for the clusters that have them counted; for configuration time.
func (c *ClusterMetrics) Budgets() *Budgets {
	if c == nil {
		return nil
	}
	v := c.m.upstreamBudget
	one := func(of string) *Histogram {
		labels, ok := c.hold(v.f, of)
		if !ok {
			return nil
		}
		return v.With(labels...)
	}
	return &Budgets{request: one("request"), attempt: one("attempt")}
}

// Request counts a request that was answered, or whose time was over; of is its route's timeout,
// 0 for none.
func (b *Budgets) Request(s Shard, took, of time.Duration) {
	if b != nil {
		b.request.Observe(s, used(took, of))
	}
}

// Attempt counts an attempt that was sent; of is its own timeout, 0 for none.
func (b *Budgets) Attempt(s Shard, took, of time.Duration) {
	if b != nil {
		b.attempt.Observe(s, used(took, of))
	}
}

func used(took, of time.Duration) time.Duration {
	if of <= 0 {
		return 0
	}
	return time.Duration(float64(took) / float64(of) * float64(share))
}

package validate

import (
	"fmt"
	"math"

	"github.com/hashicorp/consul/api"
)

func (c *checker) rateLimits(path string, r *api.RateLimits) {
	if r == nil {
		return
	}
	l := &r.InstanceLevel
	if l.RequestsPerSecond == 0 && len(l.Routes) == 0 {
		c.add(path, "limits nothing; set RequestsPerSecond or Routes")
	}
	c.rate(path+".", l.RequestsPerSecond, l.RequestsMaxBurst)
	for i := range l.Routes {
		r := &l.Routes[i]
		p := fmt.Sprintf("%s.Routes[%d].", path, i)
		c.exactlyOnePath(p, r.PathExact, r.PathPrefix, r.PathRegex)
		c.not(r.RequestsPerSecond == 0, p+"RequestsPerSecond", "must be set: 1 or more")
		c.rate(p, r.RequestsPerSecond, r.RequestsMaxBurst)
	}
}

func (c *checker) exactlyOnePath(path, exact, prefix, regex string) {
	c.httpPath(path, exact, prefix, regex)
	c.not(exact == "" && prefix == "" && regex == "", path+"PathPrefix", "one of PathExact, PathPrefix, PathRegex must be set")
}

// rate is a bucket's: what it is filled with in a second, and the most that is in it.
func (c *checker) rate(path string, perSecond, burst int) {
	for _, f := range []struct {
		name string
		n    int
	}{{"RequestsPerSecond", perSecond}, {"RequestsMaxBurst", burst}} {
		if f.n < 0 || f.n > math.MaxUint32 {
			c.add(path+f.name, "%d: use 1 to %d", f.n, uint32(math.MaxUint32))
		}
	}
	c.not(burst > 0 && burst < perSecond, path+"RequestsMaxBurst", "is below RequestsPerSecond, so that rate would never be reached")
	c.not(burst > 0 && perSecond == 0, path+"RequestsPerSecond", "must be set beside RequestsMaxBurst")
}

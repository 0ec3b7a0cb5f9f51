package authz

import "fmt"

// Choice is xds.type.matcher.v3.Matcher with outcomes that are no decision over the request: the
// first condition that holds is chosen.
type Choice struct{ conditions []matcher }

// NewChoice compiles conditions over requests.
func NewChoice(conditions []Condition) (*Choice, error) {
	c, out := compiler{level: Exchange}, &Choice{}
	for i := range conditions {
		when, err := c.condition(&conditions[i], 0)
		if err != nil {
			return nil, fmt.Errorf("conditions[%d]%w", i, err)
		}
		out.conditions = append(out.conditions, when)
	}
	return out, nil
}

// Choose returns which condition is the first that holds; none is as many as there are. It is
// unknown where that cannot be told of one before it, as in Envoy.
func (c *Choice) Choose(p *Peer, r Request) (i int, known bool) {
	in := input{peer: p, req: r}
	for i = range c.conditions {
		if holds, known := c.conditions[i].holds(&in); holds || !known {
			return i, known
		}
	}
	return len(c.conditions), true
}

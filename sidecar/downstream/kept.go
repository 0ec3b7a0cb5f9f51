package downstream

import "sync"

// From says where what is kept for a connection comes from.
type From uint8

// The places.
const (
	FromChain  From = iota // the filter chain's own
	FromRoutes             // what routes have instead
)

// keeper is what is kept for a connection of one version of such a place.
type keeper struct {
	version any
	things  sync.Map
}

// Kept returns what is kept for the connection under a key, making it the first time. It
// may be called for several exchanges at once. Version, a pointer, is that of the place
// which the key belongs to: with another one all is forgotten that was of the last, or a
// connection that lasts would gather the things of every update that it has seen. inForce
// tells whether that is the version now: an exchange that is older than an update would
// have a limit begin anew for all that are younger.
func (c *Conn) Kept(from From, version any, inForce bool, key any, make func() any) any {
	k := c.kept[from].Load()
	for k == nil || k.version != version {
		if k != nil && !inForce {
			return make()
		}
		c.kept[from].CompareAndSwap(k, &keeper{version: version})
		k = c.kept[from].Load()
	}
	if v, ok := k.things.Load(key); ok {
		return v
	}
	v, _ := k.things.LoadOrStore(key, make())
	return v
}

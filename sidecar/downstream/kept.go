package downstream

import "sync"

// keeper is what is kept for a connection under one version of its filter chain.
type keeper struct {
	version any
	things  sync.Map
}

// Kept returns what is kept for the connection under a key, making it the first time. It
// may be called for several exchanges at once. Version, a pointer, is that of the filter chain:
// with another one all is forgotten that was of the last, or a connection that lasts would
// gather the things of every update that it has seen. inForce tells whether that is the
// version now: an exchange that is older than an update would have a limit begin anew for
// all that are younger.
func (c *Conn) Kept(version any, inForce bool, key any, make func() any) any {
	k := c.kept.Load()
	for k == nil || k.version != version {
		if k != nil && !inForce {
			return make()
		}
		c.kept.CompareAndSwap(k, &keeper{version: version})
		k = c.kept.Load()
	}
	if v, ok := k.things.Load(key); ok {
		return v
	}
	v, _ := k.things.LoadOrStore(key, make())
	return v
}

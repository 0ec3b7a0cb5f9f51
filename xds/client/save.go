package client

import (
	"context"
	"time"

	"github.com/hauberk-mesh/hauberk/xds/client/cache"
)

var errNone = cache.ErrNone

// saveEvery spaces writes of the cache: a change is on disk within this time,
// and a burst of changes is one write.
const saveEvery = time.Second

// saveLoop writes the cache after changes, and once more at the end.
func (c *Client) saveLoop(ctx context.Context) {
	dirty := false
	timer := time.NewTimer(saveEvery)
	timer.Stop()
	defer timer.Stop()
	for {
		select {
		case <-c.save:
			if !dirty {
				timer.Reset(saveEvery)
			}
			dirty = true
		case <-timer.C:
			c.store()
			dirty = false
		case <-ctx.Done():
			select {
			case <-c.save:
				dirty = true
			default:
			}
			if dirty {
				c.store()
			}
			return
		}
	}
}

// store writes what is accepted, but never replaces a whole configuration by the
// beginning of another: not before the first synchronisation, unless that started
// from the cache.
func (c *Client) store() {
	c.mu.Lock()
	whole := c.status.Synced || !c.status.CachedAt.IsZero()
	server, resources := c.status.Server, c.resourcesLocked()
	c.mu.Unlock()
	if !whole {
		return
	}
	if err := c.cfg.Cache.Store(server, resources); err != nil {
		c.log.Error("configuration not cached", "err", err)
	}
}

// Forget deletes the cache of a client that is done for good. Run must have returned.
func (c *Client) Forget() error {
	if c.cfg.Cache == nil {
		return nil
	}
	return c.cfg.Cache.Remove()
}

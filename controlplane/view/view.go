package view

import (
	"sync"
	"sync/atomic"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// View is what one client sees, kept current by its Manager until Close. All
// methods may be called from any goroutine.
type View struct {
	manager *Manager
	client  Client

	current atomic.Pointer[resource.Set]

	mu      sync.Mutex
	changed chan struct{}
}

// Current returns the latest set. It is nil until the first publication: then
// nothing may be said to the client, not even that it has nothing.
func (v *View) Current() *resource.Set { return v.current.Load() }

// Changed returns a channel that is closed when Current next differs. Take it
// before Current, so that no change falls between.
func (v *View) Changed() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.changed
}

// Client returns who looks.
func (v *View) Client() Client { return v.client }

// Close ends the view. Its last set stays readable.
func (v *View) Close() { v.manager.close(v) }

func (v *View) replace(s *resource.Set) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.current.Store(s)
	close(v.changed)
	v.changed = make(chan struct{})
}

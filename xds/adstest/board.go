// Package adstest is a control plane in miniature for tests: one set of resources
// that every client sees.
package adstest

import (
	"context"
	"slices"
	"sync"

	"github.com/hauberk-mesh/hauberk/xds/ads"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// Board is an ads.Provider that shows every client the same set.
type Board struct {
	mu      sync.Mutex
	set     *resource.Set
	changed chan struct{}
	clients []ads.Client
}

// NewBoard returns a board with these resources.
func NewBoard(rs ...*resource.Resource) *Board {
	return &Board{set: Set(rs...), changed: make(chan struct{})}
}

// Set is a set of resources.
func Set(rs ...*resource.Resource) *resource.Set {
	s := &resource.Set{ByType: map[string]map[string]*resource.Resource{}}
	for _, r := range rs {
		if s.ByType[r.Type] == nil {
			s.ByType[r.Type] = map[string]*resource.Resource{}
		}
		s.ByType[r.Type][r.Name] = r
	}
	return s
}

// Publish replaces what every client sees.
func (b *Board) Publish(rs ...*resource.Resource) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.set = Set(rs...)
	close(b.changed)
	b.changed = make(chan struct{})
}

// Clients are those that have opened a stream, in order.
func (b *Board) Clients() []ads.Client {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.clients)
}

// Open implements ads.Provider. The board is every client's view.
func (b *Board) Open(_ context.Context, c ads.Client) (ads.View, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.clients = append(b.clients, c)
	return b, nil
}

// Current implements ads.View, as do the methods below.
func (b *Board) Current() *resource.Set {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.set
}

// Changed is closed when another set is shown.
func (b *Board) Changed() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.changed
}

// Close lets go of the view.
func (b *Board) Close() {}

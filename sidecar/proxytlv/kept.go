package proxytlv

import (
	"sync/atomic"
	"unique"
)

// Kept is a list of which the process holds one copy, however many have it, and which costs nothing
// to compare. The zero value is of the empty list.
type Kept struct{ handle unique.Handle[List] }

// Keep returns the one copy of a list.
func Keep(l List) Kept {
	if l == "" {
		return Kept{}
	}
	return Kept{unique.Make(l)}
}

// List is what is kept.
func (k Kept) List() List {
	if k == (Kept{}) {
		return ""
	}
	return k.handle.Value()
}

// MarshalText has it stand in texts of a configuration.
func (k Kept) MarshalText() ([]byte, error) { return []byte(k.List()), nil }

// Client has the extensions of one connection's header, and remembers what was made of them: they
// stay, and each request of the connection needs that. It is for concurrent use; nil has none.
type Client struct {
	Said List
	made atomic.Pointer[[]made]
}

// Maker makes the extensions of another header of a host's own and of what a client said. It is a
// pointer, and what it makes depends on nothing else.
type Maker interface{ Of(own, said List) List }

// made is what a maker made of what the client said.
type made struct {
	by        Maker
	own, list Kept
}

// mostMade is how many are remembered: of more, the last ones.
const mostMade = 8

// List are the extensions.
func (c *Client) List() List {
	if c == nil {
		return ""
	}
	return c.Said
}

// Made is what the maker makes of a host's own extensions and what the client said.
func (c *Client) Made(by Maker, own Kept) Kept {
	var before []made
	if m := c.made.Load(); m != nil {
		before = *m
	}
	for i := range before {
		if before[i].by == by && before[i].own == own {
			return before[i].list
		}
	}
	one := made{by, own, Keep(by.Of(own.List(), c.Said))}
	next := append([]made{one}, before[:min(len(before), mostMade-1)]...)
	c.made.Store(&next)
	return one.list
}

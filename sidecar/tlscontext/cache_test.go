package tlscontext

import (
	"errors"
	"log/slog"
	"testing"
	"time"
)

// TestNobodyWaitsForFilesOfOthers: while a context is made, whose files may be on a slow disk, handshakes by others
// go on; of two that are made of one configuration there is one.
func TestNobodyWaitsForFilesOfOthers(t *testing.T) {
	c := NewCache(slog.New(slog.DiscardHandler), nil)
	client := func() *Client { return &Client{Common: Common{Validation: &Validation{Hash: [][32]byte{{1}}}}} }
	here, slow := client(), client()
	want, err := c.Client(here)
	if err != nil {
		t.Fatal(err)
	}
	reads, goOn := make(chan bool), make(chan bool)
	type result struct {
		context *Context
		err     error
	}
	results := make(chan result, 2)
	for range 2 {
		go func() {
			x, err := cached(c, c.clients, slow, func() (*Context, error) {
				reads <- true
				if !<-goOn {
					return nil, errors.New("no such file")
				}
				return NewClient(slow, Options{})
			})
			results <- result{x, err}
		}()
	}
	<-reads
	got := make(chan *Context, 1)
	go func() {
		x, _ := c.Client(here)
		got <- x
	}()
	select {
	case x := <-got:
		if x != want {
			t.Error("another context of the same configuration")
		}
	case <-time.After(5 * time.Second):
		t.Error("it waits for the files of another")
	}
	<-reads
	goOn <- true
	goOn <- true
	one, other := <-results, <-results
	if one.err != nil || other.err != nil || one.context != other.context {
		t.Errorf("%v, %v, and two contexts of one configuration", one.err, other.err)
	}
	if len(c.contexts()) != 2 {
		t.Errorf("%d contexts", len(c.contexts()))
	}
}

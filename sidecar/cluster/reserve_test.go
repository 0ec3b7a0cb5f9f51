package cluster

import (
	"net"
	"slices"
	"testing"
	"time"
)

// TestReservedConnectionIsQuiet: whoever gets a connection at the limit gets none that its
// peer spoke on without being asked, which would be taken for the next answer, nor one
// that another TLS context verified.
func TestReservedConnectionIsQuiet(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, c *Conn, far net.Conn){
		"stray bytes": func(t *testing.T, c *Conn, far net.Conn) {
			if _, err := far.Write([]byte("HTTP/1.1 200 OK\r\n")); err != nil {
				t.Fatal(err)
			}
			for c.quiet() {
				time.Sleep(time.Millisecond)
			}
		},
		"another generation": func(_ *testing.T, c *Conn, _ net.Conn) { c.generation++ },
	} {
		for _, handed := range []bool{false, true} {
			if handed && name != "stray bytes" {
				continue // Release looks at that
			}
			t.Run(name, func(t *testing.T) {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				cfg := &Config{Name: "c", ConnectTimeout: 5 * time.Second, Endpoints: hosts("c", l.Addr().String())}
				cfg.Limits.MaxConnections = 1
				h := mustUpdate(t, newManager(t, Options{}), cfg).hosts()[0]
				first, err := connTo(h)
				if err != nil {
					t.Fatal(err)
				}
				far, err := l.Accept()
				if err != nil {
					t.Fatal(err)
				}
				defer far.Close()
				p := first.pool
				second := make(chan *Conn, 1)
				if handed {
					go func() {
						c, err := connTo(h)
						if err != nil {
							t.Error(err)
						}
						second <- c
					}()
					for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
						p.mu.Lock()
						n := len(p.waiting)
						p.mu.Unlock()
						if n == 1 {
							break
						}
					}
					spoil(t, first, far)
					first.Release()
				} else {
					first.Release()
					spoil(t, first, far)
					c, w := p.reserve(1, 0, nil)
					if w != nil {
						t.Fatal("a place in the queue")
					}
					if c == nil { // the right to dial
						if c, err = p.dialReserved(t.Context(), 0, protocolHTTP1); err != nil {
							t.Fatal(err)
						}
					}
					second <- c
				}
				c := <-second
				switch {
				case c != first && !first.closed.Load():
					t.Error("the connection is left open")
				case c == first && (!c.Unasked() || c.Sure()): // whoever writes on it looks
					t.Error("the connection is used again")
				}
				_ = c.Close()
			})
		}
	}
}

// TestWaiterKeepsItsPlace: whoever was woken for a connection that another request took is still before
// those that came later.
func TestWaiterKeepsItsPlace(t *testing.T) {
	c := mustUpdate(t, newManager(t, Options{}), &Config{Name: "c", Endpoints: hosts("c", "10.0.0.1"), Limits: Limits{MaxConnections: 1}})
	p := c.hosts()[0].pool("web", DefaultPriority)
	if conn, w := p.reserve(1, 0, nil); conn != nil || w != nil {
		t.Fatal("no connection may be made")
	}
	var waiters []*waiter
	for i := range 3 {
		_, w := p.reserve(1, 0, nil)
		if w == nil {
			t.Fatal("another connection may be made")
		}
		w.since = int64(i)
		waiters = append(waiters, w)
	}
	p.wakeAll()
	for _, i := range []int{1, 0, 2} {
		if conn := <-waiters[i].ready; conn != nil {
			t.Fatal("a connection from nowhere")
		}
		if _, w := p.reserve(1, 0, waiters[i]); w != waiters[i] {
			t.Fatal("another place")
		}
	}
	if !slices.Equal(p.waiting, waiters) {
		t.Error("the places are others")
	}
}

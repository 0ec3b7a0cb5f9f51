package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/fair"
)

// large is a download, which ends seldom enough not to matter.
const large = 4 << 20

// startCrowdHTTP1 answers as startHTTP1 does, and a request for /large with that. Those it
// does not count, and they leave the CPU to others now and then, as a host elsewhere would.
func startCrowdHTTP1(bodySize int) (*origin, error) {
	head := "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n"
	answer := fmt.Appendf(nil, head+"%s", bodySize, bodyOf(bodySize))
	download := fmt.Appendf(nil, head+"%s", large, bodyOf(large))
	return startOrigin(func(o *origin, c net.Conn) {
		r := bufio.NewReaderSize(c, 4096)
		var share fair.Share
		for {
			line, err := r.ReadString('\n')
			for more := line; err == nil && len(more) > 2; {
				more, err = r.ReadString('\n')
			}
			if err != nil {
				return
			}
			if !strings.HasPrefix(line, "GET /large ") {
				o.served.Add(1)
				if _, err := c.Write(answer); err != nil {
					return
				}
				continue
			}
			for rest := download; len(rest) > 0; {
				n, err := c.Write(rest[:min(len(rest), 64<<10)])
				if err != nil {
					return
				}
				rest = rest[n:]
				share.Spend(n)
				share.Turn()
			}
		}
	})
}

// crowdLoad is one client of h1Load beside others that download without a pause.
type crowdLoad struct{ h1Load }

func (l crowdLoad) closed(t target, n int, warm, d time.Duration, measure func(begin bool)) (*result, error) {
	return beside(t, n-1, func() (*result, error) { return closedLanes(l.h1Load, t, 1, warm, d, measure) })
}

func (l crowdLoad) open(t target, n int, rate float64, d time.Duration) (*result, error) {
	return beside(t, n-1, func() (*result, error) { return openLanes(l.h1Load, t, 1, rate, d) })
}

// beside runs a load while n clients download. One of them that fails, or is refused, would
// make it easier for the others: it counts as a failure of the load.
func beside(t target, n int, run func() (*result, error)) (*result, error) {
	var wg sync.WaitGroup
	var all []net.Conn
	var over atomic.Bool
	var failed failures
	defer wg.Wait()
	defer func() {
		over.Store(true)
		for _, c := range all {
			_ = c.Close()
		}
	}()
	for range n {
		c, err := t.dial()
		if err != nil {
			return nil, err
		}
		all = append(all, c)
		wg.Go(func() {
			if err := download(c); !over.Load() {
				failed.add(err)
			}
		})
	}
	r, err := run()
	if err == nil && failed.n.Load() > 0 {
		r.failed += failed.n.Load()
		r.last = *failed.last.Load()
	}
	return r, err
}

// download asks again and again, until that fails.
func download(c net.Conn) error {
	b := make([]byte, 256<<10)
	var share fair.Share
	for first := true; ; {
		if _, err := io.WriteString(c, "GET /large HTTP/1.1\r\nHost: api.bench\r\n\r\n"); err != nil {
			return err
		}
		for got := 0; got < large; {
			n, err := c.Read(b)
			if err != nil {
				return err
			}
			if first && !bytes.HasPrefix(b[:n], []byte("HTTP/1.1 200 ")) {
				return fmt.Errorf("a download was answered %.40q", b[:n])
			}
			first = false
			got += n // a few bytes of it are the head's: the next answers are asked for early
			share.Spend(n)
			share.Turn()
		}
	}
}

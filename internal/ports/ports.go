// Package ports finds TCP ports that are free and stay so until their user binds
// them. A port that the kernel picks (port 0) comes from the range that it also
// gives to outgoing connections and to the next who asks: between the asking and
// the binding somebody else may get it.
package ports

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// The range lies below the kernel's own, which begins at 32768 (Linux,
// net.ipv4.ip_local_port_range), and holds the 21000 at which Consul numbers
// sidecars.
const first, count = 20000, 10000

var (
	mu    sync.Mutex
	given = map[int]bool{}
)

// Free returns a port on host that nobody listens on now and that this process
// was not given before. Processes that ask at the same moment pick at random.
func Free(host string) (int, error) {
	mu.Lock()
	defer mu.Unlock()
	var last error
	for range 200 {
		port := first + rand.IntN(count)
		if given[port] {
			continue
		}
		l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err != nil {
			last = err
			continue
		}
		if err := l.Close(); err != nil {
			return 0, err
		}
		given[port] = true
		return port, nil
	}
	return 0, fmt.Errorf("no free port on %s from %d to %d: %w", host, first, first+count-1, last)
}

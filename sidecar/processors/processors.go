// Package processors tells whether the program runs goroutines one at a time: some of what
// saves work then costs some where there are more processors.
package processors

import (
	"runtime"
	"sync/atomic"
)

var one atomic.Bool

func init() { Note() }

// One tells whether there is one processor, as far as it was noted. Safe for concurrent use.
func One() bool { return one.Load() }

// Note looks how many there are: the runtime follows the CPU limit of the container. It is
// called from time to time.
func Note() {
	if now := runtime.GOMAXPROCS(0) == 1; now != one.Load() {
		one.Store(now)
	}
}

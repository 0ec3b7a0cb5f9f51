package main

import (
	"fmt"
	"io/fs"
	"math"
	"runtime/debug"

	"github.com/hauberk-mesh/hauberk/sidecar/overload"
)

// limit is how much memory the process may have, 0 for any. What of it is garbage is collected
// before it runs out. A bootstrap alone gets what Envoy does of itself: nothing.
func (o *options) limit(host fs.FS) (uint64, error) {
	runtimes := debug.SetMemoryLimit(-1)
	switch o.memoryLimit {
	case "off":
		return 0, nil
	case "auto":
		if o.stateDir == "" {
			return 0, nil
		}
	}
	n := overload.ControlGroupLimit(host)
	if o.memoryLimit != "auto" {
		var err error
		if n, err = overload.ParseSize(o.memoryLimit); err != nil {
			return 0, fmt.Errorf("--memory-limit: %w", err)
		}
	}
	if n > 0 && runtimes == math.MaxInt64 {
		debug.SetMemoryLimit(int64(n / 10 * 9))
	}
	return n, nil
}

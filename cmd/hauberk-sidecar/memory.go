package main

import (
	"fmt"
	"io/fs"
	"math"
	"runtime/debug"

	"github.com/hauberk-mesh/hauberk/sidecar/overload"
)

// limit is how much memory the process may have, 0 for any, and who says so. What of it is garbage
// is collected before it runs out. A bootstrap alone gets what Envoy does of itself: nothing.
func (o *options) limit(host fs.FS) (n uint64, of string, err error) {
	switch o.memoryLimit {
	case "off":
		return 0, "", nil
	case "auto":
		if o.stateDir == "" {
			return 0, "", nil
		}
		n, of = overload.ControlGroupLimit(host), "control group"
	default:
		if n, err = overload.ParseSize(o.memoryLimit); err != nil {
			return 0, "", fmt.Errorf("--memory-limit: %w", err)
		}
		of = "--memory-limit"
	}
	if n > 0 && debug.SetMemoryLimit(-1) == math.MaxInt64 {
		debug.SetMemoryLimit(int64(n / 10 * 9))
	}
	return n, of, nil
}

// Package processorstest has a test run on one processor.
package processorstest

import (
	"runtime"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/processors"
)

// One has the rest of the test run on one processor. Tests beside it would too: it must not
// be parallel.
func One(t testing.TB) {
	t.Helper()
	before := runtime.GOMAXPROCS(1)
	processors.Note()
	t.Cleanup(func() {
		runtime.GOMAXPROCS(before)
		processors.Note()
	})
}

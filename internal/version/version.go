// Package version tells which build this is.
package version

import (
	"runtime"
	"runtime/debug"
)

// Version is the release, set at link time (-ldflags -X). A build without it is
// a development build.
var Version = "0.1.0-dev"

// String gives the version, the commit where the toolchain recorded one, and
// the platform.
func String() string {
	s := Version
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, kv := range info.Settings {
			if kv.Key == "vcs.revision" && len(kv.Value) >= 12 {
				s += " (" + kv.Value[:12] + ")"
			}
		}
	}
	return s + " " + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH
}

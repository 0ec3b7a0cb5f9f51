// Package clock is the one clock that deadlines and durations of the data plane are
// read from. A reading is compared with readings made elsewhere, so that a request needs
// few of them: each takes as long as a hundred instructions.
package clock

import "time"

// base lies so far back that the clock is positive in a synctest bubble too, where time
// begins in 2000: 0 and negative numbers have meanings of their own.
var base = time.Now().Add(-50 * 365 * 24 * time.Hour)

// Now is the time in nanoseconds since some moment. It never goes back.
func Now() int64 { return int64(time.Since(base)) }

// Of is the clock's reading at a time that was read in this process.
func Of(t time.Time) int64 { return int64(t.Sub(base)) }

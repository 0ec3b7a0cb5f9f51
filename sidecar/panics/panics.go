// Package panics keeps a fault of the program where it occurs. A panic that leaves its
// goroutine ends the process, and with it every connection of every workload; so each
// goroutine of the data path defers Contain, and a fault ends the exchange or the
// connection it occurs in and nothing else. It is counted, and logged once with its stack.
package panics

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
)

// Place is what a goroutine was at when a panic was contained: the label of the counter.
type Place string

// The places. What is beside the connections goes on after a fault.
const (
	Configuration Place = "configuration" // what a control plane sends, being read
	Accept        Place = "accept"        // a connection on its way to its handler
	Connection    Place = "connection"    // a downstream connection, or a tunnel in one
	Stream        Place = "stream"        // a stream of HTTP/2
	Exchange      Place = "exchange"      // a request and its answer
	Body          Place = "request_body"  // its body, sent while the answer is waited for
	Hedge         Place = "hedge"         // one of several attempts of a request
	Mirror        Place = "mirror"        // a copy of a request
	Relay         Place = "relay"         // one direction of a connection of bytes
	HTTP2Reader   Place = "http2_reader"  // a connection of HTTP/2, reading
	HTTP2Writer   Place = "http2_writer"  // and writing
	Dial          Place = "dial"          // a TLS handshake with a host
	HealthCheck   Place = "health_check"  // of one host
	Timer         Place = "timer"         // what becomes due
	Housekeeper   Place = "housekeeper"   // what is looked at from time to time
	Poller        Place = "poller"        // the waking of a connection
)

var (
	logger atomic.Pointer[slog.Logger]

	mu     sync.Mutex
	counts = map[Place]uint64{}
)

// LogTo has faults logged to l; slog.Default takes them otherwise.
func LogTo(l *slog.Logger) { logger.Store(l) }

// Count is how many panics were contained at a place. Safe for concurrent use.
func Count(p Place) uint64 {
	mu.Lock()
	defer mu.Unlock()
	return counts[p]
}

// Collect calls emit with what Count tells, for each place where there was a panic.
func Collect(emit func(value float64, labels ...string)) {
	mu.Lock()
	defer mu.Unlock()
	for p, n := range counts {
		emit(float64(n), string(p))
	}
}

// Contain ends a panic. It does nothing unless it is itself deferred. of, which may be
// nil, is what the log names; then, which may be nil, ends what the panic left half
// done, and may panic in turn.
//
// A deferred Contain allocates nothing: it is on the request path.
func Contain(p Place, of slog.LogValuer, then func()) {
	fault := recover()
	if fault == nil {
		return
	}
	note(p, of, fault)
	if then != nil {
		defer func() {
			if again := recover(); again != nil {
				note(p, of, fmt.Sprintf("while ending what failed: %v", again))
			}
		}()
		then()
	}
}

// Guard calls f, and ends its panic: it is for the rounds of a loop that is to go on.
func Guard(p Place, f func()) {
	defer Contain(p, nil, nil)
	f()
}

// Refuse is Guard for what may be refused: a panic of f is an error.
func Refuse(p Place, f func() error) (err error) {
	defer Contain(p, nil, func() { err = errFault })
	return f()
}

// errFault is why something was refused that had the program panic.
var errFault = errors.New("a fault of the program, which is in its log; please report it")

func note(p Place, of slog.LogValuer, fault any) {
	mu.Lock()
	counts[p]++
	mu.Unlock()
	l := logger.Load()
	if l == nil {
		l = slog.Default()
	}
	args := []any{"place", string(p), "err", fmt.Sprint(fault), "stack", string(debug.Stack())}
	if of != nil {
		args = append(args, "of", of)
	}
	l.Error("a panic was contained; please report it", args...)
}

package telemetry

import (
	"sync/atomic"
	"time"
)

// Moment is one of the moments of an exchange or connection.
type Moment uint8

// The moments: the first in the order of logformat.Moments.
const (
	RequestBegan    Moment = iota // first byte from the client; a plain connection was accepted
	RequestEnded                  // last byte from the client
	ConnectBegan                  // of the upstream connection, perhaps long ago
	ConnectEnded                  // the transport is connected
	ConnectSecured                // and the TLS handshake done
	SendingBegan                  // first byte to the upstream
	SendingEnded                  // last byte to the upstream
	AnswerBegan                   // first byte from the upstream
	AnswerBodyBegan               // first byte of the answer's body
	AnswerEnded                   // last byte from the upstream
	ResponseBegan                 // first byte to the client
	ResponseEnded                 // last byte to the client
	ConnectionBegan               // the downstream connection was accepted
	ConnectionEnded               // it is over; 0 while it lasts
	// AttemptBegan is when the last attempt asked for a connection, and AttemptReady
	// when it had one.
	AttemptBegan
	AttemptReady

	moments
)

// Moments are readings of one monotonic clock in nanoseconds; 0 where a moment
// was not, or was not looked at.
type Moments [moments]int64

// between is the time from one moment to another; ok is false where one is unknown, or
// came before the other.
func (m *Moments) between(from, to Moment) (d time.Duration, ok bool) {
	if m[from] == 0 || m[to] < m[from] {
		return 0, false
	}
	return time.Duration(m[to] - m[from]), true
}

// Want is what formats want to know beyond what is there anyway.
type Want uint32

// What may be wanted.
const (
	// WantMoments: somebody shows Moments.
	WantMoments Want = 1 << iota
	// WantTrailers: somebody shows a response's trailers.
	WantTrailers
	// WantCertificates: somebody shows what is in peers' certificates.
	WantCertificates
	// WantMetadata: somebody shows, or filters records by, metadata.
	WantMetadata
	// WantConfigured: somebody shows metadata that are configured.
	WantConfigured
	// WantSizes: somebody shows bytes on the wire.
	WantSizes
	// WantConnectionIDs: somebody shows the numbers of connections to hosts.
	WantConnectionIDs
	// WantHandshakes: somebody shows how long handshakes took.
	WantHandshakes
	// WantFingerprints: somebody shows what tells kinds of clients apart.
	WantFingerprints
)

// wanted grows with the formats that are compiled, and never shrinks: what it costs
// is a reading of the clock.
var wanted atomic.Uint32

// Wanted tells what the formats compiled so far want. Whoever fills records looks
// at it, so that nothing is measured that nobody shows.
func Wanted() Want { return Want(wanted.Load()) }

func want(w Want) { wanted.Or(uint32(w)) }

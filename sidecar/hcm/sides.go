package hcm

import "github.com/hauberk-mesh/hauberk/sidecar/message"

// client is an exchange's side towards whoever asked, in the version of the
// protocol that it speaks. As a body it is the request's.
type client interface {
	asker
	message.Body
	// fill reads bytes of the body into p, at least one unless it returns last or
	// an error. It stands in for Next where the body is wanted in one piece.
	fill(p []byte) (n int, last bool, err error)
	// tunnel makes the body whatever the client sends from here on (RFC 9110 7.8, 9.3.6).
	tunnel(x *exchange)
	// interim passes a 1xx response on (RFC 9110 15.2).
	interim(x *exchange) error
	// head begins the response in x.resp; more tells whether a body follows. What
	// head and data write need not be on the wire before flush.
	head(x *exchange, more bool) error
	// data passes on a piece of the body, with last its end; trailers may be nil.
	data(x *exchange, p []byte, last bool, trailers *message.Fields) error
	flush(x *exchange) error
	// abort leaves the response without its end, so that the client can tell.
	abort(x *exchange)
}

// upstream is an attempt's side towards a host. As a body it is the response's.
type upstream interface {
	side
	message.Body
	// open begins a stream on the connection. It is the last that happens before the
	// watchdog knows the upstream.
	open(a *attempt) error
	// send writes the request's head and what is in memory of its body.
	send(a *attempt) error
	// head reads the next head of the answer, which may be an interim one, into
	// the attempt's response.
	head(a *attempt) error
	// write passes on another piece of the request's body, with last its end.
	write(p []byte, last bool, trailers *message.Fields) error
	// stopWriting makes a write that waits fail.
	stopWriting()
	// stopReading makes whoever waits for the answer look at the pump.
	stopReading()
	// clean tells whether the exchange on the connection has ended so that
	// another may begin there.
	clean(a *attempt) bool
	// leave gives the connection back, or ends what is left of the exchange on it.
	leave(a *attempt, clean bool)
}

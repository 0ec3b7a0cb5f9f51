// Package http2 is HTTP/2 (RFC 9113), HPACK (RFC 7541) and extended CONNECT (RFC
// 8441): both sides of a connection over a stream.Stream. An exchange runs on a
// goroutine of its own and blocks on its Stream's calls; nothing else of a stream
// has a goroutine, a channel or a timer. What is malformed is refused and never
// repaired, and whatever a peer can make us keep is bounded.
package http2

import (
	"errors"
	"fmt"
)

// Code is an error code (RFC 9113 7).
type Code uint32

// The error codes.
const (
	NoError Code = iota
	ProtocolError
	InternalError
	FlowControlError
	SettingsTimeout
	StreamClosed
	FrameSizeError
	RefusedStream
	Cancel
	CompressionError
	ConnectError
	EnhanceYourCalm
	InadequateSecurity
	HTTP11Required
)

var codeNames = [...]string{
	"NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
	"FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM",
	"INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
}

func (c Code) String() string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return fmt.Sprintf("code %#x", uint32(c))
}

var (
	// ErrRefused is a request that the peer certainly did not process: the stream
	// was refused, lies above the last one a GOAWAY admits, or was never sent. It may
	// be sent again elsewhere, whatever its method.
	ErrRefused = errors.New("http2: the peer did not process the request")
	// ErrUnwritable is a message that holds what may not go on the wire: a filter or
	// a configured header put a control character or an invalid name into it.
	ErrUnwritable = errors.New("http2: message holds an invalid field")
	// ErrNoConnect is an upgrade towards a peer that did not announce extended
	// CONNECT (RFC 8441 3).
	ErrNoConnect = errors.New("http2: the peer does not speak extended CONNECT")
	// ErrClosed is a connection or stream that we ended ourselves.
	ErrClosed = errors.New("http2: closed")
)

// StreamError is the abrupt end of one stream.
type StreamError struct {
	Code Code
	// Remote: the peer reset the stream; otherwise we did, for Reason.
	Remote bool
	// Reason is a stable word for counters and access logs.
	Reason string
}

func (e *StreamError) Error() string {
	switch {
	case e.Remote:
		return "http2: the peer reset the stream: " + e.Code.String()
	case e.Reason != "":
		return "http2: stream reset: " + e.Code.String() + ": " + e.Reason
	}
	return "http2: stream reset: " + e.Code.String()
}

// Is makes a refused stream an ErrRefused.
func (e *StreamError) Is(target error) bool {
	return target == ErrRefused && e.Remote && e.Code == RefusedStream
}

// ConnError is the end of a connection, seen by all that used it.
type ConnError struct {
	Code Code
	// Remote: the peer said so with GOAWAY.
	Remote bool
	// Reason is a stable word for counters and access logs.
	Reason string
	// Err is what the transport reported; nil when the protocol was broken.
	Err error
}

func (e *ConnError) Error() string {
	s := "http2: connection ended"
	switch {
	case e.Err != nil:
		return s + ": " + e.Err.Error()
	case e.Remote:
		return s + " by the peer: " + e.Code.String()
	case e.Reason != "":
		return s + ": " + e.Code.String() + ": " + e.Reason
	}
	return s + ": " + e.Code.String()
}

func (e *ConnError) Unwrap() error { return e.Err }

// errPanicked ends a connection of which nobody knows what state it is in. Not even a
// GOAWAY is written on it.
var errPanicked = &ConnError{Code: InternalError, Reason: "panic", Err: errors.New("panic")}

// errSilent ends a connection whose peer does not answer PINGs: it is lost, and no protocol
// was broken. Should the peer live all the same, a GOAWAY tells it what was served.
var errSilent = &ConnError{Code: NoError, Reason: "keepalive_timeout", Err: errors.New("the peer did not answer a PING in time")}

func connError(c Code, reason string) *ConnError { return &ConnError{Code: c, Reason: reason} }

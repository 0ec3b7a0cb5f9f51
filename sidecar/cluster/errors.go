package cluster

import (
	"fmt"
	"net"

	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// Kind says why a cluster could not give a stream.
type Kind uint8

// The kinds of failure.
const (
	NoHealthyHost Kind = iota + 1
	OverflowConnections
	OverflowPending
	OverflowRequests
	OverflowRetries
	ConnectRefused // or any other failure to connect
	ConnectTimeout
	TLSFailure
	Canceled
)

var kindNames = [...]string{
	NoHealthyHost:       "no healthy host",
	OverflowConnections: "connection limit reached",
	OverflowPending:     "pending request limit reached",
	OverflowRequests:    "request limit reached",
	OverflowRetries:     "retry limit reached",
	ConnectRefused:      "connect",
	ConnectTimeout:      "connect timeout",
	TLSFailure:          "tls",
	Canceled:            "canceled",
}

func (k Kind) String() string { return kindNames[k] }

// OfHost tells whether the failure says something of the host: no connection could be
// made. The others are limits of ours, or the end of who asked.
func (k Kind) OfHost() bool { return k == ConnectRefused || k == ConnectTimeout || k == TLSFailure }

// Flags is the response flag of a failure.
func (k Kind) Flags() telemetry.Flags {
	switch k {
	case NoHealthyHost:
		return telemetry.FlagNoHealthyUpstream
	case OverflowConnections, OverflowPending, OverflowRequests, OverflowRetries:
		return telemetry.FlagUpstreamOverflow
	case Canceled:
		return telemetry.FlagUpstreamRequestTimeout
	}
	return telemetry.FlagUpstreamConnectFailure
}

// Error is a failure to open a stream or to find a host for it.
type Error struct {
	Kind    Kind
	Cluster string
	Host    string   // empty when none was chosen
	Addr    net.Addr // of the host that a byte stream could not be opened to, else nil
	Err     error    // may be nil
}

func (e *Error) Error() string {
	msg := "cluster " + e.Cluster
	if e.Host != "" {
		msg += " host " + e.Host
	}
	msg += ": " + e.Kind.String()
	if e.Err != nil {
		return fmt.Sprintf("%s: %v", msg, e.Err)
	}
	return msg
}

func (e *Error) Unwrap() error { return e.Err }

// Flags is the response flag of the failure.
func (e *Error) Flags() telemetry.Flags { return e.Kind.Flags() }

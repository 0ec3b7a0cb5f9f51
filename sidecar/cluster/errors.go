package cluster

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

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
	OverflowPools
	ConnectRefused // or any other failure to connect
	ConnectTimeout
	TLSFailure
	NoServerName // the request has none that could be asked for
	WrongName    // the certificate has not the name that the request's client chose
	Shed         // no connection is made because of an overload
	Outdated     // what the connection depends on changed since the request asked for it
	Canceled
)

var kindNames = [...]string{
	NoHealthyHost:       "no healthy host",
	OverflowConnections: "connection limit reached",
	OverflowPending:     "pending request limit reached",
	OverflowRequests:    "request limit reached",
	OverflowRetries:     "retry limit reached",
	OverflowPools:       "limit of connection pools reached",
	ConnectRefused:      "connect",
	ConnectTimeout:      "connect timeout",
	TLSFailure:          "tls",
	NoServerName:        "no server name",
	WrongName:           "tls server name",
	Shed:                "overload",
	Outdated:            "configuration changed",
	Canceled:            "canceled",
}

func (k Kind) String() string { return kindNames[k] }

// OfHost tells whether the failure says something of the host: no connection could be
// made. The others are limits of ours, what the client chose, or the end of who asked.
func (k Kind) OfHost() bool { return k == ConnectRefused || k == ConnectTimeout || k == TLSFailure }

// Flags is the response flag of a failure.
func (k Kind) Flags() telemetry.Flags {
	switch k {
	case NoHealthyHost, OverflowPools:
		return telemetry.FlagNoHealthyUpstream
	case OverflowConnections, OverflowPending, OverflowRequests, OverflowRetries:
		return telemetry.FlagUpstreamOverflow
	case Canceled:
		return telemetry.FlagUpstreamRequestTimeout
	case Shed: // of a byte stream Envoy has no flag that says so
		return 0
	}
	return telemetry.FlagUpstreamConnectFailure
}

// Error is a failure to open a stream or to find a host for it.
type Error struct {
	Kind    Kind
	Cluster string
	Host    string   // empty when none was chosen
	Addr    net.Addr // of the host that a byte stream could not be opened to, else nil
	Name    string   // the same host's name, "" for none
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

// OfHost tells whether the failure says something of the host: a withdrawal that overtook its connection
// says nothing, whatever came of that.
func (e *Error) OfHost() bool { return e.Kind.OfHost() && e.Err != errWithdrawn }

// TransportFailure is why no connection could be made, in the words of Envoy's transport
// failure reasons; "" where Envoy has none, as for a timeout or a limit. What TLS says is
// not in Envoy's words, only where it stands.
func (e *Error) TransportFailure() string {
	if (e.Kind == TLSFailure || e.Kind == WrongName) && e.Err != nil {
		return "TLS_error:|" + e.Err.Error() + ":TLS_error_end"
	}
	var errno syscall.Errno
	if e.Kind != ConnectRefused || !errors.As(e.Err, &errno) {
		return ""
	}
	text := errno.Error()
	text = " connect error: " + strings.ToUpper(text[:1]) + text[1:]
	switch errno {
	case syscall.ENETUNREACH, syscall.EADDRNOTAVAIL, syscall.EACCES, syscall.EPERM, syscall.ENOENT:
		return "immediate" + text + "|remote address:" + strings.TrimPrefix(e.Host, "unix:")
	}
	return "delayed" + text
}

// Flags is the response flag of the failure.
func (e *Error) Flags() telemetry.Flags { return e.Kind.Flags() }

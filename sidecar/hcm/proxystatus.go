package hcm

import (
	"strings"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// ProxyStatus has answers tell in Proxy-Status what went wrong (RFC 9209).
type ProxyStatus struct {
	// Name is what the sidecar calls itself; with NodeID it is the node's id.
	Name   string
	NodeID bool
	// WithoutDetails leaves out all of them, WithoutTermination why the client's connection ended, and
	// WithoutFlags those of the access log.
	WithoutDetails, WithoutTermination, WithoutFlags bool
	// SetCode has the answer have the status that the RFC recommends for the error.
	SetCode bool
}

// proxyErrors are the errors that flags stand for, the first that is set first, as in Envoy, and the
// statuses that go with them, 0 for none.
var proxyErrors = []struct {
	flag   telemetry.Flags
	name   string
	status int
}{
	{telemetry.FlagLocalHealthCheck, "destination_unavailable", 503},
	{telemetry.FlagNoHealthyUpstream, "destination_unavailable", 503},
	{telemetry.FlagUpstreamRequestTimeout, "http_response_timeout", 504},
	{telemetry.FlagDurationTimeout, "connection_timeout", 504},
	{telemetry.FlagUpstreamReset, "connection_terminated", 502},
	{telemetry.FlagUpstreamConnectFailure, "connection_refused", 502},
	{telemetry.FlagUpstreamConnTermination, "connection_terminated", 502},
	{telemetry.FlagOverload, "connection_limit_reached", 503},
	{telemetry.FlagDropOverload, "connection_limit_reached", 503},
	{telemetry.FlagFaultInjected, "http_request_error", 0},
	{telemetry.FlagUpstreamOverflow, "connection_limit_reached", 503},
	{telemetry.FlagNoRoute, "destination_not_found", 500},
	{telemetry.FlagRateLimited, "connection_limit_reached", 503},
	{telemetry.FlagRetryLimitExceeded, "destination_unavailable", 503},
	{telemetry.FlagStreamIdleTimeout, "http_response_timeout", 504},
	{telemetry.FlagDownstreamProtocolError, "http_request_error", 0},
	{telemetry.FlagUpstreamDurationTimeout, "http_response_timeout", 504},
	{telemetry.FlagUpstreamProtocolError, "http_protocol_error", 502},
	{telemetry.FlagNoCluster, "destination_unavailable", 503},
}

// tellProxyStatus adds to what proxies behind have told of an answer.
//
//go:noinline
func (x *exchange) tellProxyStatus(f *message.Fields, p *ProxyStatus) {
	for i := range proxyErrors {
		e := &proxyErrors[i]
		if x.flags&e.flag == 0 {
			continue
		}
		value := x.proxyStatus(p, e.name)
		if before, ok := f.Joined("proxy-status"); ok {
			value = before + ", " + value
		}
		f.Set("proxy-status", value)
		if p.SetCode && e.status != 0 {
			x.resp.Status, x.status = e.status, e.status
		}
		return
	}
}

func (x *exchange) proxyStatus(p *ProxyStatus, fault string) string {
	name := p.Name
	if p.NodeID {
		name = x.m.node
	}
	out := name + "; error=" + fault
	if p.WithoutDetails {
		return out
	}
	var details []string
	if x.details != "" {
		details = append(details, x.details)
	}
	if e := x.d.Ended(); e != nil && !p.WithoutTermination && e.Reason != "" {
		details = append(details, e.Reason)
	}
	if !p.WithoutFlags {
		details = append(details, x.flags.String())
	}
	return out + `; details="` + quotedString(strings.Join(details, "; ")) + `"`
}

// quotedString escapes what may not stand in a string (RFC 8941 3.3.3).
func quotedString(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r == '"' || r == '\\' || r < ' ' || r > '~' }) {
		return s
	}
	var b strings.Builder
	for _, c := range []byte(s) {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c > '~':
			b.WriteByte('?')
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

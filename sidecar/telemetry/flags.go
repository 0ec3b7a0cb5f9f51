package telemetry

import "math/bits"

// Flags say what went wrong with a request or connection, as Envoy's response
// flags do.
type Flags uint32

// The flags, in the order they are written: Envoy's, then Hauberk's own. Envoy writes
// them in the order in which they arose, which for those that arise together is this.
const (
	FlagLocalHealthCheck          Flags = 1 << iota // LH
	FlagNoHealthyUpstream                           // UH
	FlagUpstreamConnectFailure                      // UF
	FlagRetryLimitExceeded                          // URX
	FlagUpstreamRequestTimeout                      // UT
	FlagUpstreamReset                               // UR
	FlagUpstreamConnTermination                     // UC
	FlagUpstreamOverflow                            // UO
	FlagNoRoute                                     // NR
	FlagDelayInjected                               // DI
	FlagFaultInjected                               // FI
	FlagRateLimited                                 // RL
	FlagDownstreamTermination                       // DC
	FlagStreamIdleTimeout                           // SI
	FlagDownstreamProtocolError                     // DPE
	FlagUpstreamDurationTimeout                     // UMSDR
	FlagDurationTimeout                             // DT
	FlagUpstreamProtocolError                       // UPE
	FlagNoCluster                                   // NC
	FlagOverload                                    // OM
	FlagDropOverload                                // DO
	FlagDownstreamReset                             // DR
	FlagUnconditionalDropOverload                   // UDO
	FlagTLSFailure                                  // TLS: the downstream handshake failed
	FlagDraining                                    // DRAIN: closed at the end of a drain
	FlagPolicyClosed                                // PC: closed by a policy or identity change
	flagEnd
)

type flagName struct{ short, long, help string }

var flagNames = [...]flagName{
	{"LH", "FailedLocalHealthCheck", "the sidecar failed a health check"},
	{"UH", "NoHealthyUpstream", "no healthy upstream host"},
	{"UF", "UpstreamConnectionFailure", "connection to the upstream failed"},
	{"URX", "UpstreamRetryLimitExceeded", "the retry or connect attempt limit was reached"},
	{"UT", "UpstreamRequestTimeout", "the upstream did not answer in time"},
	{"UR", "UpstreamRemoteReset", "the upstream reset the request, or the plain connection"},
	{"UC", "UpstreamConnectionTermination", "the upstream closed the connection"},
	{"UO", "UpstreamOverflow", "a circuit breaker of the upstream was full"},
	{"NR", "NoRouteFound", "no route, or no filter chain, matched"},
	{"DI", "DelayInjected", "a delay was injected"},
	{"FI", "FaultInjected", "a fault was injected"},
	{"RL", "RateLimited", "a rate limit was reached"},
	{"DC", "DownstreamConnectionTermination", "the downstream closed the connection"},
	{"SI", "StreamIdleTimeout", "nothing moved for the idle timeout"},
	{"DPE", "DownstreamProtocolError", "the downstream's request broke the protocol"},
	{"UMSDR", "UpstreamMaxStreamDurationReached", "the maximum duration of the upstream's streams was reached"},
	{"DT", "DurationTimeout", "the maximum duration was reached"},
	{"UPE", "UpstreamProtocolError", "the upstream's answer broke the protocol"},
	{"NC", "NoClusterFound", "the cluster of the route does not exist"},
	{"OM", "OverloadManagerTerminated", "reset because of overload: it held too much memory"},
	{"DO", "DropOverload", "dropped because the cluster's assignment has a share of the requests dropped"},
	{"DR", "DownstreamRemoteReset", "the downstream reset the stream"},
	{"UDO", "UnconditionalDropOverload", "dropped because the cluster's assignment has all requests dropped"},
	{"TLS", "DownstreamTlsFailure", "Hauberk's own: the downstream TLS handshake failed"},
	{"DRAIN", "DrainEnded", "Hauberk's own: closed at the end of a drain"},
	{"PC", "PolicyClosed", "Hauberk's own: closed because a policy or an identity changed"},
}

// absentFlags are Envoy's flags that do not occur here, and why.
var absentFlags = []FlagDoc{
	{"UAEX", "there is no external authorization; a denial of RBAC has no flag, as in Envoy: see `HAUBERK_DECISION` and `HAUBERK_RULE`"},
	{"LR", "what the sidecar resets has a reason with a flag of its own"},
	{"RLSE", "there is no rate limit service"},
	{"IH", "strictly checked headers are not implemented"},
	{"RFCF", "there is no cache filter"},
	{"NFCF", "filters are configured where they stand"},
	{"DF", "names are resolved beforehand, not for a request"},
}

// Each flag has a name: a compile error here asks for one, or for the flag.
const (
	_ = uint(1<<len(flagNames) - flagEnd)
	_ = uint(flagEnd - 1<<len(flagNames))
)

// FlagDoc is one row of the documentation.
type FlagDoc struct{ Name, Help string }

// FlagDocs lists every flag in order.
func FlagDocs() []FlagDoc {
	out := make([]FlagDoc, len(flagNames))
	for i, f := range flagNames {
		out[i] = FlagDoc{f.short, f.help}
	}
	return out
}

// String joins the short names with commas; "-" when there are none.
func (f Flags) String() string {
	if f == 0 {
		return "-"
	}
	if f&(f-1) == 0 {
		return flagNames[bits.TrailingZeros32(uint32(f))].short
	}
	return string(f.appendTo(nil, false))
}

// appendTo appends the names of the flags, "-" for none.
func (f Flags) appendTo(dst []byte, long bool) []byte {
	if f == 0 {
		return append(dst, '-')
	}
	start := len(dst)
	for ; f != 0; f &= f - 1 {
		i := bits.TrailingZeros32(uint32(f))
		if len(dst) > start {
			dst = append(dst, ',')
		}
		if long {
			dst = append(dst, flagNames[i].long...)
		} else {
			dst = append(dst, flagNames[i].short...)
		}
	}
	return dst
}

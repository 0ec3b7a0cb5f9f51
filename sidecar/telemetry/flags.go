package telemetry

import "strings"

// Flags say what went wrong with a request or connection, as Envoy's response
// flags do.
type Flags uint32

// The flags, in the order they are written.
const (
	FlagNoHealthyUpstream       Flags = 1 << iota // UH
	FlagUpstreamConnectFailure                    // UF
	FlagUpstreamOverflow                          // UO
	FlagNoRoute                                   // NR
	FlagNoCluster                                 // NC
	FlagRetryLimitExceeded                        // URX
	FlagUpstreamRequestTimeout                    // UT
	FlagUpstreamConnTermination                   // UC
	FlagUpstreamReset                             // UR
	FlagUpstreamProtocolError                     // UPE
	FlagLocalReset                                // LR
	FlagDownstreamTermination                     // DC
	FlagDownstreamProtocolError                   // DPE
	FlagDurationTimeout                           // DT
	FlagStreamIdleTimeout                         // SI
	FlagDelayInjected                             // DI
	FlagFaultInjected                             // FI
	FlagRateLimited                               // RL
	FlagUnauthorized                              // UAEX
	FlagOverload                                  // OM
	FlagUpstreamMaxDuration                       // UMSDR
	FlagNoFilterChain                             // NFCF
	FlagLocalHealthCheck                          // LH
	FlagTLSFailure                                // TLS: Hauberk's own, the downstream handshake failed
	FlagDraining                                  // DRAIN: Hauberk's own, closed at the end of a drain
	FlagPolicyClosed                              // PC: Hauberk's own, closed by a policy or identity change
	FlagDownstreamReset                           // DR
	flagEnd
)

var flagNames = [...]struct{ short, help string }{
	{"UH", "no healthy upstream host"},
	{"UF", "connection to the upstream failed"},
	{"UO", "a circuit breaker of the upstream was full"},
	{"NR", "no route matched"},
	{"NC", "the cluster of the route does not exist"},
	{"URX", "the retry or connect attempt limit was reached"},
	{"UT", "the upstream did not answer in time"},
	{"UC", "the upstream closed the connection"},
	{"UR", "the upstream reset the request"},
	{"UPE", "the upstream's answer broke the protocol"},
	{"LR", "the connection was reset by the sidecar"},
	{"DC", "the downstream closed the connection"},
	{"DPE", "the downstream's request broke the protocol"},
	{"DT", "the maximum duration was reached"},
	{"SI", "nothing moved for the idle timeout"},
	{"DI", "a delay was injected"},
	{"FI", "a fault was injected"},
	{"RL", "a rate limit was reached"},
	{"UAEX", "denied by authorization"},
	{"OM", "refused because of overload"},
	{"UMSDR", "the upstream's maximum stream duration was reached"},
	{"NFCF", "no filter chain matched"},
	{"LH", "the sidecar failed a health check"},
	{"TLS", "the downstream TLS handshake failed"},
	{"DRAIN", "closed at the end of a drain"},
	{"PC", "closed because a policy or an identity changed"},
	{"DR", "the downstream reset the stream"},
}

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
		for i := range flagNames {
			if f == 1<<i {
				return flagNames[i].short
			}
		}
	}
	var b strings.Builder
	for i := range flagNames {
		if f&(1<<i) != 0 {
			if b.Len() > 0 {
				b.WriteByte(',')
			}
			b.WriteString(flagNames[i].short)
		}
	}
	return b.String()
}

func (f Flags) appendTo(dst []byte) []byte {
	if f == 0 {
		return append(dst, '-')
	}
	first := true
	for i := range flagNames {
		if f&(1<<i) != 0 {
			if !first {
				dst = append(dst, ',')
			}
			dst = append(dst, flagNames[i].short...)
			first = false
		}
	}
	return dst
}

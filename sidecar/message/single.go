package message

// singles are the fields whose values Envoy joins into one where they are repeated, whoever
// sends them.
const singles IDs = 1<<Via | 1<<CacheControl | 1<<ContentType | 1<<ContentEncoding | 1<<XRequestID | 1<<XEnvoyAttemptCount

// RequestSingles are those of requests, and ResponseSingles those of responses.
const (
	RequestSingles = singles | 1<<Authorization | 1<<Accept | 1<<AcceptEncoding | 1<<UserAgent | 1<<Referer | 1<<Origin |
		1<<XForwardedFor | 1<<XForwardedProto | 1<<XForwardedHost | 1<<XForwardedClientCert | 1<<XEnvoyOriginalPath | 1<<GRPCTimeout
	ResponseSingles = singles | 1<<Date | 1<<Server | 1<<Location | 1<<XEnvoyUpstreamServiceTime | 1<<GRPCStatus | 1<<GRPCMessage
)

// DropEmpty drops the empty values of those fields of the set that were noted more than once,
// up to one. An empty element adds nothing to a list (RFC 9110 5.6.1), but to a rule about the
// field's value it would: Envoy drops it too, and any client can add one.
func (f *Fields) DropEmpty(of IDs) {
	again := f.repeated & uint64(of)
	if again == 0 {
		return
	}
	for id := range numIDs {
		if again>>id&1 == 0 {
			continue
		}
		for i := f.Find(id, 0); i >= 0; i = f.Find(id, i+1) {
			if f.list[i].valLen == 0 && (f.Find(id, 0) < i || f.Find(id, i+1) >= 0) {
				f.kill(i)
			}
		}
	}
}

package message

// singles are the fields of which a message has one, whoever sends it: Envoy joins their values
// where they are repeated.
const singles IDs = 1<<Via | 1<<CacheControl | 1<<ContentType | 1<<ContentEncoding | 1<<XRequestID | 1<<XEnvoyAttemptCount

// RequestSingles are those of requests, ResponseSingles those of responses, and TrailerSingles
// those of the trailers of responses.
const (
	RequestSingles = singles | 1<<Authorization | 1<<Accept | 1<<AcceptEncoding | 1<<UserAgent | 1<<Referer | 1<<Origin |
		1<<XForwardedFor | 1<<XForwardedProto | 1<<XForwardedHost | 1<<XForwardedClientCert | 1<<XEnvoyOriginalPath | 1<<XEnvoyExpectedTimeout | 1<<GRPCTimeout
	ResponseSingles = singles | 1<<Date | 1<<Server | 1<<Location | 1<<XEnvoyUpstreamServiceTime | 1<<GRPCStatus | 1<<GRPCMessage
	TrailerSingles  = IDs(1<<GRPCStatus | 1<<GRPCMessage)
)

// JoinSingles makes one field of those of the set that were noted more than once, its values
// separated by commas (RFC 9110 5.3) and the empty ones left out: a rule, whoever is to be sent
// the field, and the log see one value, whatever lines a client wrote it in. Envoy does so too.
func (f *Fields) JoinSingles(of IDs) {
	again := f.repeated & uint64(of)
	if again == 0 {
		return
	}
	f.repeated &^= again
	for id := range numIDs {
		if again>>id&1 != 0 {
			f.join(id)
		}
	}
}

func (f *Fields) join(id ID) {
	first := f.Find(id, 0)
	start, one := len(f.arena), -1 // one is the only field that is not empty
	for i := first; i >= 0; i = f.Find(id, i+1) {
		if e := f.list[i]; e.valLen > 0 {
			if len(f.arena) > start {
				f.arena = append(f.arena, ',')
				one = -1
			} else {
				one = i
			}
			f.arena = append(f.arena, f.text(e.valOff, e.valOff+e.valLen)...)
		}
		if i != first {
			f.kill(i)
		}
	}
	if one == first {
		f.arena = f.arena[:start]
		return
	}
	e := &f.list[first]
	e.valOff, e.valLen, e.line = uint32(start), uint32(len(f.arena)-start), false
}

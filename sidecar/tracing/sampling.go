package tracing

import (
	"math/rand/v2"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// Reason is why a request is traced, or that it is not.
type Reason uint8

// The reasons, as Envoy counts them.
const (
	NotTraceable Reason = iota
	RandomSampling
	ServiceForced
	ClientForced

	reasons
)

// String is the reason as metrics write it.
func (r Reason) String() string {
	return [...]string{"not_traceable", "random_sampling", "service_forced", "client_enabled"}[r]
}

// The request's id carries the decision from hop to hop, in the digit that tells the
// version of a UUID (RFC 9562 4.2).
const (
	reasonDigit = 14
	uuidLength  = 36
)

func reasonOf(id string) Reason {
	if len(id) == uuidLength {
		switch id[reasonDigit] {
		case '9':
			return RandomSampling
		case 'a':
			return ServiceForced
		case 'b':
			return ClientForced
		}
	}
	return NotTraceable
}

var reasonDigits = [reasons]byte{NotTraceable: '4', RandomSampling: '9', ServiceForced: 'a', ClientForced: 'b'}

// numberOf is the number that stands for a request's chance in every hop: the first 32 bits
// of its id. Of an id without them nothing is known, and nothing is traced.
func numberOf(id string) (n uint64, ok bool) {
	var b [4]byte
	if len(id) < 8 || !unhex(b[:], id[:8]) {
		return 0, false
	}
	return uint64(b[0])<<24 | uint64(b[1])<<16 | uint64(b[2])<<8 | uint64(b[3]), true
}

// Fraction is N of every Of requests; none where Of is 0.
type Fraction struct{ N, Of uint32 }

// Percent is a whole percentage.
func Percent(n uint32) Fraction { return Fraction{n, 100} }

func (f Fraction) takes(n uint64) bool { return f.Of > 0 && n%uint64(f.Of) < uint64(f.N) }

// Sampling chooses the requests that are traced: Client of those that ask for it with
// x-client-trace-id, Random of the others, and of all of these no more than Overall.
type Sampling struct{ Client, Random, Overall Fraction }

// decide says whether a request is traced, as Envoy does. With pack the decision of a hop before
// is read from its id, and this one noted there. The request has x-envoy-force-trace only where whoever sent it is trusted.
func (c *Sampling) decide(req *message.Request, pack bool) Reason {
	f := &req.Fields
	id, _ := f.ByID(message.XRequestID)
	n, ok := numberOf(id)
	if !ok {
		return NotTraceable
	}
	n %= 10000
	was := NotTraceable
	if pack {
		was = reasonOf(id)
	}
	reason := was
	if reason == NotTraceable {
		switch {
		case has(f, "x-client-trace-id") && c.Client.takes(rand.Uint64()):
			reason = ClientForced
		case has(f, "x-envoy-force-trace"):
			reason = ServiceForced
		case c.Random.takes(n):
			reason = RandomSampling
		}
	}
	if reason != NotTraceable && !c.Overall.takes(n) {
		reason = NotTraceable
	}
	if reason != was && pack {
		note(f, id, reason)
	}
	return reason
}

// note writes a decision into a request's id, where it is a UUID.
func note(f *message.Fields, id string, r Reason) {
	if len(id) != uuidLength {
		return
	}
	var b [uuidLength]byte
	copy(b[:], id)
	b[reasonDigit] = reasonDigits[r]
	f.SetBytes("x-request-id", b[:])
}

// Undecide takes the decision out of the id of a request whose sender is not to make it.
func Undecide(f *message.Fields) {
	if id, _ := f.ByID(message.XRequestID); reasonOf(id) != NotTraceable {
		note(f, id, NotTraceable)
	}
}

func has(f *message.Fields, lower string) bool {
	_, ok := f.Get(lower)
	return ok
}

package hcm

import (
	"runtime"

	"github.com/hauberk-mesh/hauberk/sidecar/processors"
)

// takeTurns lets the other exchanges that were woken together come to the same point first.
// The code of a whole exchange is several times what a processor's instruction cache
// holds, so each exchange that runs through fetches all of it anew; the code of a part
// is fetched once for all whose turn it is. What they have in hand has to fit the next
// cache meanwhile, so there are few parts: what reads and decides about a request, what
// forwards it, with TLS what writes it, and what counts and logs it.
//
// It is behind all that can run, though. Beside a goroutine that computes each turn takes
// what the runtime leaves that one, up to 10 ms.
//
// With more processors a goroutine that steps back would wake one of them instead.
func takeTurns() {
	if processors.One() {
		runtime.Gosched()
	}
}

// takeTurns is for the parts of an exchange. Those of one HTTP/2 connection gain nothing by
// it: their codec has them run together already.
func (x *exchange) takeTurns() {
	if x.client == client(&x.h1) {
		takeTurns()
	}
}

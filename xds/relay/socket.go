package relay

import (
	"context"
	"log/slog"

	"google.golang.org/grpc"

	"github.com/hauberk-mesh/hauberk/identity/workloadapi"
)

// OnHostSocket returns the relay for a host socket: who calls is what the socket
// has attested.
func OnHostSocket(upstream grpc.ClientConnInterface, log *slog.Logger) *Relay {
	return New(Config{Upstream: upstream, Log: log, Caller: func(ctx context.Context) (Caller, bool) {
		c, ok := workloadapi.CallerFromContext(ctx)
		if !ok {
			return nil, false
		}
		return attested{c}, true
	}})
}

// attested is a caller whose identities are read as texts.
type attested struct{ *workloadapi.Caller }

// Entitled implements Caller.
func (a attested) Entitled() []string {
	var out []string
	for _, id := range a.Caller.Entitled() {
		out = append(out, id.String())
	}
	return out
}

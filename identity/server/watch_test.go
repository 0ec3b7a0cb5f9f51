package server

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/hauberk-mesh/hauberk/identity/identityv1"
)

// unread is the stream of a node that answers PINGs and reads nothing: Send waits
// for its window until the stream ends.
type unread struct {
	grpc.ServerStreamingServer[identityv1.TrustUpdate]
	ctx context.Context
}

func (u unread) Send(*identityv1.TrustUpdate) error {
	<-u.ctx.Done()
	return u.ctx.Err()
}

// A signer is activated when every watcher was sent it: one that does not read
// must not be waited for without end.
func TestATrustStreamThatIsNotReadEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		begun := time.Now()
		err := sendWithin(unread{ctx: ctx}, &identityv1.TrustUpdate{}, 30*time.Second)
		if took := time.Since(begun); status.Code(err) != codes.DeadlineExceeded || took != 30*time.Second {
			t.Errorf("ended after %s with %v", took, err)
		}
		cancel() // as grpc does when the handler has returned
		synctest.Wait()
	})
}

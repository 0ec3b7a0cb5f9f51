package server

import (
	"bytes"
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/hauberk-mesh/hauberk/identity/identityv1"
	"github.com/hauberk-mesh/hauberk/identity/spiffe"
	"github.com/hauberk-mesh/hauberk/identity/token"
	"github.com/hauberk-mesh/hauberk/identity/trust"
)

// built is a control plane that nobody is connected to. Its clock is now, and its log goes to w.
func built(t *testing.T, dir string, now func() time.Time, w *bytes.Buffer) *wire {
	t.Helper()
	s, err := Build(t.Context(), Config{
		Dir: dir, TrustDomain: testTD, ControlPlane: "one", Now: now, Settle: time.Nanosecond,
		Log: slog.New(slog.NewTextHandler(w, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetAddresses([]string{"127.0.0.1:1"}); err != nil {
		t.Fatal(err)
	}
	return &wire{Server: s, t: t, dir: dir}
}

// TestNothingIsGivenAfterAWithdrawal: whenever a withdrawal or a ban is acknowledged, what is
// being signed by what stood there before is not given out.
func TestNothingIsGivenAfterAWithdrawal(t *testing.T) {
	for what, take := range map[string]func(*wire) error{
		"withdrawn": func(w *wire) error { _, err := w.SetPermitted("n1", nil); return err },
		"banned":    func(w *wire) error { _, err := w.BanNode(token.RoleNode, "n1", "test"); return err },
	} {
		for moment := range int64(8) {
			var w *wire
			var left atomic.Int64
			taken := false
			// Signing asks for the time again and again, and so is there to be interrupted.
			w = built(t, filepath.Join(t.TempDir(), "cp"), func() time.Time {
				if left.Add(-1) == 0 {
					taken = true
					if err := take(w); err != nil {
						t.Error(err)
					}
				}
				return time.Now()
			}, &bytes.Buffer{})
			key := newKey(t)
			pin, err := trust.PinOfKey(key.Public())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.nodes.Put(token.Node{Role: token.RoleNode, Name: "n1", Key: pin, Permitted: []token.Permit{{ID: w.service("api")}}}); err != nil {
				t.Fatal(err)
			}
			id, err := spiffe.ForNode(testTD, "n1")
			if err != nil {
				t.Fatal(err)
			}
			ctx := context.WithValue(t.Context(), peerKey{}, Peer{Identity: spiffe.Identity{ID: id, Kind: spiffe.Node, Name: "n1"}, Key: pin})
			issue := &identityv1.IssueWorkloadRequest{SpiffeId: w.service("api").String(), Csr: w.csr(newKey(t), nil)}
			renew := &identityv1.RenewRequest{Csr: w.csr(key, nil)}
			left.Store(moment + 1)
			if _, err := w.IssueWorkload(ctx, issue); taken && err == nil {
				t.Errorf("%s at moment %d of the signing: a workload's SVID was given", what, moment)
			}
			if !taken {
				left.Store(moment + 1)
				if _, err := w.Renew(ctx, renew); taken && what == "banned" && err == nil {
					t.Errorf("%s at moment %d of the signing: the node's SVID was given", what, moment)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestStrangersSpendNoJoins: who has no token of ours, or not the secret of one, takes no join
// from those who have, and fills no log.
func TestStrangersSpendNoJoins(t *testing.T) {
	var log bytes.Buffer
	w := built(t, filepath.Join(t.TempDir(), "cp"), nil, &log)
	defer w.Close()
	known := w.mint(token.RoleNode, "n1")
	ask := func(id string, secret []byte, csr []byte) error {
		_, err := w.Join(t.Context(), &identityv1.JoinRequest{TokenId: id, Secret: secret, Csr: csr})
		return err
	}
	for range 10 * joinBurst {
		for _, err := range []error{ask("nobody", nil, nil), ask(known.ID, []byte("guessed"), nil)} {
			if status.Code(err) != codes.PermissionDenied {
				t.Fatal(err)
			}
		}
	}
	// Nor does a token that is good, as long as nothing can come of it.
	for range 10 * joinBurst {
		if err := ask(known.ID, known.Secret(), nil); status.Code(err) != codes.InvalidArgument {
			t.Fatal(err)
		}
	}
	if err := ask(known.ID, known.Secret(), w.csr(newKey(t), nil)); err != nil {
		t.Errorf("who has a token: %v", err)
	}
	if n := strings.Count(log.String(), "join refused"); n < 1 || n > 2*refusalBurst {
		t.Errorf("%d lines in the log", n)
	}
}

// TestJoinsAreBounded: those with good tokens are.
func TestJoinsAreBounded(t *testing.T) {
	w := built(t, filepath.Join(t.TempDir(), "cp"), nil, &bytes.Buffer{})
	defer w.Close()
	for w.limits.joins.Allow() {
	}
	tok := w.mint(token.RoleNode, "n1")
	r := &identityv1.JoinRequest{TokenId: tok.ID, Secret: tok.Secret(), Csr: w.csr(newKey(t), nil)}
	if _, err := w.Join(t.Context(), r); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("beyond the budget: %v", err)
	}
	w.limits.joins.SetBurst(joinBurst + 1)
	w.limits.joins.SetLimit(1e9)
	if _, err := w.Join(t.Context(), r); err != nil {
		t.Errorf("the token was used up by a join that was refused: %v", err)
	}
}

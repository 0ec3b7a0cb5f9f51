package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/hauberk-mesh/hauberk/identity/agent"
	"github.com/hauberk-mesh/hauberk/identity/spiffe"
	"github.com/hauberk-mesh/hauberk/identity/svid"
	"github.com/hauberk-mesh/hauberk/identity/tlsconf"
)

// OperatorDirEnv names the directory of the operator's identity.
const OperatorDirEnv = "HAUBERK_OPERATOR_DIR"

// OperatorDir is where `hauberk login` keeps this user's identity.
func OperatorDir() (string, error) {
	if d := os.Getenv(OperatorDirEnv); d != "" {
		return d, nil
	}
	if d := os.Getenv("XDG_STATE_HOME"); d != "" {
		return filepath.Join(d, "hauberk", "operator"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("where the operator's identity is kept: %w; set %s", err, OperatorDirEnv)
	}
	return filepath.Join(home, ".local", "state", "hauberk", "operator"), nil
}

// ErrNotLoggedIn is returned when there is no operator's identity to use.
var ErrNotLoggedIn = errors.New("not logged in: get a token (`hauberk token create --role operator --node NAME`, at the control plane) and run `hauberk login --token-file FILE`")

// renewal bounds how long a command waits for a newer SVID before it goes on
// with the one there is.
const renewal = 5 * time.Second

// OpenOperator opens the identity under dir, joining with a token's text if one
// is given, and renews it when more than half of its life is over. What it
// returns stays good after the state directory is free again.
func OpenOperator(ctx context.Context, dir, token string) (*svid.Snapshot, error) {
	a, err := openAgent(ctx, dir, token)
	if err != nil {
		return nil, err
	}
	defer func() { _ = a.Close() }()
	if snap := a.Snapshot(); token != "" || own(snap) == nil || late(own(snap)) {
		if err := refresh(ctx, a, token != ""); err != nil {
			return nil, err
		}
		if id := a.NodeID(); !isOperator(id) && !id.IsZero() {
			return nil, notAnOperator(dir, id)
		}
	}
	snap := a.Snapshot()
	switch v := own(snap); {
	case v == nil:
		return nil, ErrNotLoggedIn
	case time.Now().After(v.Leaf().NotAfter):
		return nil, fmt.Errorf("the login of %s expired at %s: %w", v.ID, v.Leaf().NotAfter.Format(time.RFC3339), ErrNotLoggedIn)
	}
	return snap, nil
}

// openAgent waits for another command that has the directory.
func openAgent(ctx context.Context, dir, token string) (*agent.Agent, error) {
	if token == "" {
		// Looking must not make a state directory, nor a key in another's.
		if _, err := os.Stat(filepath.Join(dir, "node.json")); errors.Is(err, os.ErrNotExist) {
			return nil, ErrNotLoggedIn
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 2*renewal)
	defer cancel()
	for {
		a, err := agent.Build(agent.Config{StateDir: dir, Token: token, Logger: slog.New(slog.DiscardHandler)})
		if !errors.Is(err, agent.ErrInUse) {
			return a, err
		}
		timer := time.NewTimer(50 * time.Millisecond)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, err
		}
	}
}

// own is the operator's SVID in a snapshot, or nil.
func own(s *svid.Snapshot) *svid.SVID {
	for id, v := range s.SVIDs {
		if x, err := spiffe.Parse(id); err == nil && x.Kind == spiffe.Operator {
			return v
		}
	}
	return nil
}

func late(v *svid.SVID) bool {
	leaf := v.Leaf()
	return time.Now().After(leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2))
}

// refresh runs the agent until it has joined, or has a newer SVID. A control
// plane that does not answer is no obstacle to using what there is.
func refresh(ctx context.Context, a *agent.Agent, joining bool) error {
	before := ""
	if v := own(a.Snapshot()); v != nil && !joining {
		before = v.Leaf().SerialNumber.String()
	}
	ctx, cancel := context.WithTimeout(ctx, renewal)
	defer cancel()
	ran := make(chan error, 1)
	go func() { ran <- a.Run(ctx) }()
	defer func() { cancel(); <-ran }()
	for {
		changed := a.Changed()
		if v := own(a.Snapshot()); v != nil && v.Leaf().SerialNumber.String() != before {
			return nil
		}
		if id := a.NodeID(); joining && !id.IsZero() && !isOperator(id) {
			return nil // the caller refuses it
		}
		select {
		case <-changed:
		case err := <-ran:
			ran <- err
			return err
		case <-ctx.Done():
			if joining {
				return fmt.Errorf("no control plane answered within %s: %s", renewal, a.Status().LastError)
			}
			return nil
		}
	}
}

// OperatorTLS makes a configuration from the operator's identity that talks to
// control planes of its trust domain, and to nothing else.
func OperatorTLS(ctx context.Context) (*tls.Config, error) {
	dir, err := OperatorDir()
	if err != nil {
		return nil, err
	}
	snap, err := OpenOperator(ctx, dir, "")
	if err != nil {
		return nil, err
	}
	return tlsconf.Client(tlsconf.ClientParams{
		Source: svid.NewHolder(snap),
		ID:     own(snap).ID.String(),
		Authorize: func(peer spiffeid.ID) error {
			id, err := spiffe.Of(peer)
			if err != nil || id.Kind != spiffe.ControlPlane {
				return fmt.Errorf("%s is not a control plane", peer)
			}
			return nil
		},
	})
}

// Login joins as an operator and returns the SVID.
func Login(ctx context.Context, dir, token string) (*svid.SVID, error) {
	if snap, err := OpenOperator(ctx, dir, ""); err == nil {
		return nil, fmt.Errorf("you are %s already; `hauberk logout` first to be another", own(snap).ID)
	}
	snap, err := OpenOperator(ctx, dir, token)
	if err != nil {
		return nil, err
	}
	return own(snap), nil
}

// notAnOperator is what a node's token leads to. The token is used up, and what
// it brought must not stay.
func notAnOperator(dir string, id spiffeid.ID) error {
	return errors.Join(fmt.Errorf("the token is for %s, not for an operator: it is used up; make one with `hauberk token create --role operator`", id), agent.Forget(dir))
}

func isOperator(id spiffeid.ID) bool {
	x, err := spiffe.Of(id)
	return err == nil && x.Kind == spiffe.Operator
}

// Forget removes the operator's identity, and nothing that is not an agent's state.
func Forget(dir string) error {
	a, err := openAgent(context.Background(), dir, "")
	if err != nil {
		return err // not a state directory, or one in use
	}
	defer func() { _ = a.Close() }()
	if !isOperator(a.NodeID()) {
		return fmt.Errorf("%s holds no operator's identity and is left as it is: %w", dir, ErrNotLoggedIn)
	}
	return agent.Forget(dir)
}

package server

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hauberk-mesh/hauberk/identity/identityv1"
	"github.com/hauberk-mesh/hauberk/identity/spiffe"
	"github.com/hauberk-mesh/hauberk/identity/token"
	"github.com/hauberk-mesh/hauberk/identity/trust"
	"github.com/hauberk-mesh/hauberk/identity/verify"
)

// rotate is what the server does each second.
func (w *wire) rotate(now *time.Time, times int) {
	w.t.Helper()
	for range times {
		w.publishSigners()
		if err := w.rotateSigner(); err != nil {
			w.t.Fatal(err)
		}
		*now = now.Add(time.Second)
	}
}

// issues says whether what is signed now is good now.
func (w *wire) issues(now time.Time) error {
	w.t.Helper()
	chain, err := w.sign(w.csr(newKey(w.t), nil), w.service("api"), "n1")
	if err != nil {
		return err
	}
	certs, err := identityv1.ParseChain(chain)
	if err != nil {
		return err
	}
	_, err = verify.Chain(testTD, w.ca.Bundle().Anchors(), certs, now)
	return err
}

// TestClockThatWasAhead: a signer that was made while the clock was months ahead does not sign
// before its time, and does not keep the one before it from signing, nor another from following.
func TestClockThatWasAhead(t *testing.T) {
	began := time.Now()
	for _, ahead := range []time.Duration{200 * 24 * time.Hour, 300 * 24 * time.Hour, 400 * 24 * time.Hour} {
		now := began
		w := built(t, filepath.Join(t.TempDir(), "cp"), func() time.Time { return now }, &bytes.Buffer{})
		now = began.Add(ahead)
		w.rotate(&now, 5)
		now = began.Add(time.Hour)
		if err := w.issues(now); err != nil {
			t.Errorf("%s ahead, and set again: %v", ahead, err)
		}
		w.rotate(&now, 5)
		if err := w.issues(now); err != nil {
			t.Errorf("%s ahead, and an hour later: %v", ahead, err)
		}
		for _, k := range w.ca.Signers() {
			if k.State == trust.Active && k.Certificate.NotBefore.After(now) {
				t.Errorf("%s ahead: the active signer is valid from %s on", ahead, k.Certificate.NotBefore)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestOwnSVIDAfterTheClockIsSet: what the port presents is good again soon, without a restart.
func TestOwnSVIDAfterTheClockIsSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ahead time.Duration
		dir := filepath.Join(t.TempDir(), "cp")
		clock := func() time.Time { return time.Now().Add(ahead) }
		if err := built(t, dir, clock, &bytes.Buffer{}).Close(); err != nil { // which made the signer
			t.Fatal(err)
		}
		ahead = 90 * 24 * time.Hour
		w := built(t, dir, clock, &bytes.Buffer{})
		defer w.Close()
		ahead = 0
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); w.keepSelf(ctx) }()
		time.Sleep(2 * time.Minute)
		if leaf := w.ownSVID().Leaf(); leaf.NotBefore.After(time.Now()) {
			t.Errorf("two minutes after the clock was set the own SVID is good from %s on", leaf.NotBefore)
		}
		cancel()
		<-done
	})
}

// TestSignerThatExpiredWhileOff: a control plane that is alone begins anew, and says so. One of
// several says what it needs.
func TestSignerThatExpiredWhileOff(t *testing.T) {
	now := time.Now()
	clock := func() time.Time { return now }
	dir := filepath.Join(t.TempDir(), "cp")
	var log bytes.Buffer
	w := built(t, dir, clock, &log)
	first := w.CAStatus().Signing
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	now = now.Add(400 * 24 * time.Hour)
	w = built(t, dir, clock, &log)
	if err := w.issues(now); err != nil || w.CAStatus().Signing == first {
		t.Errorf("it signs with %s: %v", w.CAStatus().Signing, err)
	}
	if !strings.Contains(log.String(), "every node and operator has to join again") {
		t.Errorf("it says %q", log.String())
	}
	other := &identityv1.ControlPlane{SpiffeId: "spiffe://" + testTD.Name() + "/hauberk/controlplane/two", Revision: 1}
	if err := errors.Join(w.peers.merge([]*identityv1.ControlPlane{other}), w.Close()); err != nil {
		t.Fatal(err)
	}
	now = now.Add(400 * 24 * time.Hour)
	_, err := Build(t.Context(), Config{Dir: dir, TrustDomain: testTD, ControlPlane: "one", Now: clock})
	if err == nil {
		t.Fatal("one of several has a signer that the others do not know")
	}
	for _, want := range []string{"expired at", "the clock here says", "hauberk token create --role controlplane --node one"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %q: %v", want, err)
		}
	}
}

// TestSignerThatExpiresWhileItRuns: a host that was suspended for a year is no different.
func TestSignerThatExpiresWhileItRuns(t *testing.T) {
	now := time.Now()
	w := built(t, filepath.Join(t.TempDir(), "cp"), func() time.Time { return now }, &bytes.Buffer{})
	defer w.Close()
	now = now.Add(400 * 24 * time.Hour)
	w.rotate(&now, 5)
	if err := w.issues(now); err != nil {
		t.Error(err)
	}
	if _, _, err := w.MintToken(token.Spec{Role: token.RoleNode, Name: "n1"}); err != nil {
		t.Errorf("nobody can join: %v", err)
	}
}

// TestRotationThatWaitsIsTold: a control plane that is gone holds up the rotation until it is
// removed, and is named.
func TestRotationThatWaitsIsTold(t *testing.T) {
	const day = 24 * time.Hour
	began := time.Now()
	now := began
	w := built(t, filepath.Join(t.TempDir(), "cp"), func() time.Time { return now }, &bytes.Buffer{})
	defer w.Close()
	two, err := spiffe.ForControlPlane(testTD, "two")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.peers.merge([]*identityv1.ControlPlane{{SpiffeId: two.String(), Revision: 1}}); err != nil {
		t.Fatal(err)
	}
	first := w.CAStatus().Signing
	for i, told := range []struct {
		days int
		want bool
	}{{1, false}, {200, false}, {242, false}, {244, true}, {300, true}} {
		now = began.Add(time.Duration(told.days) * day)
		w.rotate(&now, 5)
		why := w.RotationHeld()
		if (why != "") != told.want || told.want && !strings.Contains(why, two.String()+" to have it") {
			t.Errorf("%d: after %d days: %q", i, told.days, why)
		}
	}
	if got := w.CAStatus().Signing; got != first {
		t.Errorf("%s signs, which a control plane does not know", got)
	}
	if err := w.RemoveControlPlane(two); err != nil {
		t.Fatal(err)
	}
	w.rotate(&now, 5)
	if got := w.CAStatus().Signing; got == first || w.RotationHeld() != "" {
		t.Errorf("after the removal: %s signs, %q", got, w.RotationHeld())
	}
}

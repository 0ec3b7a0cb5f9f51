package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/controlplane/server"
	controlplaneapi "github.com/hauberk-mesh/hauberk/controlplane/server/api"
	"github.com/hauberk-mesh/hauberk/controlplane/server/servertest"
)

// TestRemoveAControlPlane: an operator withdraws the signer of another control plane, and removes
// one that is gone, and nothing is said of it any more.
func TestRemoveAControlPlane(t *testing.T) {
	one := servertest.Start(t, nil, atOnce)
	b := &bed{t: t, addr: one.Socket}
	until(t, func() string { out, errs, _ := b.run("token", "list"); return without(out+errs, "TOKEN") })
	joinToken, errs, code := b.run("token", "create", "--node", "cp2", "--role", "controlplane")
	if code != 0 {
		t.Fatal(errs)
	}
	two := servertest.Start(t, nil, func(c *server.Config) { c.ID, c.JoinToken = "cp2", strings.TrimSpace(joinToken) })
	signer := func(owner string) (found controlplaneapi.Signer) {
		out, _, _ := b.run("ca", "show", "-o", "json")
		var ca controlplaneapi.CA
		if err := json.Unmarshal([]byte(out), &ca); err != nil {
			t.Fatal(err)
		}
		for _, s := range ca.Signers {
			if s.Owner == owner {
				found = s
			}
		}
		return found
	}
	until(t, func() string {
		if s := signer("cp2"); s.State != "active" {
			return "the second one's signer is " + s.State
		}
		return ""
	})
	two.Stop()
	until(t, func() string {
		out, _, _ := b.run("status")
		return without(out, "controlplane/cp2 says: last confirmed", "hauberk ca remove NAME")
	})
	if _, errs, code := b.run("ca", "withdraw", signer("cp2").ID); code != 0 || without(errs, "withdrew signer "+signer("cp2").ID) != "" {
		t.Errorf("withdraw: %d %s", code, errs)
	}
	if s := signer("cp2"); s.State != "withdrawn" {
		t.Errorf("the signer is %s", s.State)
	}
	if _, errs, code := b.run("ca", "withdraw", signer("cp1").ID); code != 2 || without(errs, "the trust bundle would be empty") != "" {
		t.Errorf("the last one: %d %s", code, errs)
	}
	if _, errs, code := b.run("ca", "remove", "cp2"); code != 0 || errs != "removed control plane cp2\n" {
		t.Errorf("remove: %d %s", code, errs)
	}
	if out, _, _ := b.run("status"); strings.Contains(out, "controlplane/cp2 says") {
		t.Errorf("it is removed, and missed:\n%s", out)
	}
	if _, errs, code := b.run("ca", "remove", "cp2"); code != 2 || without(errs, "is not known here") != "" {
		t.Errorf("again: %d %s", code, errs)
	}
}

// TestRevokeToken: a token that is revoked is of no use.
func TestRevokeToken(t *testing.T) {
	cp := servertest.Start(t, nil)
	b := &bed{t: t, addr: cp.Socket}
	out, errs, code := b.run("token", "create", "--node", "alice", "--role", "operator", "-o", "json")
	var made controlplaneapi.TokenReply
	if err := json.Unmarshal([]byte(out), &made); err != nil || code != 0 {
		t.Fatalf("%v %s", err, errs)
	}
	if _, errs, code := b.run("token", "revoke", made.ID); code != 0 || errs != "revoked token "+made.ID+"\n" {
		t.Errorf("%d %s", code, errs)
	}
	if out, _, _ := b.run("token", "list"); strings.Contains(out, made.ID) {
		t.Error(out)
	}
	if _, errs, code := b.run("token", "revoke", made.ID); code != 2 || !strings.Contains(errs, made.ID) {
		t.Errorf("again: %d %s", code, errs)
	}
}

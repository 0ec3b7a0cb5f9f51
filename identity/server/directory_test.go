package server

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/hauberk-mesh/hauberk/identity/identityv1"
	"github.com/hauberk-mesh/hauberk/identity/spiffe"
)

// TestWhereARestoredControlPlaneIs: it knows that itself, whatever the others have of the life
// before its backup was restored; a removal stands.
func TestWhereARestoredControlPlaneIs(t *testing.T) {
	id, err := spiffe.ForControlPlane(testTD, "two")
	if err != nil {
		t.Fatal(err)
	}
	for _, before := range []uint64{1, 2, 3, 9} {
		open := func() *directory {
			d, err := openDirectory(filepath.Join(t.TempDir(), "controlplanes.json"), testTD)
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
		other, restored := open(), open()
		entry := &identityv1.ControlPlane{SpiffeId: id.String(), Addresses: []string{"10.0.0.1:1"}, Revision: before}
		if err := other.merge([]*identityv1.ControlPlane{entry}); err != nil {
			t.Fatal(err)
		}
		entry.Revision = 1 // in the backup
		if err := restored.merge([]*identityv1.ControlPlane{entry}); err != nil {
			t.Fatal(err)
		}
		here := []string{"10.0.0.2:1"}
		if err := restored.setOwn(id, here); err != nil {
			t.Fatal(err)
		}
		agree := func() {
			for range 3 {
				if err := restored.merge(other.wire(true)); err != nil {
					t.Fatal(err)
				}
				if err := other.merge(restored.wire(true)); err != nil {
					t.Fatal(err)
				}
			}
		}
		agree()
		for who, d := range map[string]*directory{"the other": other, "itself": restored} {
			if got := d.entry(id).GetAddresses(); !slices.Equal(got, here) {
				t.Errorf("revision %d before: to %s it is at %v", before, who, got)
			}
		}
		// It moves while it is removed.
		if err := restored.setOwn(id, []string{"10.0.0.3:1"}); err != nil {
			t.Fatal(err)
		}
		if err := other.remove(id); err != nil {
			t.Fatal(err)
		}
		agree()
		if restored.has(id) || other.has(id) {
			t.Errorf("revision %d before: a removal does not stand", before)
		}
	}
}

// TestTwoControlPlanesOfOneID: they do not drive each other's revision up for ever.
func TestTwoControlPlanesOfOneID(t *testing.T) {
	id, err := spiffe.ForControlPlane(testTD, "two")
	if err != nil {
		t.Fatal(err)
	}
	var both [2]*directory
	for i, at := range []string{"10.0.0.1:1", "10.0.0.2:1"} {
		if both[i], err = openDirectory(filepath.Join(t.TempDir(), "controlplanes.json"), testTD); err != nil {
			t.Fatal(err)
		}
		if err := both[i].setOwn(id, []string{at}); err != nil {
			t.Fatal(err)
		}
	}
	for range 20 {
		for i := range both {
			if err := both[i].merge(both[1-i].wire(true)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := both[0].entry(id).GetRevision(); n > 5 {
		t.Errorf("revision %d", n)
	}
}

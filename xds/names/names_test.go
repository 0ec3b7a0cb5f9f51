package names

import (
	"testing"

	"github.com/hauberk-mesh/hauberk/identity/workloadapi"
)

// What resources ask for by SDS is what the host socket serves.
func TestSecretNamesAreTheHostSockets(t *testing.T) {
	if DefaultSecret != workloadapi.DefaultSecret || RootSecret != workloadapi.RootSecret {
		t.Errorf("resources name %q and %q, the host socket serves %q and %q",
			DefaultSecret, RootSecret, workloadapi.DefaultSecret, workloadapi.RootSecret)
	}
}

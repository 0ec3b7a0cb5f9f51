//go:build mutate

package house

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// mutations take one defence out of the code each. old stands in the file once.
var mutations = []struct {
	what, file, old, new string
	pkg, test            string
}{
	{"reserved IDs in tokens", "identity/token/spec.go", "if spiffe.Reserved(p.ID) {", "if false {", "identity/token", "TestSpec"},
	{"a token's expiry", "identity/token/store.go", "if !now.Before(rec.Expires) {", "if false {", "identity/token", "TestConsumeErrors"},
	{"a token's secret", "identity/token/store.go", "if subtle.ConstantTimeCompare(given[:], hash) != 1 {", "if false && subtle.ConstantTimeCompare(given[:], hash) != 1 {", "identity/server", "TestTokenIsGoodOnce"},
	{"a token's use is stored", "identity/token/store.go", "switch err := s.create(s.path(id, usedExt), data); {", "switch err := func() error { _ = data; return nil }(); {", "identity/token", "TestConsumeOnce"},
	{"its use is stored before the reply", "identity/token/store.go", "return Record{}, fmt.Errorf(\"token %s: its use cannot be stored, so it is refused: %w\", id, err)", "", "identity/token", "TestConsumeNeedsTheDisk"},
	{"a token's text", "identity/token/token.go", "func (t Token) String() string { return prefix + \".\" + t.ID + \".REDACTED\" }", "func (t Token) String() string { return t.Reveal() }", "identity/token", "TestSecretStaysIn"},
	{"the pin", "identity/tlsconf/pinned.go", "if i > 0 && pin == p.Pin {", "if i > 0 {", "identity/tlsconf", "TestPinnedClient"},
	{"modes of state files", "identity/internal/statedir/statedir.go", "extra := info.Mode().Perm() &^ allowed; extra != 0", "extra := info.Mode().Perm() &^ allowed; extra != 0 && false", "identity/agent", "TestStateDirectoryIsPrivate"},
	{"roles on 15012", "identity/server/auth.go", "if !slices.Contains(roles, who.role()) {", "if false && !slices.Contains(roles, who.role()) {", "identity/server", "TestWhoMayCallWhat"},
	{"certificates on 15012", "identity/server/auth.go", "if method == identityv1.Identity_Join_FullMethodName {", "if method != \"\" {", "identity/server", "TestWhoMayCallWhat"},
	{"the node's record", "identity/server/issue.go", "if p.ID == id {", "if p.ID == p.ID || p.ID == id {", "identity/server", "TestWhatANodeIsNotGiven"},
	{"bans", "identity/server/auth.go", "		return status.Errorf(codes.PermissionDenied, \"%s is banned: %s\", who.ID, rec.BanReason)", "		return nil", "identity/server", "TestWhatANodeIsNotGiven"},
	{"names of a CSR", "identity/ca/issue.go", "c.sign(r.ID,", "c.sign(func() spiffeid.ID {\n		if len(csr.URIs) > 0 {\n			return spiffeid.RequireFromString(csr.URIs[0].String())\n		}\n		return r.ID\n	}(),", "identity/server", "TestNamesComeFromTheRecord"},
	{"TLS 1.3", "identity/tlsconf/tlsconf.go", "MinVersion: tls.VersionTLS13,", "MinVersion: tls.VersionTLS12,", "identity/tlsconf", "TestTLS12"},
	{"hybrid first", "identity/tlsconf/tlsconf.go", "tls.X25519MLKEM768, tls.SecP256r1MLKEM768, tls.SecP384r1MLKEM1024, tls.X25519,", "tls.X25519,", "identity/tlsconf", "TestHandshake"},
	{"no tickets", "identity/tlsconf/tlsconf.go", "SessionTicketsDisabled: true,", "SessionTicketsDisabled: false,", "identity/tlsconf", "TestResumedSessionIsRefused"},
	{"the server's verdict on its client", "identity/tlsconf/tlsconf.go", "return admit(snapshot, cs, p.Authorize, clock())", "return nil", "identity/tlsconf", "TestRefusals"},
	{"the client's verdict on its server", "identity/tlsconf/tlsconf.go", "return admit(s, cs, p.Authorize, now)", "return nil", "identity/tlsconf", "TestRefusals"},
	{"the leaf's own trust domain", "identity/verify/verify.go", "if id.TrustDomain() != td {", "if false {", "identity/verify", "TestOnlyTheLeafsOwnTrustDomain|TestChainShape"},
	{"a node's own configuration", "controlplane/view/build.go", "if !slices.Contains(b.client.Permitted, id) {", "if false && !slices.Contains(b.client.Permitted, id) {", "controlplane/view", "TestANodeSeesOnlyItsOwn"},
	{"what an attested caller is entitled to", "controlplane/view/build.go", "if b.client.Entitled != nil && !slices.Contains(b.client.Entitled, id) {", "if false {", "controlplane/view", "TestANodeSeesOnlyItsOwn"},
	{"the relay vouches", "xds/relay/relay.go", "md.Fields[names.MetadataEntitled] = structpb.NewListValue(list)", "", "xds/relay", "TestTheNodeIsVouchedFor"},
	{"keys in ADS", "xds/ads/due.go", "if ts.url == resource.SecretType {", "if false {", "xds/ads", "TestSecretsNeverTravel"},
	{"operators only on 15014", "controlplane/server/guard.go", "whoIs(r) != operator {", "false {", "controlplane/server", "TestGuard"},
	{"Host on 15014", "controlplane/server/guard.go", "if !g.hostAllowed(r.Host) {", "if false {", "controlplane/server", "TestGuard"},
	{"Origin on 15014", "controlplane/server/guard.go", "o != \"\" && !sameOrigin(o, r.Host)", "false && !sameOrigin(o, r.Host)", "controlplane/server", "TestGuard"},
	{"a new deny", "sidecar/listener/listener.go", "if d := c.network.CheckConn(&t.conn.AuthzPeer); !d.Allowed {", "if d := c.network.CheckConn(&t.conn.AuthzPeer); false {", "sidecar/listener", "TestNewDenyClosesLiveConnection"},
	{"a withdrawn signer", "sidecar/identity.go", "s.signersWithdrawn(td, before, after)", "", "sidecar", "TestWithdrawnSignerClosesConnections"},
	{"an expired certificate", "sidecar/listener/listener.go", "if info.PeerNotAfter.IsZero() || now.Before(info.PeerNotAfter) {", "if true {", "sidecar/listener", "TestExpiredPeerCertificate"},
	{"an authentic cache", "xds/client/cache/cache.go", "append(header(), c.owner...))\n	if err != nil {", "append(header(), c.owner...))\n	if false {", "xds/client/cache", "TestEveryByteCounts"},
	{"a refused body", "sidecar/http1/body.go", "if d.refused != nil {", "if false {", "sidecar/http1", "TestErrorsStay"},
	{"malformed bodies before the origin", "sidecar/hcm/exchange.go", "if _, _, ok := refusal(err); ok {\n				return err\n			}", "", "sidecar/hcm", "TestBodyRefusedBeforeItIsForwarded"},
	{"bodies in time", "sidecar/hcm/attempt.go", "hard = min(hard, x.receiveBy())", "", "sidecar/hcm", "TestRequestTimeoutOfStreamedBodies"},
	{"the Workload API's header", "identity/workloadapi/limits.go", "if v := md.Get(headerName); len(v) != 1 || v[0] != headerValue {", "if v := md.Get(headerName); len(v) > 9 {", "identity/workloadapi", "TestHeaderIsNeeded"},
}

// TestDefencesAreTested takes each defence out in turn: its test must fail.
func TestDefencesAreTested(t *testing.T) {
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mutations {
		t.Run(m.what, func(t *testing.T) {
			file := filepath.Join(root, m.file)
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(b), m.old); n != 1 {
				t.Fatalf("%s holds %q %d times, want once: the list is out of date", m.file, m.old, n)
			}
			dir := t.TempDir()
			changed := filepath.Join(dir, "changed.go")
			if err := os.WriteFile(changed, []byte(strings.Replace(string(b), m.old, m.new, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{file: changed}})
			if err != nil {
				t.Fatal(err)
			}
			list := filepath.Join(dir, "overlay.json")
			if err := os.WriteFile(list, overlay, 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("go", "test", "-vet=off", "-overlay", list, "-count=1", "-timeout", "90s", "-run", "^("+m.test+")$", "./"+m.pkg)
			cmd.Dir = root
			out, err := cmd.CombinedOutput()
			switch {
			case err == nil:
				t.Errorf("%s passes without it", m.test)
			case !strings.Contains(string(out), "--- FAIL") && !strings.Contains(string(out), "panic:"):
				t.Errorf("not a failing test:\n%s", out)
			}
		})
	}
}

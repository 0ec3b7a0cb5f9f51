package house

import (
	"os"
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
	{"secrets of the network", "sidecar/config/bootstrap.go", "if r.File != \"\" || b.SecretSockets[r.Cluster] != \"\" {", "if true {", "sidecar", "TestSecretsThatCannotCome"},
	{"a control plane's names and files'", "sidecar/config/source.go", "marked && err == nil {", "marked && false {", "sidecar/config", "TestSources"},
	{"files of resources that are pipes", "sidecar/files/files.go", "!info.Mode().IsRegular() {", "info == nil {", "sidecar/files", "TestLoad"},
	{"files that are being written", "sidecar/files/files.go", "if f.still && now == f.glanced {", "if f.read || f.still && now == f.glanced {", "sidecar/files", "TestHalfWritten"},
	{"what follows other ends of lines", "sidecar/config/document.go", "&& !foreign.Match(text)", "", "sidecar/config", "TestOneDocument"},
	{"what follows an indented document", "sidecar/config/document.go", "return leftmost.Match(text) &&", "return", "sidecar/config", "TestOneDocument"},
	{"a discovered secret's service", "sidecar/secrets/store.go", "	if socket == \"\" {", "	if false {", "sidecar/secrets", "TestNoSuchService"},
	{"a secret that verifies nobody", "sidecar/config/secret.go", "if err == nil && out.Validation != nil && out.Validation.AcceptUntrusted {", "if false {", "sidecar/config", "TestSecretFile"},
	{"no handshake before its secret", "sidecar/tlscontext/context.go", "			if s.absent != nil {\n				return nil, s.absent\n			}\n			if len(h.SupportedProtos)", "			if len(h.SupportedProtos)", "sidecar/tlscontext", "TestAbsentSecret"},
	{"a key in an error of a file", "sidecar/config/secret.go", "fmt.Errorf(\"resources[0]: %w\", unquoted(err))", "fmt.Errorf(\"resources[0]: %w\", err)", "sidecar/config", "TestSecretFile"},
	{"a pipe in the place of a file", "sidecar/tlscontext/material.go", "err != nil || !info.Mode().IsRegular()", "err != nil || false && !info.Mode().IsRegular()", "sidecar/tlscontext", "TestOnlyFilesAreRead"},
	{"a log's pipe without a reader", "sidecar/telemetry/logfile.go", "|syscall.O_NONBLOCK, 0o640)", "|0*syscall.O_NONBLOCK, 0o640)", "sidecar/telemetry", "TestPipeThatNobodyReads"},
	{"the end of a document", "sidecar/config/document.go", "case err != nil, !first && !empty(&doc):", "case err != nil:", "sidecar/config", "TestOneDocument"},
	{"the cost of aliases", "sidecar/config/document.go", "!affordable(&doc, &budget, 0)", "false && !affordable(&doc, &budget, 0)", "sidecar/config", "TestOneDocument"},
	{"a secret of another kind", "sidecar/tlscontext/discovered.go", "if r.Validation != (d.Validation != nil) {", "if false {", "sidecar", "TestSecretsOfAService"},
	{"a key in an error of a bootstrap", "sidecar/config/quoted.go", "if u.reason.MatchString(reason) {", "if false {", "sidecar/config", "TestNoKeyIsQuoted"},
	{"a key in the place of a path", "sidecar/config/quoted.go", "return strings.Contains(name, pem) || strings.ContainsAny(name, \"\\n\\r\\x00\")", "return false", "sidecar/config", "TestSecretFile|TestNoKeyIsQuoted"},
	{"a secret service that sends without end", "xds/sds/sds.go", "pause(ctx, turn); ctx.Err()", "ctx.Err()", "xds/sds", "TestEndlessService"},
	{"dots with parameters", "sidecar/hcm/path.go", "n < len(segment) && segment[n] != ';'", "n < len(segment)", "sidecar/hcm", "TestPathRules"},
	{"a peer's own trust domain's bundle", "sidecar/tlscontext/verify.go", "	roots := v.trust[id.TrustDomain().Name()]", "	roots, _ := v.roots, id", "sidecar/tlscontext", "TestTrustDomains"},
	{"keys in ADS", "xds/ads/due.go", "if ts.url == resource.SecretType {", "if false {", "xds/ads", "TestSecretsNeverTravel"},
	{"operators only on 15014", "controlplane/server/guard.go", "whoIs(r) != operator {", "false {", "controlplane/server", "TestGuard"},
	{"Host on 15014", "controlplane/server/guard.go", "if !g.hostAllowed(r.Host) {", "if false {", "controlplane/server", "TestGuard"},
	{"Origin on 15014", "controlplane/server/guard.go", "o != \"\" && !sameOrigin(o, r.Host)", "false && !sameOrigin(o, r.Host)", "controlplane/server", "TestGuard"},
	{"a new deny", "sidecar/listener/recheck.go", "if d := c.network.CheckConn(&t.conn.Peer); !d.Allowed {", "if d := c.network.CheckConn(&t.conn.Peer); false {", "sidecar/listener", "TestNewDenyClosesLiveConnection"},
	{"bytes that nobody asked for", "sidecar/stream/socket.go", "	if x.look {", "	if false {", "sidecar/stream", "TestExchangeLooks"},
	{"the same over TLS", "sidecar/stream/exchange.go", "	if x.look {", "	if false {", "sidecar/stream", "TestExchangeLooks"},
	{"a rule that an update enables", "sidecar/hcm/policy.go", "p != nil && p != x.m.shown {", "false && p != x.m.shown {", "sidecar/listener", "TestRuleEnabledByUpdate"},
	{"a withdrawal while a connection is made", "sidecar/cluster/pool.go", "err == nil && covers(withdrawn, p.source, conn.Info())", "false && covers(withdrawn, p.source, conn.Info())", "sidecar/cluster", "TestWithdrawnWhileConnecting"},
	{"a TLS context that was only tried", "sidecar/cluster/undo.go", "if s.tlsGeneration != tried.tlsGeneration {", "if false {", "sidecar/cluster", "TestFaultKeepsContextsApart"},
	{"connections of hosts that have gone", "sidecar/cluster/withdraw.go", "return m.departed.all(out)", "return out", "sidecar/cluster", "TestCloseConnsOfTheDeparted"},
	{"all names of a foreign peer", "sidecar/authz/matcher.go", "	names := info.Peer.Names()\n", "	names := info.Peer.Names()[:0:0]\n", "sidecar/listener", "TestNamesOfForeignPeers"},
	{"a withdrawn signer", "sidecar/identity.go", "s.signersWithdrawn(td, before, after)", "", "sidecar", "TestWithdrawnSignerClosesConnections"},
	{"an expired certificate", "sidecar/listener/recheck.go", "if info.PeerNotAfter.IsZero() || now.Before(info.PeerNotAfter) {", "if true {", "sidecar/listener", "TestExpiredPeerCertificate"},
	{"an authentic cache", "xds/client/cache/cache.go", "append(header(), c.owner...))\n	if err != nil {", "append(header(), c.owner...))\n	if false {", "xds/client/cache", "TestEveryByteCounts"},
	{"a pump that runs", "sidecar/hcm/pump.go", "x.ownPump == nil || !x.ownPump.ended()", "x.ownPump == nil", "sidecar/hcm", "TestPumpStartsAnew"},
	{"pieces of another body", "sidecar/hcm/pump.go", "p.held = nil, nil, p.held[:0]", "p.held = nil, nil, p.held", "sidecar/hcm", "TestHeldPiecesAreForgotten"},
	{"pieces in a used input", "sidecar/http2/reader.go", "			s.settle()\n			s.readable()", "			s.readable()", "sidecar/http2", "TestPipeOfPieces"},
	{"a window's unread pieces", "sidecar/http2/stream.go", "	s.settle()\n	if s.err == nil {", "	if s.err == nil {", "sidecar/http2", "TestUnreadPieces"},
	{"a refused body", "sidecar/http1/body.go", "if d.refused != nil {", "if false {", "sidecar/http1", "TestErrorsStay"},
	{"malformed bodies before the origin", "sidecar/hcm/exchange.go", "			return err\n		}\n		x.received", "			return nil\n		}\n		x.received", "sidecar/hcm", "TestBodyRefusedBeforeItIsForwarded"},
	{"bodies in time", "sidecar/hcm/attempt.go", "hard = min(hard, x.receiveBy())", "", "sidecar/hcm", "TestRequestTimeoutOfStreamedBodies"},
	{"the Workload API's header", "identity/workloadapi/limits.go", "if v := md.Get(headerName); len(v) != 1 || v[0] != headerValue {", "if v := md.Get(headerName); len(v) > 9 {", "identity/workloadapi", "TestHeaderIsNeeded"},
	{"who is a control plane", "identity/agent/connection.go", "if id.Kind != spiffe.ControlPlane || peer.TrustDomain() != a.TrustDomain() {", "if false && id.Kind != spiffe.ControlPlane {", "identity/agent", "TestOnlyAControlPlaneAnswersForTheMesh"},
	{"a token goes to a control plane", "identity/tlsconf/pinned.go", "if who, err := spiffe.Of(id); err != nil || who.Kind != spiffe.ControlPlane {", "if who, err := spiffe.Of(id); false && (err != nil || who.Kind != spiffe.ControlPlane) {", "identity/tlsconf", "TestPinnedClient"},
	{"no token in the arguments", "cmd/hauberk-sidecar/options.go", "	f.StringVar(&o.tokenFile, ", "	f.StringVar(&o.token, \"token\", \"\", \"join token\")\n	f.StringVar(&o.tokenFile, ", "cmd/hauberk-sidecar", "TestTokenIsNoFlag"},
	{"only the token's hash", "identity/token/store.go", "Hash: hex.EncodeToString(hash[:]),", "Hash: hex.EncodeToString(append(hash[:0:0], secret[:]...)),", "identity/server", "TestNothingSecretLiesInTheStateDirectory"},
	{"the key on record renews", "identity/server/issue.go", "case rec.Key == who.Key:", "case true:", "identity/server", "TestTheKeyOnRecordDecides"},
	{"the key on record issues", "identity/server/auth.go", "if rec.Key != who.Key && method", "if false && method", "identity/server", "TestTheKeyOnRecordDecides"},
	{"AEAD in TLS 1.2", "identity/tlsconf/tlsconf.go", "cfg.CipherSuites = []uint16{", "cfg.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA,", "identity/tlsconf", "TestTLS12"},
	{"one name in an SVID", "identity/verify/verify.go", "if len(leaf.URIs) != 1 {", "if len(leaf.URIs) < 1 {", "identity/verify", "TestLeafRules"},
	{"one spelling of an SVID's ID", "identity/verify/verify.go", "len(written) != 1 || written[0] != claimed", "len(written) != 1", "identity/verify", "TestLeafRules"},
	{"a peer's URI as it is spelt", "sidecar/tlscontext/verify.go", "slices.ContainsFunc(altname.URIs(c), m.Match.Match)", "slices.ContainsFunc(altname.URIs(c), func(n string) bool { return m.Match.Match(strings.ToLower(n)) })", "sidecar/tlscontext", "TestVerification"},
	{"a CA is no peer", "identity/verify/verify.go", "	if leaf.IsCA {", "	if false {", "identity/verify", "TestLeafRules"},
	{"both purposes", "identity/verify/verify.go", "if !bothPurposes(leaf) {", "if false {", "identity/verify", "TestLeafRules"},
	{"a signer's name", "identity/verify/verify.go", "if u.Path != \"\" {", "if false {", "identity/verify", "TestSignerRules"},
	{"expiry", "identity/verify/verify.go", "		CurrentTime:   now,", "		CurrentTime:   chain[0].NotBefore,", "identity/verify", "TestTime"},
	{"the admitted signer's key", "identity/server/sync.go", "if err := ca.CheckProof(signer, identityv1.AdmitDigest(who.ID, r.GetSigner()), r.GetProof()); err != nil {", "if err := ca.CheckProof(signer, identityv1.AdmitDigest(who.ID, r.GetSigner()), r.GetProof()); false {", "identity/server", "TestAdmissionNeedsTheSignersKey"},
	{"the admitted one's own entry", "identity/server/sync.go", "if r.GetControlPlane().GetSpiffeId() != who.ID.String() {", "if false {", "identity/server", "TestAdmissionNeedsTheSignersKey"},
	{"in every bundle before it signs", "identity/server/published.go", "all = all && p.peers[peer][signer]", "_ = peer", "identity/server", "TestPublishedBeforeItSigns"},
	{"keys in errors", "sidecar/tlscontext/material.go", "-nocrypt`\", name, block.Type)", "-nocrypt`\", name, block.Type+string(data))", "sidecar/tlscontext", "TestKeyStaysIn"},
	{"selectors", "identity/selector/selector.go", "		if !x.Matches(f) {", "		if false && !x.Matches(f) {", "identity/workloadapi", "TestOnlyTheMatchingUserIsServed"},
	{"no selector, nobody", "identity/selector/selector.go", "return len(s) > 0", "return true", "identity/selector", "TestSet"},
	{"nobody is nobody", "identity/selector/selector.go", "if n == overflowID {", "if false {", "identity/selector", "TestParse"},
	{"the caller lives", "identity/workloadapi/attest.go", "		_ = c.Close()\n	})\n	return c", "	})\n	return c", "identity/workloadapi", "TestConnectionEndsWithItsProcess"},
	{"nothing before the catalog", "controlplane/view/manager.go", "	if m.world.snap != nil {\n		m.refresh(v, nil)", "	if true {\n		m.refresh(v, nil)", "controlplane/view", "TestNothingBeforeTheFirstPublication"},
	{"broken intentions", "controlplane/compile/discover.go", "if reason, broken := c.snap.Broken[key]; broken {", "if reason, broken := c.snap.Broken[key]; false && broken {", "controlplane/view", "TestIntentionsThatNeverCompiledDeny"},
	{"a withdrawn identity inbound", "sidecar/identity.go", "			return workload == id || info.OwnID == id", "			return false", "sidecar", "TestWithdrawnIdentityEndsItsConnections"},
	{"a withdrawn identity outbound", "sidecar/identity.go", "			return source == id || info.OwnID == id", "			return false", "sidecar", "TestWithdrawnIdentityEndsItsConnections"},
	{"a withdrawn trust domain", "sidecar/identity.go", "			return strings.HasPrefix(info.PeerID, prefix)\n		}, \"trust_withdrawn\")", "			return false\n		}, \"trust_withdrawn\")", "sidecar", "TestWithdrawnIdentityEndsItsConnections"},
	{"a withdrawal closes", "sidecar/listener/manager.go", "			if match(t.conn.Workload, t.conn.Info) {", "			if false {", "sidecar/listener", "TestWithdrawnIdentityClosesConnections"},
	{"rotation closes nothing", "sidecar/identity.go", "		delete(gone, stream.SignerKey(c))", "		_ = c", "sidecar", "TestWithdrawnSignerClosesConnections|TestWhatWithdrawsASigner"},
	{"whose a connection is", "identity/tlsconf/tlsconf.go", "	accepted.Chain(cs, chain)", "	accepted.Chain(cs, append(chain, cs.PeerCertificates...))", "sidecar", "TestSignerIsNotThePeersToName"},
	{"whose a foreign connection is", "sidecar/tlscontext/verify.go", "		accepted.Chain(cs, by)", "		accepted.Chain(cs, append(by, cs.PeerCertificates...))", "sidecar", "TestSignerIsNotThePeersToName"},
	{"trust does not go back", "identity/agent/trust.go", "		next[name] = held\n", "", "identity/agent", "TestTrustDoesNotGoBack"},
	{"trust on disk", "identity/agent/trust.go", "Bundles: a.wire(a.bundles)}", "Bundles: nil}", "identity/agent", "TestTrustDoesNotGoBack"},
	{"the scope of a revocation list", "sidecar/tlscontext/revocation.go", "if why := r.silent(c); why != \"\" {", "if why := r.silent(c); false && why != \"\" {", "sidecar/tlscontext", "TestRevocationLists"},
	{"the newest revocation list", "sidecar/tlscontext/revocation.go", "r.list.ThisUpdate.After(newest.list.ThisUpdate)", "false", "sidecar/tlscontext", "TestRevocationLists"},
	{"a body of the environment", "sidecar/config/environment.go", "; !e.bootstrap {\n		return fail(path, environmentReason)", "; false {\n		return fail(path, environmentReason)", "sidecar/config", "TestEnvironmentOfRoutes"},
	{"the alarm on what is stale", "internal/stale/stale.go", "				log.Warn(w)", "				_ = w", "internal/stale", "TestWatch"},
	{"the agent's alarm", "identity/agent/run.go", "	wg.Go(func() {\n		stale.Watch(", "	go func(...any) {}(func() {\n		stale.Watch(", "identity/agent", "TestAgedTrustIsAlarmed"},
	{"the alarm in the node's report", "identity/agent/connection.go", "warnings = append(slices.Clone(warnings), w)", "_ = slices.Clone(warnings)", "identity/agent", "TestAgedTrustIsAlarmed"},
	{"the age of trust across restarts", "identity/agent/trust.go", "a.status.LastContact = identityv1.FromTime(u.GetServerTime()); ", "a.status.LastContact = time.Now(); ", "identity/agent", "TestAgeOfTrust"},
	{"the age of trust from files", "sidecar/tlscontext/context.go", "		out = c.since", "		out = c.now()", "sidecar", "TestStaleTrustIsAlarmed"},
	{"the age of configuration", "xds/client/client.go", "			c.status.AsOf = c.status.Since", "			c.status.AsOf = time.Time{}", "xds/client", "TestAgeOfTheConfiguration"},
	{"the age of a cache", "xds/client/apply.go", "		c.status.AsOf = st.Saved", "		c.status.AsOf = time.Now()", "xds/client", "TestAgeOfTheConfiguration"},
	{"the sidecar's alarm", "sidecar/age.go", "		return append(slices.Collect(maps.Values(trust)), s.configuration())", "		return nil", "sidecar", "TestStaleConfigurationIsAlarmed|TestStaleTrustIsAlarmed"},
	{"the age of the catalog", "controlplane/server/age.go", "	if st.Synced && len(st.Errors) == 0 {", "	if true {", "cmd/hauberk", "TestStaleCatalogIsAlarmed"},
	{"turns of refused requests", "sidecar/hcm/http1conn.go", "		c.share.Turn()\n", "", "sidecar/hcm", "TestRefusedRequestsTakeTurns"},
	{"turns of refused streams", "sidecar/hcm/http2conn.go", "	c.refused.Turn()\n", "", "sidecar/hcm", "TestRefusedStreamsTakeTurns"},
	{"turns of answers", "sidecar/hcm/buffer.go", "	b.share.Turn()\n", "", "sidecar/hcm", "TestBodiesTakeTurns"},
	{"turns of copies", "sidecar/tcp/relay.go", "		l.share.Turn()\n", "", "sidecar/tcp", "TestBulkTakesTurns"},
	{"turns of splices", "sidecar/tcp/splice.go", "		s.share.Turn()\n", "", "sidecar/tcp", "TestBulkTakesTurns"},
	{"turns of HTTP/2 readers", "sidecar/http2/reader.go", "	c.in.share.Turn()\n", "", "sidecar/http2", "TestReaderTakesTurns"},
	{"turns of handshakes", "sidecar/listener/accept.go", "	fair.Background(fair.Handshake)\n", "	_ = fair.Background\n", "sidecar/listener", "TestHandshakesTakeTurns"},
	{"turns of updates", "sidecar/state.go", "		fair.Background(fair.Cluster)\n		cfg, err", "		_ = fair.Background\n		cfg, err", "sidecar", "TestUpdatesTakeTurns"},
	{"silent control planes", "identity/server/sync.go", "			s.heard.note(peer, s.now())", "", "cmd/hauberk", "TestSilentControlPlaneIsAlarmed"},
}

// TestMutationsFit tells when code that a mutation takes out has changed: make mutate,
// which runs them, takes minutes.
func TestMutationsFit(t *testing.T) {
	for _, m := range mutations {
		b, err := os.ReadFile(filepath.Join("..", "..", m.file))
		if err != nil {
			t.Errorf("%s: %v", m.what, err)
			continue
		}
		if n := strings.Count(string(b), m.old); n != 1 {
			t.Errorf("%s: %s holds %q %d times, want once: the list is out of date", m.what, m.file, m.old, n)
		}
	}
}

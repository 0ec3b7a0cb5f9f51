package ca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.uber.org/goleak"

	"github.com/hauberk-mesh/hauberk/identity/internal/idtest"
	"github.com/hauberk-mesh/hauberk/identity/svid"
	"github.com/hauberk-mesh/hauberk/identity/trust"
	"github.com/hauberk-mesh/hauberk/identity/verify"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	td  = spiffeid.RequireTrustDomainFromString("mesh.test")
	web = spiffeid.RequireFromString("spiffe://mesh.test/ns/default/dc/dc1/svc/web")
)

func config(t *testing.T, name string) Config {
	return Config{Dir: filepath.Join(t.TempDir(), "state"), TrustDomain: td, ControlPlane: name}
}

func open(t *testing.T, cfg Config) *CA {
	t.Helper()
	c, err := OpenOrCreate(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func csr(t *testing.T, key crypto.Signer, change ...func(*x509.CertificateRequest)) []byte {
	t.Helper()
	template := &x509.CertificateRequest{}
	for _, f := range change {
		f(template)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestIssue(t *testing.T) {
	cfg := config(t, "cp1")
	c := open(t, cfg)
	key := idtest.Key(t)
	basic, err := asn1.Marshal(struct{ CA bool }{true})
	if err != nil {
		t.Fatal(err)
	}
	// A request that asks for everything gets nothing of it.
	greedy := csr(t, key, func(r *x509.CertificateRequest) {
		r.Subject = pkix.Name{CommonName: "admin"}
		r.DNSNames = []string{"evil.test"}
		r.IPAddresses = []net.IP{net.IPv4(10, 0, 0, 1)}
		r.EmailAddresses = []string{"root@evil.test"}
		r.URIs = []*url.URL{idtest.URL(t, "spiffe://mesh.test/hauberk/controlplane/cp1")}
		r.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: basic}}
	})
	before := time.Now()
	out, err := c.Issue(Request{CSR: greedy, ID: web, Node: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	leaf := out.Chain[0]
	if len(out.Chain) != 1 || len(leaf.URIs) != 1 || leaf.URIs[0].String() != web.String() {
		t.Errorf("chain of %d, names %v", len(out.Chain), leaf.URIs)
	}
	if len(leaf.DNSNames)+len(leaf.IPAddresses)+len(leaf.EmailAddresses) != 0 || len(leaf.RawSubject) != 2 || leaf.IsCA {
		t.Error("the CSR's names or extensions were taken over")
	}
	if !key.PublicKey.Equal(leaf.PublicKey) {
		t.Error("another key was certified")
	}
	if leaf.KeyUsage != x509.KeyUsageDigitalSignature || len(leaf.ExtKeyUsage) != 2 {
		t.Errorf("usages %v %v", leaf.KeyUsage, leaf.ExtKeyUsage)
	}
	if d := before.Sub(leaf.NotBefore); d < 0 || d > backdate+2*time.Second {
		t.Errorf("not before: %s ago", d)
	}
	if d := out.NotAfter.Sub(before); d < 24*time.Hour-2*time.Second || d > 24*time.Hour+2*time.Second || out.LimitedBy != LimitDefault {
		t.Errorf("lives %s, limited by %s", d, out.LimitedBy)
	}
	if n := leaf.SerialNumber.BitLen(); n < 64 || n > 127 || leaf.SerialNumber.Cmp(out.Serial) != 0 {
		t.Errorf("serial of %d bits", n)
	}
	// The strict verifier is the judge of the rest.
	if id, err := verify.Chain(td, c.Bundle().Anchors(), out.Chain, time.Now()); err != nil || id != web {
		t.Errorf("%s, %v", id, err)
	}
}

func TestSigner(t *testing.T) {
	cfg := config(t, "cp1")
	c := open(t, cfg)
	s := c.Signers()
	if len(s) != 1 || s[0].State != trust.Active || s[0].Owner != "cp1" {
		t.Fatalf("got %+v", s)
	}
	cert := s[0].Certificate
	if !cert.IsCA || cert.KeyUsage != x509.KeyUsageCertSign || !cert.MaxPathLenZero || cert.MaxPathLen != 0 ||
		len(cert.URIs) != 1 || cert.URIs[0].String() != "spiffe://mesh.test" || cert.CheckSignatureFrom(cert) != nil {
		t.Errorf("signer %+v", cert)
	}
	if key, ok := cert.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() {
		t.Error("the signer's key is not P-256")
	}
	if d := time.Until(cert.NotAfter); d < 364*24*time.Hour || d > 366*24*time.Hour {
		t.Errorf("the signer lives %s", d)
	}
	other := open(t, config(t, "cp1")).Signers()[0].Certificate
	if bytes.Equal(other.RawSubject, cert.RawSubject) {
		t.Error("two signers have one subject")
	}
	// Nothing in the directory is anyone else's.
	err := filepath.Walk(cfg.Dir, func(path string, info os.FileInfo, err error) error {
		want := os.FileMode(0o600)
		if err == nil && info.IsDir() {
			want = 0o700
		}
		if err == nil && info.Mode().Perm() != want {
			t.Errorf("%s has mode %o", path, info.Mode().Perm())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if pin, err := c.Pin(); err != nil || pin != trust.PinOf(cert) {
		t.Errorf("%v", err)
	}
}

func TestIssueRefusals(t *testing.T) {
	c := open(t, config(t, "cp1"))
	good := csr(t, idtest.Key(t))
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	// A CSR with someone else's key: the signature is by another one.
	stolen := bytes.Clone(good)
	stolen[len(stolen)-1] ^= 1
	swapped := swapKey(t, idtest.Key(t), idtest.Key(t))
	for _, tc := range []struct {
		name string
		req  Request
		want string
	}{
		{"damaged signature", Request{CSR: stolen, ID: web}, "not signed by the key in it"},
		{"another's key", Request{CSR: swapped, ID: web}, "not signed by the key in it"},
		{"no CSR", Request{ID: web}, "cannot be read"},
		{"trailing data", Request{CSR: append(bytes.Clone(good), 0), ID: web}, "cannot be read"},
		{"huge", Request{CSR: make([]byte, maxCSR+1), ID: web}, "at most"},
		{"P-521", Request{CSR: csr(t, p521), ID: web}, "use P-256"},
		{"no ID", Request{CSR: good}, "not of the trust domain"},
		{"another trust domain", Request{CSR: good, ID: spiffeid.RequireFromString("spiffe://b.test/x")}, "not of the trust domain"},
		{"the signer's own name", Request{CSR: good, ID: td.ID()}, "no path"},
		{"unknown reserved name", Request{CSR: good, ID: spiffeid.RequireFromString("spiffe://mesh.test/hauberk/root/x")}, "reserved"},
		{"too short", Request{CSR: good, ID: web, TTL: time.Second}, "under 1m0s"},
		{"negative", Request{CSR: good, ID: web, TTL: -time.Hour}, "under 1m0s"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := c.Issue(tc.req)
			if !errors.Is(err, ErrRequest) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

// swapKey makes a CSR that holds one key and is signed by another.
func swapKey(t *testing.T, victim, thief *ecdsa.PrivateKey) []byte {
	var info struct {
		TBS asn1.RawValue
		Alg pkix.AlgorithmIdentifier
		Sig asn1.BitString
	}
	if _, err := asn1.Unmarshal(csr(t, victim), &info); err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(info.TBS.FullBytes)
	sig, err := ecdsa.SignASN1(rand.Reader, thief, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	info.Sig = asn1.BitString{Bytes: sig, BitLength: len(sig) * 8}
	der, err := asn1.Marshal(info)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestKeys(t *testing.T) {
	rsaKey := func(bits int) *rsa.PublicKey {
		k, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		return &k.PublicKey
	}
	ed, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GODEBUG", "rsa1024min=0")
	curve := func(c elliptic.Curve) *ecdsa.PublicKey {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return &k.PublicKey
	}
	for name, tc := range map[string]struct {
		key crypto.PublicKey
		ok  bool
	}{
		"P-224": {curve(elliptic.P224()), false}, "P-256": {curve(elliptic.P256()), true},
		"P-384": {curve(elliptic.P384()), true}, "P-521": {curve(elliptic.P521()), false},
		"Ed25519": {ed, true}, "RSA 1024": {rsaKey(1024), false}, "RSA 2048": {rsaKey(2048), true}, "none": {nil, false},
	} {
		if err := trust.CheckKey(tc.key); (err == nil) != tc.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLifetime(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	cfg := config(t, "cp1")
	cfg.SignerTTL, cfg.LeafTTL, cfg.MaxLeafTTL = 12*time.Hour, time.Hour, 2*time.Hour
	cfg.Now = func() time.Time { return now }
	c := open(t, cfg)
	end := c.Signers()[0].NotAfter
	for _, tc := range []struct {
		name  string
		at    time.Duration
		ttl   time.Duration
		want  time.Duration // of the life; 0: up to the signer's end
		limit Limit
	}{
		{"default", 0, 0, time.Hour, LimitDefault},
		{"asked", 0, 90 * time.Minute, 90 * time.Minute, LimitRequest},
		{"asked too much", 0, 100 * time.Hour, 2 * time.Hour, LimitMaximum},
		{"never beyond the signer", 11*time.Hour + 30*time.Minute, 0, 0, LimitSigner},
	} {
		t.Run(tc.name, func(t *testing.T) {
			start := now
			defer func() { now = start }()
			now = now.Add(tc.at)
			out, err := c.Issue(Request{CSR: csr(t, idtest.Key(t)), ID: web, TTL: tc.ttl})
			if err != nil {
				t.Fatal(err)
			}
			want := now.Add(tc.want)
			if tc.want == 0 {
				want = end
			}
			if !out.NotAfter.Equal(want) || out.LimitedBy != tc.limit {
				t.Errorf("until %s by %s, want %s by %s", out.NotAfter, out.LimitedBy, want, tc.limit)
			}
		})
	}
	now = end.Add(time.Second)
	if _, err := c.Issue(Request{CSR: csr(t, idtest.Key(t)), ID: web}); !errors.Is(err, ErrNotActive) || !strings.Contains(err.Error(), "expired") {
		t.Errorf("an expired signer signed: %v", err)
	}
	bad := config(t, "cp1")
	bad.SignerTTL = 48 * time.Hour
	if _, err := OpenOrCreate(bad); err == nil {
		t.Error("a signer that lives twice as long as its leaves was accepted")
	}
}

func TestSelf(t *testing.T) {
	c := open(t, config(t, "cp1"))
	id := spiffeid.RequireFromString("spiffe://mesh.test/hauberk/controlplane/cp1")
	own, err := c.Self(id, 0)
	if err != nil {
		t.Fatal(err)
	}
	if pin, _ := c.Pin(); len(own.Chain) != 2 || trust.PinOf(own.Chain[1]) != pin {
		t.Error("the chain lacks the pinned signer")
	}
	snapshot := &svid.Snapshot{Bundles: map[string]*svid.Anchors{"mesh.test": c.Bundle().Anchors()}}
	if got, err := verify.Peer(snapshot, own.Chain, time.Now()); err != nil || got != id {
		t.Errorf("%s, %v", got, err)
	}
	for _, other := range []string{"spiffe://mesh.test/hauberk/controlplane/cp2", web.String()} {
		if _, err := c.Self(spiffeid.RequireFromString(other), 0); err == nil {
			t.Errorf("made itself %s", other)
		}
	}
}

func TestJournal(t *testing.T) {
	for _, sync := range []time.Duration{0, -1, time.Millisecond} {
		cfg := config(t, "cp1")
		cfg.JournalSync = sync
		c := open(t, cfg)
		key := idtest.Key(t)
		out, err := c.Issue(Request{CSR: csr(t, key), ID: web, Node: "n1"})
		if err != nil {
			t.Fatal(err)
		}
		// Before Close: the line is there when Issue returns.
		data, err := os.ReadFile(filepath.Join(cfg.Dir, journalFile))
		if err != nil {
			t.Fatal(err)
		}
		var e entry
		if err := json.Unmarshal(data, &e); err != nil {
			t.Fatal(err)
		}
		if e.ID != web.String() || e.Node != "n1" || e.Serial != out.Serial.Text(16) || e.Key != trust.PinOf(out.Chain[0]).String() || e.Signer != out.Signer {
			t.Errorf("got %+v", e)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Issue(Request{CSR: csr(t, key), ID: web}); err == nil {
			t.Error("issued without a journal")
		}
		// A line that a crash cut off does not spoil the next one.
		if err := os.WriteFile(filepath.Join(cfg.Dir, journalFile), append(data, `{"time":`...), 0o600); err != nil {
			t.Fatal(err)
		}
		c = open(t, cfg)
		if _, err := c.Issue(Request{CSR: csr(t, key), ID: web}); err != nil {
			t.Fatal(err)
		}
		data, _ = os.ReadFile(filepath.Join(cfg.Dir, journalFile))
		lines := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
		if len(lines) != 3 || json.Unmarshal([]byte(lines[2]), &e) != nil {
			t.Errorf("journal %q", lines)
		}
	}
}

// TestJournalOnAFullDisk: a line that was written in part, where the disk became full, does not
// spoil the next one.
func TestJournalOnAFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), journalFile)
	j, err := openJournal(path, -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.file.WriteString(`{"time":`); err != nil {
		t.Fatal(err)
	}
	j.torn = true // as after that
	for _, serial := range []string{"1", "2"} {
		if err := j.append(entry{Serial: serial}); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	var e entry
	if len(lines) != 3 || json.Unmarshal([]byte(lines[1]), &e) != nil || e.Serial != "1" {
		t.Errorf("journal %q", lines)
	}
}

func TestDirectory(t *testing.T) {
	cfg := config(t, "cp1")
	var logged bytes.Buffer
	cfg.Log = slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	c := open(t, cfg)
	first := c.Bundle()
	if _, err := OpenOrCreate(cfg); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("opened twice: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = open(t, cfg)
	if !c.Bundle().Equal(first) {
		t.Error("the bundle changed by a restart")
	}
	if _, err := c.Prepare(); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	key := signerFile(t, cfg.Dir, keySuffix)
	secret, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		spoil func(t *testing.T, dir string)
		want  string
	}{
		"directory open to others": {func(t *testing.T, dir string) { chmod(t, dir, 0o750) }, "chmod 0700"},
		"signers open to others":   {func(t *testing.T, dir string) { chmod(t, filepath.Join(dir, signersDir), 0o711) }, "chmod 0700"},
		"key readable by others":   {func(t *testing.T, dir string) { chmod(t, signerFile(t, dir, keySuffix), 0o640) }, "chmod 0600"},
		"bundle writable by others": {func(t *testing.T, dir string) {
			chmod(t, filepath.Join(dir, bundleFile), 0o606)
		}, "chmod 0600"},
		"journal readable by others": {func(t *testing.T, dir string) { chmod(t, filepath.Join(dir, journalFile), 0o644) }, "chmod 0600"},
		"directory of another user":  {func(t *testing.T, dir string) { chown(t, dir) }, "belongs to user 12345"},
		"key of another user":        {func(t *testing.T, dir string) { chown(t, signerFile(t, dir, keySuffix)) }, "belongs to user 12345"},
		"a key that is a link": {func(t *testing.T, dir string) {
			path := signerFile(t, dir, keySuffix)
			if err := errors.Join(os.Rename(path, path+".moved"), os.Symlink(path+".moved", path)); err != nil {
				t.Fatal(err)
			}
		}, "too many levels of symbolic links"},
		"bundle lost":    {func(t *testing.T, dir string) { remove(t, filepath.Join(dir, bundleFile)) }, "restore it from a backup"},
		"authority lost": {func(t *testing.T, dir string) { remove(t, filepath.Join(dir, authorityFile)) }, "restore the backup"},
		"key lost":       {func(t *testing.T, dir string) { remove(t, signerFile(t, dir, keySuffix)) }, "no such file"},
		"signers lost": {func(t *testing.T, dir string) {
			for _, e := range glob(t, filepath.Join(dir, signersDir, "*")) {
				remove(t, e)
			}
		}, "holds no signer"},
		"active signer lost": {func(t *testing.T, dir string) { removeActive(t, dir) }, "the key of the active signer"},
		"key swapped": {func(t *testing.T, dir string) {
			write(t, signerFile(t, dir, keySuffix), idtest.KeyPEM(t, idtest.Key(t)))
		}, "does not belong to the certificate"},
		"key damaged":    {func(t *testing.T, dir string) { write(t, signerFile(t, dir, keySuffix), secret[:60]) }, "PEM block"},
		"bundle damaged": {func(t *testing.T, dir string) { write(t, filepath.Join(dir, bundleFile), []byte("{}")) }, "format 0"},
		"from the future": {func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, authorityFile), []byte(`{"format":9,"trust_domain":"mesh.test","control_plane":"cp1","joining":false}`))
		}, "format 9 is unknown"},
		"of another control plane": {func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, authorityFile), []byte(`{"format":1,"trust_domain":"mesh.test","control_plane":"cp2","joining":false}`))
		}, `belongs to control plane "cp2"`},
	} {
		t.Run(name, func(t *testing.T) {
			spoilt := cfg
			spoilt.Dir = filepath.Join(t.TempDir(), "state")
			if err := os.CopyFS(spoilt.Dir, os.DirFS(cfg.Dir)); err != nil {
				t.Fatal(err)
			}
			for _, path := range append(glob(t, filepath.Join(spoilt.Dir, "*")), glob(t, filepath.Join(spoilt.Dir, signersDir, "*"))...) {
				if info, err := os.Stat(path); err == nil && !info.IsDir() {
					chmod(t, path, 0o600)
				}
			}
			chmod(t, spoilt.Dir, 0o700)
			chmod(t, filepath.Join(spoilt.Dir, signersDir), 0o700)
			tc.spoil(t, spoilt.Dir)
			c, err := OpenOrCreate(spoilt)
			if err == nil {
				_ = c.Close()
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
	if bytes.Contains(logged.Bytes(), secret[30:60]) {
		t.Error("a key was logged")
	}
}

func signerFile(t *testing.T, dir, suffix string) string {
	return glob(t, filepath.Join(dir, signersDir, "*"+suffix))[0]
}

// removeActive removes the files of the signer that signs.
func removeActive(t *testing.T, dir string) {
	st, err := readState(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range st.bundle.Signers {
		if s.State != trust.Active {
			continue
		}
		for _, path := range glob(t, filepath.Join(dir, signersDir, "*"+certSuffix)) {
			if data, _ := os.ReadFile(path); bytes.Equal(data, idtest.CertPEM(s.Certificate)) {
				remove(t, path)
			}
		}
	}
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	out, err := filepath.Glob(pattern)
	if err != nil || len(out) == 0 {
		t.Fatalf("%s: %v", pattern, err)
	}
	return out
}

func chmod(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func chown(t *testing.T, path string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("giving a file away needs root")
	}
	if err := os.Chown(path, 12345, -1); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

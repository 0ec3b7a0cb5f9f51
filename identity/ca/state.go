package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/hauberk-mesh/hauberk/identity/internal/statedir"
	"github.com/hauberk-mesh/hauberk/identity/internal/strictjson"
	"github.com/hauberk-mesh/hauberk/identity/spiffe"
	"github.com/hauberk-mesh/hauberk/identity/trust"
)

const (
	authorityFile = "authority.json"
	bundleFile    = "bundle.json"
	journalExt    = ".jsonl"
	journalFile   = "issued" + journalExt
	signersDir    = "signers"
	keySuffix     = ".key"
	certSuffix    = ".crt"

	stateFormat = 1
)

// authority is what the directory says of itself. It is written last at
// creation: a directory without it was never a CA.
type authority struct {
	Format       int    `json:"format"`
	TrustDomain  string `json:"trust_domain"`
	ControlPlane string `json:"control_plane"`
	// Joining: a missing bundle means "not admitted yet" and not "lost".
	Joining bool `json:"joining"`
}

// OpenOrCreate opens the CA in the directory, or makes it when the directory is
// empty or absent. One process has it open at a time.
func OpenOrCreate(cfg Config) (*CA, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	if err := spiffe.CheckName("control plane", cfg.ControlPlane); err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	if err := statedir.Open(cfg.Dir); err != nil {
		return nil, fmt.Errorf("ca: state directory: %w", err)
	}
	lock, err := statedir.Lock(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("ca: state directory: %w", err)
	}
	c := &CA{cfg: cfg, lock: lock, changed: make(chan struct{})}
	if err := c.load(); err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("ca: state directory %s: %w", cfg.Dir, err)
	}
	return c, nil
}

func (c *CA) load() error {
	if err := statedir.Open(c.path(signersDir)); err != nil {
		return err
	}
	for _, dir := range []string{c.cfg.Dir, c.path(signersDir)} {
		if err := statedir.Clean(dir); err != nil {
			return err
		}
	}
	if _, err := os.Lstat(c.path(authorityFile)); errors.Is(err, fs.ErrNotExist) {
		if err := c.create(); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	st, err := readState(c.cfg.Dir)
	if err != nil {
		return err
	}
	if st.authority.TrustDomain != c.cfg.TrustDomain.Name() || st.authority.ControlPlane != c.cfg.ControlPlane {
		return fmt.Errorf("it belongs to control plane %q of the trust domain %s, and this is %q of %s: give the right directory, or the right names",
			st.authority.ControlPlane, st.authority.TrustDomain, c.cfg.ControlPlane, c.cfg.TrustDomain)
	}
	c.own, c.bundle = st.own, st.bundle
	if !st.authority.Joining {
		if err := c.adopt(); err != nil {
			return err
		}
	}
	c.journal, err = openJournal(c.path(journalFile), c.cfg.JournalSync)
	return err
}

// adopt adds own signers that a crash kept out of the bundle: Prepare stores the
// key first. A joining control plane's is for the one that admits it to add.
func (c *CA) adopt() error {
	for id, k := range c.own {
		if _, ok := c.bundle.Signer(id); ok || c.cfg.Now().After(k.cert.NotAfter) {
			continue
		}
		if _, err := c.change(func(b *trust.Bundle) (*trust.Bundle, error) {
			return b.With(trust.NewSigner(k.cert, c.cfg.ControlPlane, trust.Prepared))
		}); err != nil {
			return err
		}
	}
	return nil
}

// create makes the first signer, and the first bundle unless another control
// plane has one.
func (c *CA) create() error {
	if _, err := os.Lstat(c.path(bundleFile)); err == nil {
		return fmt.Errorf("it has %s and no %s: restore the backup into an empty directory", bundleFile, authorityFile)
	}
	k, err := c.newSigner()
	if err != nil {
		return err
	}
	if !c.cfg.Joining {
		b, err := trust.NewBundle(c.cfg.TrustDomain, sequenceAt(c.cfg.Now()), trust.NewSigner(k.cert, c.cfg.ControlPlane, trust.Active))
		if err != nil {
			return err
		}
		if err := writeJSON(c.path(bundleFile), b); err != nil {
			return err
		}
	}
	return writeJSON(c.path(authorityFile), authority{
		Format: stateFormat, TrustDomain: c.cfg.TrustDomain.Name(), ControlPlane: c.cfg.ControlPlane, Joining: c.cfg.Joining,
	})
}

// newSigner makes a key and its self-signed certificate, and stores both.
func (c *CA) newSigner() (key, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return key{}, err
	}
	pin, err := trust.PinOfKey(private.Public())
	if err != nil {
		return key{}, err
	}
	serial, err := newSerial()
	if err != nil {
		return key{}, err
	}
	now := c.cfg.Now()
	ski := sha256.Sum256(pin[:])
	template := &x509.Certificate{
		SerialNumber: serial,
		// Unique for each key: with equal subjects a verifier tries one anchor
		// after the other.
		Subject:               pkix.Name{Organization: []string{"Hauberk"}, CommonName: "signer " + hex.EncodeToString(pin[:12])},
		URIs:                  []*url.URL{c.cfg.TrustDomain.ID().URL()},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(c.cfg.SignerTTL).Truncate(time.Second),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
		SubjectKeyId:          ski[:20],
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return key{}, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return key{}, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return key{}, err
	}
	name := filepath.Join(signersDir, hex.EncodeToString(pin[:]))
	// The certificate last: a key without one is a creation that a crash cut
	// off, and is not read.
	if err := statedir.WriteFile(c.path(name+keySuffix), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})); err != nil {
		return key{}, err
	}
	return key{cert: cert, signer: private}, statedir.WriteFile(c.path(name+certSuffix), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// state is a state directory's content, checked.
type state struct {
	authority authority
	own       map[string]key
	bundle    *trust.Bundle
}

// readState reads and cross-checks a directory; Restore uses it too.
func readState(dir string) (*state, error) {
	st := &state{}
	data, err := statedir.ReadFile(filepath.Join(dir, authorityFile))
	if err != nil {
		return nil, err
	}
	if err := strictjson.Unmarshal(data, &st.authority); err != nil {
		return nil, fmt.Errorf("%s: %w", authorityFile, err)
	}
	if st.authority.Format != stateFormat {
		return nil, fmt.Errorf("%s: format %d is unknown, this version reads %d", authorityFile, st.authority.Format, stateFormat)
	}
	td, err := spiffe.TrustDomain(st.authority.TrustDomain)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", authorityFile, err)
	}
	if err := spiffe.CheckName("control plane", st.authority.ControlPlane); err != nil {
		return nil, fmt.Errorf("%s: %w", authorityFile, err)
	}
	data, err = statedir.ReadFile(filepath.Join(dir, bundleFile))
	lost := errors.Is(err, fs.ErrNotExist)
	if err != nil && !lost {
		return nil, err
	}
	// After the bundle: a running CA, which Backup reads beside, stores a signer
	// before the bundle that names it.
	if st.own, err = readSigners(filepath.Join(dir, signersDir), td); err != nil {
		return nil, err
	}
	switch {
	case lost && st.authority.Joining:
		return st, nil
	case lost:
		// A new bundle would cut off every other control plane.
		return nil, fmt.Errorf("%s is missing: restore it from a backup", bundleFile)
	}
	if st.bundle, err = trust.ParseJSON(data); err != nil {
		return nil, fmt.Errorf("%s: %w", bundleFile, err)
	}
	if st.bundle.TrustDomain != td {
		return nil, fmt.Errorf("%s is of the trust domain %s, the directory is of %s", bundleFile, st.bundle.TrustDomain, td)
	}
	for _, s := range st.bundle.Signers {
		if _, ok := st.own[s.ID]; !ok && s.Owner == st.authority.ControlPlane && s.State == trust.Active {
			return nil, fmt.Errorf("the key of the active signer %s is missing from %s: restore it from a backup", s.ID, signersDir)
		}
	}
	return st, nil
}

func readSigners(dir string, td spiffeid.TrustDomain) (map[string]key, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	own := map[string]key{}
	for _, e := range entries {
		base, ok := strings.CutSuffix(e.Name(), certSuffix)
		if !ok {
			continue
		}
		k, err := readSigner(filepath.Join(dir, base), td)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(signersDir, base), err)
		}
		own[trust.SignerID(k.cert)] = k
	}
	if len(own) == 0 {
		return nil, fmt.Errorf("%s holds no signer: restore it from a backup", signersDir)
	}
	return own, nil
}

func readSigner(base string, td spiffeid.TrustDomain) (key, error) {
	certDER, err := readPEM(base+certSuffix, "CERTIFICATE")
	if err != nil {
		return key{}, err
	}
	cert, err := x509.ParseCertificate(certDER)
	if err != nil {
		return key{}, err
	}
	if err := trust.CheckSigner(td, cert); err != nil {
		return key{}, err
	}
	keyDER, err := readPEM(base+keySuffix, "PRIVATE KEY")
	if err != nil {
		return key{}, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(keyDER)
	if err != nil {
		return key{}, errors.New("the private key cannot be read") // the cause could quote it
	}
	signer, ok := parsed.(crypto.Signer)
	if !ok {
		return key{}, fmt.Errorf("a private key of type %T cannot sign", parsed)
	}
	public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(cert.PublicKey) {
		return key{}, errors.New("the private key does not belong to the certificate")
	}
	return key{cert: cert, signer: signer}, nil
}

func readPEM(path, kind string) ([]byte, error) {
	data, err := statedir.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(data)
	if block == nil || block.Type != kind || len(strings.TrimSpace(string(rest))) != 0 {
		return nil, fmt.Errorf("%s does not hold exactly one PEM block %q", path, kind)
	}
	return block.Bytes, nil
}

func writeJSON(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return statedir.WriteFile(path, append(data, '\n'))
}

func (c *CA) path(name string) string { return filepath.Join(c.cfg.Dir, name) }

func sortSigners(s []trust.Signer) {
	slices.SortFunc(s, func(a, b trust.Signer) int { return strings.Compare(a.ID, b.ID) })
}

// sequenceAt begins and continues sequences at the clock, so that a control
// plane restored from an old backup does not offer numbers already seen.
func sequenceAt(now time.Time) uint64 { return uint64(max(now.Unix(), 1)) }

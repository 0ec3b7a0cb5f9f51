package agent

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/proto"

	"github.com/hauberk-mesh/hauberk/identity/identityv1"
	"github.com/hauberk-mesh/hauberk/identity/internal/statedir"
	"github.com/hauberk-mesh/hauberk/identity/svid"
)

// Files of the state directory. Each is replaced as a whole.
const (
	nodeKeyFile  = "node.key"  // PKCS#8, DER
	nodeSVIDFile = "node.json" // heldSVID without a key
	trustFile    = "trust.pb"  // a TrustUpdate that says what is in force
	// unnamedFile is a TrustUpdate with the last bundles of trust domains that are
	// trusted no longer.
	unnamedFile  = "unnamed.pb"
	workloadGlob = "workload-*.json"
)

// heldSVID is an SVID on disk.
type heldSVID struct {
	ID    string   `json:"id"`
	Chain [][]byte `json:"chain"`
	// Key is PKCS#8; empty for the node, whose key outlives its SVIDs.
	Key []byte `json:"key,omitempty"`
}

// ErrInUse says that another agent has the state directory.
var ErrInUse = statedir.ErrInUse

// state is the directory.
type state struct {
	dir  string
	lock *os.File
}

func openState(dir string) (*state, error) {
	if dir == "" {
		return nil, errors.New("agent: the state directory must be set")
	}
	// The directory itself is checked to be its owner's alone; those above it
	// only have to be there.
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return nil, fmt.Errorf("agent: state directory: %w", err)
	}
	if err := statedir.Open(dir); err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	lock, err := statedir.Lock(dir)
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	// A write that was cut off may have left a key.
	if err := statedir.Clean(dir); err != nil {
		return nil, errors.Join(fmt.Errorf("agent: %w", err), lock.Close())
	}
	return &state{dir: dir, lock: lock}, nil
}

// Forget removes what an agent keeps in its state directory, and the directory if nothing else
// is in it. The agent whose it is may be open.
func Forget(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	for _, e := range entries {
		workload, err := filepath.Match(workloadGlob, e.Name())
		if err != nil {
			return err
		}
		switch name := e.Name(); {
		case workload, name == nodeKeyFile, name == nodeSVIDFile, name == trustFile, name == unnamedFile,
			name == statedir.LockName, statedir.Temporary(name):
			if err := statedir.Remove(filepath.Join(dir, name)); err != nil {
				return fmt.Errorf("agent: %w", err)
			}
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, syscall.ENOTEMPTY) && !errors.Is(err, syscall.EEXIST) {
		return fmt.Errorf("agent: %w", err)
	}
	return nil
}

func (s *state) close() error { return s.lock.Close() }

func (s *state) path(name string) string { return filepath.Join(s.dir, name) }

// read returns nil without an error where there is no file.
func (s *state) read(name string) ([]byte, error) {
	b, err := statedir.ReadFile(s.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	return b, nil
}

func (s *state) write(name string, b []byte) error {
	if err := statedir.WriteFile(s.path(name), b); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	return nil
}

func newKey() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

// nodeKey reads the node's key, or makes it.
func (s *state) nodeKey() (crypto.Signer, error) {
	b, err := s.read(nodeKeyFile)
	if err != nil {
		return nil, err
	}
	if b != nil {
		return parseKey(b)
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	if b, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
		return nil, err
	}
	return key, s.write(nodeKeyFile, b)
}

func parseKey(b []byte) (crypto.Signer, error) {
	k, err := x509.ParsePKCS8PrivateKey(b)
	if err != nil {
		// The parser's own error may quote the key.
		return nil, errors.New("agent: a key in the state directory cannot be read")
	}
	signer, ok := k.(crypto.Signer)
	if !ok {
		return nil, errors.New("agent: a key in the state directory cannot sign")
	}
	return signer, nil
}

func (s *state) saveNode(v *svid.SVID) error {
	b, err := json.Marshal(heldSVID{ID: v.ID.String(), Chain: identityv1.Chain(v.Chain)})
	if err != nil {
		return err
	}
	return s.write(nodeSVIDFile, b)
}

func (s *state) node(key crypto.Signer) (*svid.SVID, error) {
	b, err := s.read(nodeSVIDFile)
	if b == nil {
		return nil, err
	}
	var h heldSVID
	if err := json.Unmarshal(b, &h); err != nil {
		return nil, fmt.Errorf("agent: %s: %w", s.path(nodeSVIDFile), err)
	}
	return h.svid(key)
}

func (h heldSVID) svid(key crypto.Signer) (*svid.SVID, error) {
	if key == nil {
		var err error
		if key, err = parseKey(h.Key); err != nil {
			return nil, err
		}
	}
	chain, err := identityv1.ParseChain(h.Chain)
	if err != nil {
		return nil, err
	}
	return svid.New(chain, key)
}

func workloadFile(id spiffeid.ID) string {
	sum := sha256.Sum256([]byte(id.String()))
	return "workload-" + hex.EncodeToString(sum[:8]) + ".json"
}

func (s *state) saveWorkload(v *svid.SVID) error {
	key, err := x509.MarshalPKCS8PrivateKey(v.Key)
	if err != nil {
		return err
	}
	b, err := json.Marshal(heldSVID{ID: v.ID.String(), Chain: identityv1.Chain(v.Chain), Key: key})
	if err != nil {
		return err
	}
	return s.write(workloadFile(v.ID), b)
}

func (s *state) dropWorkload(id spiffeid.ID) error {
	if err := statedir.Remove(s.path(workloadFile(id))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("agent: %w", err)
	}
	return nil
}

func (s *state) workloads() ([]*svid.SVID, error) {
	files, err := filepath.Glob(s.path(workloadGlob))
	if err != nil {
		return nil, err
	}
	var out []*svid.SVID
	for _, f := range files {
		b, err := s.read(filepath.Base(f))
		if err != nil {
			return nil, err
		}
		var h heldSVID
		if err := json.Unmarshal(b, &h); err != nil {
			return nil, fmt.Errorf("agent: %s: %w", f, err)
		}
		v, err := h.svid(nil)
		if err != nil {
			return nil, fmt.Errorf("agent: %s: %w", f, err)
		}
		out = append(out, v)
	}
	return out, nil
}

func (s *state) saveTrust(u *identityv1.TrustUpdate) error { return s.saveUpdate(trustFile, u) }

func (s *state) trust() (*identityv1.TrustUpdate, error) { return s.update(trustFile) }

// saveUnnamed makes no file for nothing.
func (s *state) saveUnnamed(bundles []*identityv1.Bundle) error {
	if have, err := s.read(unnamedFile); err == nil && have == nil && len(bundles) == 0 {
		return nil
	}
	return s.saveUpdate(unnamedFile, &identityv1.TrustUpdate{Bundles: bundles})
}

func (s *state) unnamed() ([]*identityv1.Bundle, error) {
	u, err := s.update(unnamedFile)
	return u.GetBundles(), err
}

func (s *state) saveUpdate(file string, u *identityv1.TrustUpdate) error {
	b, err := proto.Marshal(u)
	if err != nil {
		return err
	}
	return s.write(file, b)
}

// update returns nil without an error where there is no file.
func (s *state) update(file string) (*identityv1.TrustUpdate, error) {
	b, err := s.read(file)
	if b == nil {
		return nil, err
	}
	u := &identityv1.TrustUpdate{}
	if err := proto.Unmarshal(b, u); err != nil {
		return nil, fmt.Errorf("agent: %s: %w", s.path(file), err)
	}
	return u, nil
}

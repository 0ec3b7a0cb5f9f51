package token

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/hauberk-mesh/hauberk/identity/internal/statedir"
	"github.com/hauberk-mesh/hauberk/identity/internal/strictjson"
)

// Errors of Consume. The last three are told only to who knows the secret.
var (
	ErrUnknown = errors.New("this control plane has made no such token, or has forgotten it: join at the control plane that made it, or create a new token")
	ErrSecret  = errors.New("the token is damaged: copy the whole line that `hauberk token create` printed")
	ErrExpired = errors.New("the token has expired: create a new one with `hauberk token create`")
	ErrUsed    = errors.New("the token has been used: each is good for one join, create a new one with `hauberk token create`; if you have not used it, someone else has")
)

// Error says what is wrong with which token.
type Error struct {
	ID string
	// Err is one of the errors above.
	Err error
	// When is the time of expiry or of the use, where it applies.
	When time.Time
}

func (e *Error) Error() string {
	if e.When.IsZero() {
		return fmt.Sprintf("token %s: %v", e.ID, e.Err)
	}
	return fmt.Sprintf("token %s: %v (at %s)", e.ID, e.Err, e.When.UTC().Format(time.RFC3339))
}

// Unwrap gives the kind of error.
func (e *Error) Unwrap() error { return e.Err }

// Record is what the store knows of a token.
type Record struct {
	ID        string
	Role      Role
	Name      string
	Permitted []Permit
	Created   time.Time
	Expires   time.Time
	// Used is zero before the use.
	Used time.Time
}

const (
	format     = 1
	recordExt  = ".json"
	usedExt    = ".used"
	remembered = 24 * time.Hour
)

type recordJSON struct {
	Format    int          `json:"format"`
	ID        string       `json:"id"`
	Role      Role         `json:"role"`
	Name      string       `json:"name"`
	Permitted []permitJSON `json:"permitted,omitempty"`
	Created   time.Time    `json:"created"`
	Expires   time.Time    `json:"expires"`
	Hash      string       `json:"secret_sha256"`
}

type usedJSON struct {
	Used time.Time `json:"used"`
}

// Store keeps the tokens of one control plane, each in a file of its own. A use
// is a second file beside it, which can be created once: that holds across
// crashes and even between processes.
type Store struct {
	dir string
	td  spiffeid.TrustDomain
	now func() time.Time
	// mu orders Consume with Revoke and Prune.
	mu sync.Mutex
	// create stores a token's use, durably and only once. Tests replace it.
	create func(path string, data []byte) error
}

// OpenStore opens the folder, which it creates 0700. now may be nil.
func OpenStore(dir string, td spiffeid.TrustDomain, now func() time.Time) (*Store, error) {
	if now == nil {
		now = time.Now
	}
	if err := statedir.Open(dir); err != nil {
		return nil, fmt.Errorf("token: %w", err)
	}
	if err := statedir.Clean(dir); err != nil {
		return nil, fmt.Errorf("token: %w", err)
	}
	return &Store{dir: dir, td: td, now: now, create: statedir.CreateFile}, nil
}

// Create mints a token. It is on disk before it is returned.
func (s *Store) Create(spec Spec) (Token, Record, error) {
	if spec.TTL == 0 {
		spec.TTL = DefaultTTL
	}
	if err := spec.check(s.td); err != nil {
		return Token{}, Record{}, fmt.Errorf("token: create for %s %q: %w", spec.Role, spec.Name, err)
	}
	var secret [secretBytes]byte
	_, _ = rand.Read(secret[:]) // never fails, see crypto/rand
	hash := hashOf(secret[:])
	now := s.now().UTC()
	t := Token{ID: newID(), Addresses: append([]string(nil), spec.Addresses...), Pin: spec.Pin, secret: keep(secret)}
	rec := Record{
		ID: t.ID, Role: spec.Role, Name: spec.Name, Permitted: clonePermits(spec.Permitted),
		Created: now, Expires: now.Add(spec.TTL),
	}
	data, err := json.MarshalIndent(recordJSON{
		Format: format, ID: rec.ID, Role: rec.Role, Name: rec.Name, Permitted: permitsToJSON(rec.Permitted),
		Created: rec.Created, Expires: rec.Expires, Hash: hex.EncodeToString(hash[:]),
	}, "", "  ")
	if err != nil {
		return Token{}, Record{}, fmt.Errorf("token: create: %w", err)
	}
	if err := statedir.CreateFile(s.path(t.ID, recordExt), data); err != nil {
		return Token{}, Record{}, fmt.Errorf("token: create: %w", err)
	}
	return t, rec, nil
}

// Check says why a token cannot be used, and does not use it.
func (s *Store) Check(id string, secret []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.usable(id, secret, s.now().UTC())
	return err
}

// Consume uses a token up. Of any number of calls, one returns nil, and when it
// does the use is on disk.
func (s *Store) Consume(id string, secret []byte) (Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now().UTC()
	rec, err := s.usable(id, secret, now)
	if err != nil {
		return Record{}, err
	}
	rec.Used = now
	data, err := json.Marshal(usedJSON{now})
	if err != nil {
		return Record{}, fmt.Errorf("token %s: %w", id, err)
	}
	switch err := s.create(s.path(id, usedExt), data); {
	case errors.Is(err, fs.ErrExist):
		// Another process was faster.
		return Record{}, &Error{ID: id, Err: ErrUsed}
	case err != nil:
		return Record{}, fmt.Errorf("token %s: its use cannot be stored, so it is refused: %w", id, err)
	}
	return rec, nil
}

// usable returns the record of a token that is good at the time now. The caller holds mu.
func (s *Store) usable(id string, secret []byte, now time.Time) (Record, error) {
	if !validID(id) {
		return Record{}, &Error{ID: "of a malformed id", Err: ErrUnknown}
	}
	rec, hash, err := s.read(id)
	if errors.Is(err, fs.ErrNotExist) {
		return Record{}, &Error{ID: id, Err: ErrUnknown}
	}
	if err != nil {
		return Record{}, fmt.Errorf("token %s: %w", id, err)
	}
	given := hashOf(secret)
	if subtle.ConstantTimeCompare(given[:], hash) != 1 {
		return Record{}, &Error{ID: id, Err: ErrSecret}
	}
	if !rec.Used.IsZero() {
		return Record{}, &Error{ID: id, Err: ErrUsed, When: rec.Used}
	}
	if !now.Before(rec.Expires) {
		return Record{}, &Error{ID: id, Err: ErrExpired, When: rec.Expires}
	}
	return rec, nil
}

// List returns the records by ID.
func (s *Store) List() ([]Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out, err := s.list()
	if err != nil {
		return nil, fmt.Errorf("token: list: %w", err)
	}
	return out, nil
}

func (s *Store) list() ([]Record, error) {
	entries, err := os.ReadDir(s.dir) // in the order of names
	if err != nil {
		return nil, err
	}
	var out []Record
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), recordExt)
		if !ok || statedir.Temporary(e.Name()) {
			continue
		}
		rec, _, err := s.read(id)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name(), err)
		}
		out = append(out, rec)
	}
	return out, nil
}

// Revoke removes a token. One that has been used has done its work: ban the
// node instead.
func (s *Store) Revoke(id string) error {
	if !validID(id) {
		return fmt.Errorf("token: revoke: %q is not a token's id, see `hauberk token list`", id)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	rec, _, err := s.read(id)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &Error{ID: id, Err: ErrUnknown}
	case err != nil:
		return fmt.Errorf("token %s: revoke: %w", id, err)
	case !rec.Used.IsZero():
		return fmt.Errorf("token %s: revoke: %s %q has joined with it: ban the %s instead", id, rec.Role, rec.Name, rec.Role)
	}
	return s.remove(id)
}

// Prune removes tokens that expired more than a day ago; until then, who tries
// one is told what is wrong with it.
func (s *Store) Prune() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	records, err := s.list()
	if err != nil {
		return fmt.Errorf("token: prune: %w", err)
	}
	for _, rec := range records {
		if s.now().Sub(rec.Expires) > remembered {
			if err := s.remove(rec.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// remove deletes the record first: a use without a record means nothing, a
// record without its use would be a fresh token.
func (s *Store) remove(id string) error {
	if err := statedir.Remove(s.path(id, recordExt)); err != nil {
		return fmt.Errorf("token %s: remove: %w", id, err)
	}
	if err := statedir.Remove(s.path(id, usedExt)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("token %s: remove: %w", id, err)
	}
	return nil
}

func (s *Store) path(id, ext string) string { return filepath.Join(s.dir, id+ext) }

// read returns a record, its use included, and the secret's hash.
func (s *Store) read(id string) (Record, []byte, error) {
	data, err := statedir.ReadFile(s.path(id, recordExt))
	if err != nil {
		return Record{}, nil, err
	}
	var in recordJSON
	if err := strictjson.Unmarshal(data, &in); err != nil {
		return Record{}, nil, err
	}
	if in.Format != format || in.ID != id {
		return Record{}, nil, fmt.Errorf("the record has format %d and id %q, expected %d and %q", in.Format, in.ID, format, id)
	}
	hash, err := hex.DecodeString(in.Hash)
	if err != nil || len(hash) != len(hashOf(nil)) {
		return Record{}, nil, errors.New("the record's hash is damaged")
	}
	permitted, err := permitsFromJSON(in.Permitted)
	if err != nil {
		return Record{}, nil, err
	}
	if err := checkHolder(s.td, in.Role, in.Name, permitted); err != nil {
		return Record{}, nil, err
	}
	rec := Record{ID: id, Role: in.Role, Name: in.Name, Permitted: permitted, Created: in.Created, Expires: in.Expires}
	data, err = statedir.ReadFile(s.path(id, usedExt))
	if errors.Is(err, fs.ErrNotExist) {
		return rec, hash, nil
	}
	if err != nil {
		return Record{}, nil, err
	}
	var used usedJSON
	if err := strictjson.Unmarshal(data, &used); err != nil || used.Used.IsZero() {
		return Record{}, nil, errors.New("the record of its use is damaged")
	}
	rec.Used = used.Used
	return rec, hash, nil
}

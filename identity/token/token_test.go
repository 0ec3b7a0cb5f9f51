package token

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/hauberk-mesh/hauberk/identity/trust"
)

var (
	td  = spiffeid.RequireTrustDomainFromString("mesh.test")
	web = spiffeid.RequireFromString("spiffe://mesh.test/ns/default/dc/dc1/svc/web")
	pin = trust.Pin{1, 2, 3}
)

func spec() Spec {
	return Spec{
		Role: RoleNode, Name: "n1", Permitted: []Permit{{ID: web, Selectors: []string{"uid=1001", "unit=web.service"}}},
		Addresses: []string{"cp1.test:15012", "[::1]:15012"}, Pin: pin,
	}
}

type clock struct{ atomic.Int64 }

func (c *clock) now() time.Time { return time.Unix(0, c.Load()) }

func store(t *testing.T) (*Store, string, *clock) {
	t.Helper()
	dir, c := filepath.Join(t.TempDir(), "tokens"), &clock{}
	c.Store(time.Now().UnixNano())
	s, err := OpenStore(dir, td, c.now)
	if err != nil {
		t.Fatal(err)
	}
	return s, dir, c
}

func create(t *testing.T, s *Store, spec Spec) (Token, Record) {
	t.Helper()
	tok, rec, err := s.Create(spec)
	if err != nil {
		t.Fatal(err)
	}
	return tok, rec
}

func TestRoundTrip(t *testing.T) {
	s, _, _ := store(t)
	tok, rec := create(t, s, spec())
	if d := rec.Expires.Sub(rec.Created); d != DefaultTTL {
		t.Errorf("lives %s", d)
	}
	text := tok.Reveal()
	if !strings.HasPrefix(text, "hbt1.") {
		t.Errorf("got %s", text)
	}
	again, err := Parse(" " + text + "\n")
	if err != nil {
		t.Fatal(err)
	}
	if again.ID != tok.ID || again.Pin != pin || strings.Join(again.Addresses, " ") != "cp1.test:15012 [::1]:15012" || !bytes.Equal(again.Secret(), tok.Secret()) {
		t.Errorf("got %v", again)
	}
	used, err := s.Consume(again.ID, again.Secret())
	if err != nil {
		t.Fatal(err)
	}
	if used.Role != RoleNode || used.Name != "n1" || len(used.Permitted) != 1 || used.Permitted[0].ID != web || len(used.Permitted[0].Selectors) != 2 || used.Used.IsZero() {
		t.Errorf("got %+v", used)
	}
}

func TestParseRefusals(t *testing.T) {
	s, _, _ := store(t)
	tok, _ := create(t, s, spec())
	text := tok.Reveal()
	secret := text[strings.LastIndex(text, ".")+1:]
	with := func(body string) string { return "hbt1." + encoding.EncodeToString([]byte(body)) + "." + secret }
	ok := fmt.Sprintf(`"addrs":["a:1"],"pin":%q,"id":%q`, pin, tok.ID)
	if _, err := Parse(with("{" + ok + "}")); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ in, want string }{
		"empty":            {"", "does not begin"},
		"another version":  {"hbt2" + text[4:], "does not begin"},
		"no secret":        {text[:strings.LastIndex(text, ".")], "2 parts"},
		"cut off":          {text[:len(text)-3], "cut off"},
		"one part more":    {text + ".x", "4 parts"},
		"broken":           {text[:30] + "\n" + text[30:], "lines"},
		"no base64":        {"hbt1.*." + secret, "base64url"},
		"unknown field":    {with("{" + ok + `,"x":1}`), "unknown field"},
		"field twice":      {with("{" + ok + `,"id":"x"}`), "twice"},
		"path in id":       {with(fmt.Sprintf(`{"addrs":["a:1"],"pin":%q,"id":"../../../../etc/pa"}`, pin)), "id is malformed"},
		"no pin":           {with(fmt.Sprintf(`{"addrs":["a:1"],"id":%q}`, tok.ID)), "pins no signer"},
		"no address":       {with(fmt.Sprintf(`{"addrs":[],"pin":%q,"id":%q}`, pin, tok.ID)), "no address"},
		"address no port":  {with(fmt.Sprintf(`{"addrs":["a"],"pin":%q,"id":%q}`, pin, tok.ID)), "host:port"},
		"address port 0":   {with(fmt.Sprintf(`{"addrs":["a:0"],"pin":%q,"id":%q}`, pin, tok.ID)), "port from 1"},
		"too long":         {"hbt1." + strings.Repeat("a", maxText), "at most"},
		"secret unpadded=": {text + "=", "cut off or damaged"},
	} {
		_, err := Parse(tc.in)
		if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "copy the whole line") {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		} else if strings.Contains(err.Error(), secret[:20]) {
			t.Errorf("%s: the error quotes the secret", name)
		}
	}
}

func TestSecretStaysIn(t *testing.T) {
	s, dir, _ := store(t)
	tok, rec := create(t, s, spec())
	secret := tok.Reveal()[strings.LastIndex(tok.Reveal(), ".")+1:]
	var out bytes.Buffer
	nested := struct {
		Open   Token
		hidden Token
		list   []Token
		ptr    *Token
	}{tok, tok, []Token{tok}, &tok}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
		fmt.Fprintf(&out, verb+verb+verb, tok, &tok, nested)
	}
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("x", "token", tok, "ptr", &tok, "in", nested, "list", []Token{tok})
	}
	if data, err := json.Marshal(nested); err != nil {
		t.Error(err)
	} else {
		out.Write(data)
	}
	fmt.Fprintf(&out, "%+v %v", rec, fmt.Errorf("wrapped %v", tok))
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			data, err := os.ReadFile(path)
			out.WriteString(path)
			out.Write(data)
			return err
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	raw := tok.Secret()
	for name, form := range map[string]string{"base64": secret, "hex": fmt.Sprintf("%x", raw), "bytes": fmt.Sprint(raw)[1:40], "raw": string(raw), "go": fmt.Sprintf("0x%x, 0x%x, 0x%x", raw[0], raw[1], raw[2])} {
		if strings.Contains(out.String(), form) {
			t.Errorf("the secret is printed or stored as %s", name)
		}
	}
	if !strings.Contains(out.String(), "hbt1."+tok.ID+".REDACTED") || strings.Contains(tok.ID, secret[:8]) {
		t.Error("the token does not name itself")
	}
}

func TestConsumeErrors(t *testing.T) {
	s, _, c := store(t)
	tok, _ := create(t, s, spec())
	wrong := tok.Secret()
	wrong[0] ^= 1
	check := func(what, id string, secret []byte, want error) {
		t.Helper()
		_, err := s.Consume(id, secret)
		var typed *Error
		if !errors.Is(err, want) || !errors.As(err, &typed) {
			t.Errorf("%s: got %v, want %v", what, err, want)
		}
	}
	check("unknown", newID(), tok.Secret(), ErrUnknown)
	check("a path", "../"+tok.ID, tok.Secret(), ErrUnknown)
	check("no id", "", tok.Secret(), ErrUnknown)
	check("wrong secret", tok.ID, wrong, ErrSecret)
	check("no secret", tok.ID, nil, ErrSecret)
	check("longer secret", tok.ID, append(tok.Secret(), 0), ErrSecret)
	if _, err := s.Consume(tok.ID, tok.Secret()); err != nil {
		t.Fatalf("a wrong secret used the token up: %v", err)
	}
	check("used", tok.ID, tok.Secret(), ErrUsed)
	// Who does not know the secret is not told.
	check("used, wrong secret", tok.ID, wrong, ErrSecret)

	late, rec := create(t, s, spec())
	c.Store(rec.Expires.UnixNano() - 1)
	if recs, err := s.List(); err != nil || len(recs) != 2 {
		t.Fatal(recs, err)
	}
	c.Store(rec.Expires.UnixNano())
	check("expired", late.ID, late.Secret(), ErrExpired)
	check("used and expired", tok.ID, tok.Secret(), ErrUsed)
}

func TestConsumeOnce(t *testing.T) {
	s, dir, c := store(t)
	tok, _ := create(t, s, spec())
	// Two stores on one directory: what orders the uses is the disk, not a lock
	// in one process.
	twin, err := OpenStore(dir, td, c.now)
	if err != nil {
		t.Fatal(err)
	}
	var won, used atomic.Int64
	var wg sync.WaitGroup
	for i := range 100 {
		from := s
		if i%2 == 1 {
			from = twin
		}
		wg.Go(func() {
			switch _, err := from.Consume(tok.ID, tok.Secret()); {
			case err == nil:
				won.Add(1)
				// The use is on disk by now.
				if _, err := os.Stat(filepath.Join(dir, tok.ID+usedExt)); err != nil {
					t.Error(err)
				}
			case errors.Is(err, ErrUsed):
				used.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 || used.Load() != 99 {
		t.Errorf("%d won, %d were told that it is used", won.Load(), used.Load())
	}
	again, err := OpenStore(dir, td, c.now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := again.Consume(tok.ID, tok.Secret()); !errors.Is(err, ErrUsed) {
		t.Errorf("after a restart: %v", err)
	}
}

// A use that cannot be stored is none.
func TestConsumeNeedsTheDisk(t *testing.T) {
	s, dir, c := store(t)
	tok, _ := create(t, s, spec())
	create := s.create
	s.create = func(string, []byte) error { return syscall.ENOSPC }
	if _, err := s.Consume(tok.ID, tok.Secret()); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("consumed on a full disk: %v", err)
	}
	s.create = create
	if err := os.Mkdir(filepath.Join(dir, tok.ID+usedExt), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Consume(tok.ID, tok.Secret()); err == nil {
		t.Error("consumed without a record")
	}
	if err := os.Remove(filepath.Join(dir, tok.ID+usedExt)); err != nil {
		t.Fatal(err)
	}
	// And one whose record is damaged is not taken for fresh.
	if err := os.WriteFile(filepath.Join(dir, tok.ID+usedExt), []byte(`{"us`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Consume(tok.ID, tok.Secret()); err == nil || errors.Is(err, ErrUsed) {
		t.Errorf("got %v", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenStore(dir, td, c.now); err == nil || !strings.Contains(err.Error(), "chmod 0700") {
		t.Errorf("got %v", err)
	}
}

func TestSpec(t *testing.T) {
	s, dir, _ := store(t)
	id := spiffeid.RequireFromString
	for name, tc := range map[string]struct {
		change func(*Spec)
		want   string // empty when good
	}{
		"good":                  {func(*Spec) {}, ""},
		"control plane":         {func(s *Spec) { s.Role, s.Permitted = RoleControlPlane, nil }, ""},
		"operator":              {func(s *Spec) { s.Role, s.Permitted = RoleOperator, nil }, ""},
		"no role":               {func(s *Spec) { s.Role = "" }, "role"},
		"no name":               {func(s *Spec) { s.Name = "" }, "empty"},
		"bad name":              {func(s *Spec) { s.Name = "a/b" }, "'/' is not allowed"},
		"long name":             {func(s *Spec) { s.Name = strings.Repeat("x", 201) }, "at most 200"},
		"too short":             {func(s *Spec) { s.TTL = time.Millisecond }, "not between"},
		"negative":              {func(s *Spec) { s.TTL = -time.Hour }, "not between"},
		"too long":              {func(s *Spec) { s.TTL = 25 * time.Hour }, "not between"},
		"no address":            {func(s *Spec) { s.Addresses = nil }, "no address"},
		"no pin":                {func(s *Spec) { s.Pin = trust.Pin{} }, "no pin"},
		"operator with IDs":     {func(s *Spec) { s.Role = RoleOperator }, "only a node's"},
		"another trust domain":  {func(s *Spec) { s.Permitted[0].ID = id("spiffe://b.test/x") }, "not of the trust domain"},
		"the trust domain":      {func(s *Spec) { s.Permitted[0].ID = id("spiffe://mesh.test") }, "no path"},
		"a reserved ID":         {func(s *Spec) { s.Permitted[0].ID = id("spiffe://mesh.test/hauberk/controlplane/x") }, "reserved"},
		"an ID twice":           {func(s *Spec) { s.Permitted = append(s.Permitted, s.Permitted[0]) }, "twice"},
		"executable":            {func(s *Spec) { s.Permitted[0].Selectors = []string{"exe=/bin/web"} }, `kind "exe" is not known`},
		"user name":             {func(s *Spec) { s.Permitted[0].Selectors = []string{"uid=web"} }, "number"},
		"padded uid":            {func(s *Spec) { s.Permitted[0].Selectors = []string{"uid=01"} }, "number"},
		"no user":               {func(s *Spec) { s.Permitted[0].Selectors = []string{"uid=4294967295"} }, "number"},
		"no value":              {func(s *Spec) { s.Permitted[0].Selectors = []string{"gid"} }, "number"},
		"unit without a suffix": {func(s *Spec) { s.Permitted[0].Selectors = []string{"unit=web"} }, "systemd"},
	} {
		in := spec()
		tc.change(&in)
		_, _, err := s.Create(in)
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 3 {
		t.Errorf("%d files for three tokens", len(entries))
	}
}

func TestRevokeAndPrune(t *testing.T) {
	s, dir, c := store(t)
	a, _ := create(t, s, spec())
	b, rec := create(t, s, spec())
	if err := s.Revoke(a.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Consume(a.ID, a.Secret()); !errors.Is(err, ErrUnknown) {
		t.Errorf("a revoked token: %v", err)
	}
	if err := s.Revoke(a.ID); !errors.Is(err, ErrUnknown) {
		t.Errorf("got %v", err)
	}
	if err := s.Revoke("../x"); err == nil {
		t.Error("a path was revoked")
	}
	if _, err := s.Consume(b.ID, b.Secret()); err != nil {
		t.Fatal(err)
	}
	if err := s.Revoke(b.ID); err == nil || !strings.Contains(err.Error(), "ban the node") {
		t.Errorf("got %v", err)
	}
	if err := s.Prune(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Consume(b.ID, b.Secret()); !errors.Is(err, ErrUsed) {
		t.Errorf("forgotten at once: %v", err)
	}
	c.Store(rec.Expires.Add(25 * time.Hour).UnixNano())
	if err := s.Prune(); err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("left: %v", entries)
	}
}

func FuzzParse(f *testing.F) {
	tok := Token{ID: strings.Repeat("a", 2*idBytes), Addresses: []string{"a:1"}, Pin: pin, secret: keep([secretBytes]byte{})}
	f.Add(tok.Reveal())
	f.Add("hbt1.e30.AAAA")
	f.Fuzz(func(t *testing.T, in string) {
		got, err := Parse(in)
		if err != nil {
			return
		}
		again, err := Parse(got.Reveal())
		if err != nil || again.ID != got.ID || !bytes.Equal(again.Secret(), got.Secret()) {
			t.Fatalf("%v", err)
		}
	})
}

package cache

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

var secret = bytes.Repeat([]byte{7}, 32)

func open(t testing.TB, path, owner string, secret []byte) *Cache {
	t.Helper()
	c, err := Open(path, owner, secret)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func resources(t testing.TB) []*resource.Resource {
	t.Helper()
	c, err := resource.New("web", &clusterv3.Cluster{Name: "web"})
	if err != nil {
		t.Fatal(err)
	}
	e, err := resource.New("web", &endpointv3.ClusterLoadAssignment{ClusterName: "web"})
	if err != nil {
		t.Fatal(err)
	}
	return []*resource.Resource{c, e}
}

func stored(t testing.TB) (*Cache, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.cache")
	c := open(t, path, "n1", secret)
	if err := c.Store("cp1", resources(t)); err != nil {
		t.Fatal(err)
	}
	return c, path
}

func TestWhatIsStoredIsLoaded(t *testing.T) {
	_, path := stored(t)
	st, err := open(t, path, "n1", secret).Load()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(resources(t), st.Resources, protocmp.Transform()); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	if st.Sequence != 1 || st.Server != "cp1" || time.Since(st.Saved) > time.Minute || time.Since(st.Saved) < 0 {
		t.Errorf("%+v", st)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600", info.Mode().Perm())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b, []byte("web")) {
		t.Error("the file shows its content")
	}
}

func TestNoFileIsNoError(t *testing.T) {
	if _, err := open(t, filepath.Join(t.TempDir(), "none"), "n1", secret).Load(); !errors.Is(err, ErrNone) {
		t.Fatal(err)
	}
}

func TestSequenceGrowsAcrossProcesses(t *testing.T) {
	c, path := stored(t)
	if err := c.Store("cp1", nil); err != nil {
		t.Fatal(err)
	}
	// A process that never loads goes on where the file stands.
	again := open(t, path, "n1", secret)
	if err := again.Store("cp2", resources(t)); err != nil {
		t.Fatal(err)
	}
	st, err := open(t, path, "n1", secret).Load()
	if err != nil || st.Sequence != 3 || st.Server != "cp2" {
		t.Fatalf("%+v, %v", st, err)
	}
}

func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(t *testing.T, path string)
		owner  string
		secret []byte
		want   string
	}{
		"another node":   {owner: "n2", want: "not authentic"},
		"another secret": {secret: bytes.Repeat([]byte{8}, 32), want: "not authentic"},
		"later format":   {change: edit(func(b []byte) []byte { b[len(magic)]++; return b }), want: "format 2, this version reads format 1"},
		"other file":     {change: edit(func([]byte) []byte { return []byte("hello") }), want: "not a configuration cache"},
		"empty":          {change: edit(func([]byte) []byte { return nil }), want: "not a configuration cache"},
		"head only":      {change: edit(func(b []byte) []byte { return b[:len(magic)+1+saltSize] }), want: "not authentic"},
		"appended":       {change: edit(func(b []byte) []byte { return append(b, 0) }), want: "not authentic"},
		"symlink": {change: func(t *testing.T, path string) {
			if err := errors.Join(os.Rename(path, path+".real"), os.Symlink(path+".real", path)); err != nil {
				t.Fatal(err)
			}
		}, want: "symbolic link"},
		"pipe": {change: func(t *testing.T, path string) {
			if err := errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o600)); err != nil {
				t.Fatal(err)
			}
		}, want: "not a regular file"},
		"directory": {change: func(t *testing.T, path string) {
			if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700)); err != nil {
				t.Fatal(err)
			}
		}, want: "not a regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			_, path := stored(t)
			if c.change != nil {
				c.change(t, path)
			}
			if c.owner == "" {
				c.owner = "n1"
			}
			if c.secret == nil {
				c.secret = secret
			}
			st, err := open(t, path, c.owner, c.secret).Load()
			if st != nil || err == nil || errors.Is(err, ErrNone) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Fatalf("%v, %v; want an error with the path about %q", st, err, c.want)
			}
		})
	}
}

func edit(f func([]byte) []byte) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, f(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestEveryByteCounts changes each byte and cuts at each length: none loads.
func TestEveryByteCounts(t *testing.T) {
	c, path := stored(t)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		b := bytes.Clone(good)
		b[i] ^= 1
		if _, err := c.open(b); err == nil {
			t.Fatalf("byte %d changed and not noticed", i)
		}
		if _, err := c.open(good[:i]); err == nil {
			t.Fatalf("cut at %d and not noticed", i)
		}
	}
}

func TestEachWriteHasItsOwnKey(t *testing.T) {
	c, path := stored(t)
	a, _ := os.ReadFile(path)
	if err := c.Store("cp1", resources(t)); err != nil {
		t.Fatal(err)
	}
	b, _ := os.ReadFile(path)
	salt := func(b []byte) []byte { return b[len(magic)+1 : len(magic)+1+saltSize] }
	if bytes.Equal(salt(a), salt(b)) {
		t.Fatal("one salt for two files: one key and nonce for two contents")
	}
}

func TestFailedWriteLeavesTheOldFile(t *testing.T) {
	c, path := stored(t)
	dir := filepath.Dir(path)
	// A directory in the temporary file's place makes the write fail.
	if err := os.MkdirAll(filepath.Join(path+".tmp", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := c.Store("cp2", nil); err == nil {
		t.Fatal("no error")
	}
	if st, err := c.Load(); err != nil || st.Server != "cp1" {
		t.Fatalf("%+v, %v", st, err)
	}
	if err := os.RemoveAll(path + ".tmp"); err != nil {
		t.Fatal(err)
	}
	// What a crash left behind is replaced, whatever its mode.
	if err := os.WriteFile(path+".tmp", []byte("half"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := c.Store("cp2", nil); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("%v, %v", entries, err)
	}
}

func TestOpenChecks(t *testing.T) {
	for _, c := range []struct {
		path, owner string
		secret      []byte
	}{{"", "n", secret}, {"p", "", secret}, {"p", "n", secret[:31]}, {"p", "n", nil}} {
		if _, err := Open(c.path, c.owner, c.secret); err == nil {
			t.Errorf("%+v accepted", c)
		}
	}
}

func TestAuthenticNonsenseIsRefused(t *testing.T) {
	mixed := resources(t)
	for name, c := range map[string]struct {
		plain []byte
		want  string
	}{
		"no preamble":   {[]byte("{}"), "no preamble"},
		"not json":      {[]byte("x\n"), "preamble"},
		"type missing":  {[]byte(`{"types":1}` + "\n"), "type 1 of 1"},
		"type too many": {append([]byte(`{"types":0}`+"\n"), 0), "more than the 0 types"},
		"no version":    {mustEncode(t, &resource.Resource{Type: mixed[0].Type, Name: "a", Body: mixed[0].Body}), "no version"},
		"no name":       {mustEncode(t, &resource.Resource{Type: mixed[0].Type, Version: "1", Body: mixed[0].Body}), "no name"},
		"twice":         {mustEncode(t, mixed[0], mixed[0]), "twice"},
		"wrong body":    {mustEncode(t, &resource.Resource{Type: mixed[0].Type, Name: "a", Version: "1", Body: mixed[1].Body}), "has a body of type"},
	} {
		if st, err := decode(c.plain); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %v; want an error about %q", name, st, err, c.want)
		}
	}
}

func mustEncode(t testing.TB, rs ...*resource.Resource) []byte {
	t.Helper()
	b, err := encode(&State{Resources: rs})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// FuzzDecode: whatever decodes encodes to something that decodes to the same.
func FuzzDecode(f *testing.F) {
	f.Add(mustEncode(f, resources(f)...))
	f.Add([]byte(`{"sequence":1,"types":0}` + "\n"))
	f.Add([]byte("{}\n\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		st, err := decode(b)
		if err != nil {
			return
		}
		again, err := decode(mustEncode(t, st.Resources...))
		if err != nil {
			t.Fatal(err)
		}
		if len(again.Resources) != len(st.Resources) {
			t.Fatalf("%d resources became %d", len(st.Resources), len(again.Resources))
		}
	})
}

package ca

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/identity/internal/idtest"
)

// stateWith makes a directory with something of everything, and its CA.
func stateWith(t *testing.T) (Config, *CA) {
	cfg := config(t, "cp1")
	c := open(t, cfg)
	if _, err := c.Issue(Request{CSR: csr(t, idtest.Key(t)), ID: web}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Prepare(); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"nodes", "tokens"} {
		if err := os.Mkdir(filepath.Join(cfg.Dir, dir), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(cfg.Dir, dir, "x.json"), []byte("{}"))
	}
	write(t, filepath.Join(cfg.Dir, "nodes", ".tmp-1"), []byte("half"))
	l, err := net.Listen("unix", filepath.Join(cfg.Dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return cfg, c
}

func TestBackupAndRestore(t *testing.T) {
	cfg, c := stateWith(t)
	path := filepath.Join(t.TempDir(), "backup.tar")
	// The CA is open, as it is when an operator makes a backup.
	if err := BackupFile(cfg.Dir, path); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := BackupFile(cfg.Dir, path); err == nil {
		t.Error("a backup was overwritten")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
	if len(names) != 10 || !slices.Contains(names, "nodes/x.json") || slices.ContainsFunc(names, func(n string) bool {
		return strings.Contains(n, "token") || strings.Contains(n, "lock") || strings.Contains(n, ".tmp") || n == "s"
	}) {
		t.Errorf("the backup holds %q", names)
	}

	absent, empty := filepath.Join(t.TempDir(), "a", "b"), t.TempDir()
	for _, dir := range []string{absent, empty} {
		if err := Restore(bytes.NewReader(data), dir); err != nil {
			t.Fatal(err)
		}
		restored := cfg
		restored.Dir = dir
		again := open(t, restored)
		if !again.Bundle().Equal(c.Bundle()) || len(again.Signers()) != 2 {
			t.Error("the restored CA is another one")
		}
		if _, err := again.Issue(Request{CSR: csr(t, idtest.Key(t)), ID: web}); err != nil {
			t.Error(err)
		}
		if err := Restore(bytes.NewReader(data), dir); err == nil || !strings.Contains(err.Error(), "not empty") {
			t.Errorf("overwritten: %v", err)
		}
	}
	if err := Backup(t.TempDir(), io.Discard); err == nil {
		t.Error("a directory that holds no CA was backed up")
	}
	failing := filepath.Join(t.TempDir(), "x.tar")
	if err := BackupFile(t.TempDir(), failing); err == nil {
		t.Error("no error")
	} else if _, err := os.Stat(failing); err == nil {
		t.Error("a failed backup left its file")
	}
}

// A signer prepared while the backup is made does not spoil it.
func TestBackupWhileChanging(t *testing.T) {
	cfg, c := stateWith(t)
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			s, err := c.Prepare()
			if err == nil {
				err = c.Activate(s.ID)
			}
			if err != nil {
				t.Error(err)
				return
			}
		}
	}()
	for range 10 {
		var out bytes.Buffer
		if err := Backup(cfg.Dir, &out); err != nil {
			t.Error(err)
			continue
		}
		if err := Restore(&out, filepath.Join(t.TempDir(), "r")); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	<-done
}

func TestRestoreRefusals(t *testing.T) {
	cfg, _ := stateWith(t)
	var good bytes.Buffer
	if err := Backup(cfg.Dir, &good); err != nil {
		t.Fatal(err)
	}
	type file struct {
		h    tar.Header
		data []byte
	}
	var files []file
	for r := tar.NewReader(bytes.NewReader(good.Bytes())); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		data, err2 := io.ReadAll(r)
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		files = append(files, file{*h, data})
	}
	reg := func(name string) file {
		return file{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600, Size: 1}, []byte("x")}
	}
	link := func(kind byte, name, to string) file {
		return file{tar.Header{Typeflag: kind, Name: name, Linkname: to}, nil}
	}
	without := func(part string) []file {
		return slices.DeleteFunc(slices.Clone(files), func(f file) bool { return strings.Contains(f.h.Name, part) })
	}
	replaced := func(part string, data []byte) []file {
		out := slices.Clone(files)
		for i, f := range out {
			if strings.Contains(f.h.Name, part) {
				out[i].h.Size, out[i].data = int64(len(data)), data
			}
		}
		return out
	}
	plus := func(f ...file) []file { return append(slices.Clone(files), f...) }
	for name, tc := range map[string]struct {
		files []file
		want  string
	}{
		"up":                    {plus(reg("../evil")), "not a name inside"},
		"up from below":         {plus(reg("nodes/../../evil")), "not a name inside"},
		"absolute":              {plus(reg("/tmp/evil")), "not a name inside"},
		"not clean":             {plus(reg("nodes//evil")), "not a name inside"},
		"backslash":             {plus(reg(`..\evil`)), "not a name inside"},
		"the directory itself":  {plus(file{tar.Header{Typeflag: tar.TypeDir, Name: "./"}, nil}), "not a name inside"},
		"through a link":        {plus(link(tar.TypeSymlink, "out", "/tmp"), reg("out/evil")), "neither a file nor a directory"},
		"a hard link":           {plus(link(tar.TypeLink, "out", "bundle.json")), "neither a file nor a directory"},
		"a device":              {plus(link(tar.TypeChar, "null", "")), "neither a file nor a directory"},
		"a file twice":          {plus(reg("bundle.json")), "file exists"},
		"a token":               {plus(reg("tokens/a.json")), "never part of a backup"},
		"a lock":                {plus(reg("lock")), "never part of a backup"},
		"no bundle":             {without(bundleFile), "bundle.json is missing"},
		"no authority":          {without(authorityFile), "not usable"},
		"no signers":            {without(signersDir), "not usable"},
		"no keys":               {without(keySuffix), "not usable"},
		"a key that fits not":   {replaced(keySuffix, idtest.KeyPEM(t, idtest.Key(t))), "does not belong to the certificate"},
		"a bundle that is none": {replaced(bundleFile, []byte("{}")), "format 0"},
		"nothing":               {nil, "not usable"},
	} {
		t.Run(name, func(t *testing.T) {
			var in bytes.Buffer
			w := tar.NewWriter(&in)
			for _, f := range tc.files {
				if err := w.WriteHeader(&f.h); err != nil {
					t.Fatal(err)
				}
				if _, err := w.Write(f.data); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			parent := t.TempDir()
			err := Restore(&in, filepath.Join(parent, "state"))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			if left, _ := os.ReadDir(parent); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
	for name, in := range map[string][]byte{"cut off": good.Bytes()[:good.Len()/2], "no tar": []byte(strings.Repeat("no tar at all", 100))} {
		if err := Restore(bytes.NewReader(in), filepath.Join(t.TempDir(), "s")); err == nil {
			t.Errorf("%s: restored", name)
		}
	}
}

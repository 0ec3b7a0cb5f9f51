package ca

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// told are the serials in the journal's files.
func told(t *testing.T, dir string) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	for _, path := range glob(t, filepath.Join(dir, "issued*")) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			var e entry
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			if out[e.Serial] {
				t.Errorf("%s is told twice", e.Serial)
			}
			out[e.Serial] = true
		}
	}
	return out
}

// TestJournalIsBounded: what it tells of certificates that have expired is let go, beyond a bound;
// what may be valid never, also over restarts.
func TestJournalIsBounded(t *testing.T) {
	const (
		every = time.Minute
		life  = time.Hour
		all   = 1000
	)
	for _, kept := range []int64{0, 4000, 1 << 30} {
		dir, began := t.TempDir(), time.Now().UTC().Truncate(time.Second)
		path := filepath.Join(dir, journalFile)
		var size int64
		for i := 0; i < all; {
			j, err := openJournal(path, -1)
			if err != nil {
				t.Fatal(err)
			}
			j.kept = kept
			for range 7 {
				j.full = 2000
				now := began.Add(time.Duration(i) * every)
				if err := j.append(entry{Time: now, Serial: fmt.Sprint(i), NotAfter: now.Add(life)}); err != nil {
					t.Fatal(err)
				}
				i++
			}
			if err := j.close(); err != nil {
				t.Fatal(err)
			}
		}
		have := told(t, dir)
		for i := all - int(life/every); i < all; i++ {
			if !have[fmt.Sprint(i)] {
				t.Errorf("kept %d: the valid certificate %d is not told", kept, i)
			}
		}
		for _, p := range glob(t, filepath.Join(dir, "*")) {
			info, err := os.Stat(p)
			if err != nil {
				t.Fatal(err)
			}
			if size += info.Size(); info.Mode().Perm() != 0o600 {
				t.Errorf("%s has mode %o", p, info.Mode().Perm())
			}
		}
		// An hour's lines, what is kept, and a file at either end.
		if most := kept + 60*200 + 2*2200; size > most {
			t.Errorf("kept %d: %d bytes, at most %d", kept, size, most)
		}
		if kept == 1<<30 && len(have) < all {
			t.Errorf("%d of %d are told though all is kept", len(have), all)
		}
	}
}

// TestJournalThatCannotBeSetAside grows on.
func TestJournalThatCannotBeSetAside(t *testing.T) {
	dir, now := t.TempDir(), time.Now().UTC().Truncate(time.Second)
	j, err := openJournal(filepath.Join(dir, journalFile), -1)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 { // at one time, so that the name is taken
		j.full = 500
		if err := j.append(entry{Time: now, Serial: fmt.Sprint(i), NotAfter: now.Add(time.Hour)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
	if n := len(told(t, dir)); n != 20 {
		t.Errorf("%d of 20 are told", n)
	}
}

// TestBackupThatCannotBeRestored is none.
func TestBackupThatCannotBeRestored(t *testing.T) {
	var out bytes.Buffer
	b := &bounded{&out, 10}
	if _, err := b.Write(make([]byte, 10)); err != nil {
		t.Error(err)
	}
	if _, err := b.Write([]byte{0}); err == nil || !strings.Contains(err.Error(), "journal") || out.Len() != 10 {
		t.Errorf("%v, %d bytes", err, out.Len())
	}
}

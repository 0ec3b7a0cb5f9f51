package ca

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hauberk-mesh/hauberk/identity/internal/statedir"
)

// entry is one line of the journal. It holds nothing secret.
type entry struct {
	Time     time.Time `json:"time"`
	Serial   string    `json:"serial"`
	ID       string    `json:"id"`
	Node     string    `json:"node,omitempty"`
	Key      string    `json:"key"` // pin of the leaf's key
	Signer   string    `json:"signer"`
	NotAfter time.Time `json:"not_after"`
}

// journal appends what was issued. A line is written before its certificate is
// returned, so a crash of the process loses none. It is synced to disk within
// the interval, so a crash of the machine may lose the lines of the last one;
// with a negative interval each line is synced before its certificate is
// returned.
//
// A full file is set aside under a name that says until when the last of its certificates lives, and
// another begun: whoever may ask for certificates would fill the disk otherwise, after which nothing
// is issued to anybody.
type journal struct {
	path     string
	interval time.Duration
	kept     int64

	mu     sync.Mutex
	file   *os.File
	timer  *time.Timer // pending sync, nil when all is on disk
	failed error       // of a sync in the background, told to the next append
	torn   bool        // the last line may be there in part
	closed bool
	size   int64
	full   int64     // the size at which another file is begun
	until  time.Time // of the file: when its certificates have expired
}

const (
	// journalBytes is about the size of one file; journalKept bounds those set aside that tell of
	// nothing any more that is valid. What may be valid is kept in any case.
	journalBytes = 16 << 20
	journalKept  = 256 << 20

	journalTime  = "20060102T150405.000000Z"
	journalUntil = "-until-"
)

func openJournal(path string, interval time.Duration) (*journal, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := statedir.CheckFile(f); err != nil {
		_ = f.Close()
		return nil, err
	}
	j := &journal{path: path, interval: interval, file: f, kept: journalKept, full: journalBytes}
	if err := errors.Join(j.endLine(path), j.read()); err != nil {
		_ = f.Close()
		return nil, err
	}
	return j, nil
}

// read finds how long what is in the file lives. A line that is no entry tells of no certificate.
func (j *journal) read() error {
	f, err := os.Open(j.path)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewReaderSize(f, 64<<10)
	for {
		line, err := lines.ReadBytes('\n')
		j.size += int64(len(line))
		var e entry
		if json.Unmarshal(line, &e) == nil && e.NotAfter.After(j.until) {
			j.until = e.NotAfter
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// endLine closes a line that a crash cut off, so that the next one is whole.
func (j *journal) endLine(path string) error {
	info, err := j.file.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	r, err := os.Open(path)
	if err != nil {
		return err
	}
	defer r.Close()
	var last [1]byte
	if _, err := r.ReadAt(last[:], info.Size()-1); err != nil {
		return err
	}
	if last[0] == '\n' {
		return nil
	}
	_, err = j.file.Write([]byte{'\n'})
	return err
}

func (j *journal) append(e entry) error {
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return errors.New("the CA is closed")
	}
	if err := j.failed; err != nil {
		j.failed = nil
		return err
	}
	line = append(line, '\n')
	if j.torn {
		line = append([]byte{'\n'}, line...)
	}
	// One write, so that lines of one process never mix.
	if n, err := j.file.Write(line); err != nil {
		j.torn = j.torn || n > 0
		return err
	}
	j.torn = false
	if j.size += int64(len(line)); e.NotAfter.After(j.until) {
		j.until = e.NotAfter
	}
	switch {
	case j.size >= j.full:
		return j.rotate(e.Time)
	case j.interval < 0:
		return j.file.Sync()
	case j.timer == nil:
		j.timer = time.AfterFunc(j.interval, j.sync)
	}
	return nil
}

// rotate sets the file aside and begins another. Where that cannot be done the one that there is
// grows on.
func (j *journal) rotate(now time.Time) error {
	if err := j.file.Sync(); err != nil {
		return err
	}
	base := strings.TrimSuffix(j.path, journalExt)
	aside := base + "-" + now.UTC().Format(journalTime) + journalUntil + j.until.UTC().Format(journalTime) + journalExt
	j.full = j.size + journalBytes
	if _, err := os.Lstat(aside); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := os.Rename(j.path, aside); err != nil {
		return nil
	}
	next, err := os.OpenFile(j.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return os.Rename(aside, j.path)
	}
	_ = j.file.Close() // it is on disk
	j.file, j.size, j.until, j.full = next, 0, time.Time{}, journalBytes
	j.prune(base, now)
	return statedir.SyncDir(filepath.Dir(j.path))
}

// prune removes the oldest files that were set aside, of which every certificate has expired.
func (j *journal) prune(base string, now time.Time) {
	dir := filepath.Dir(base)
	entries, err := os.ReadDir(dir) // in the order of their names, which is that of time
	if err != nil {
		return
	}
	var total int64
	for _, e := range slices.Backward(entries) {
		name, ours := strings.CutPrefix(e.Name(), filepath.Base(base)+"-")
		_, end, aside := strings.Cut(strings.TrimSuffix(name, journalExt), journalUntil)
		info, err := e.Info()
		if !ours || !aside || err != nil {
			continue
		}
		total += info.Size()
		until, err := time.Parse(journalTime, end)
		if total > j.kept && err == nil && until.Before(now) {
			_ = os.Remove(filepath.Join(dir, e.Name())) // tried again with the next one
		}
	}
}

func (j *journal) sync() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return
	}
	j.timer = nil
	if err := j.file.Sync(); err != nil {
		j.failed = err
	}
}

func (j *journal) close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return nil
	}
	j.closed = true
	if j.timer != nil {
		j.timer.Stop()
	}
	return errors.Join(j.failed, j.file.Sync(), j.file.Close())
}

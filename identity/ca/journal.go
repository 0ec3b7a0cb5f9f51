package ca

import (
	"encoding/json"
	"errors"
	"os"
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
type journal struct {
	interval time.Duration

	mu     sync.Mutex
	file   *os.File
	timer  *time.Timer // pending sync, nil when all is on disk
	failed error       // of a sync in the background, told to the next append
	torn   bool        // the last line may be there in part
	closed bool
}

func openJournal(path string, interval time.Duration) (*journal, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := statedir.CheckFile(f); err != nil {
		_ = f.Close()
		return nil, err
	}
	j := &journal{interval: interval, file: f}
	if err := j.endLine(path); err != nil {
		_ = f.Close()
		return nil, err
	}
	return j, nil
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
	if j.interval < 0 {
		return j.file.Sync()
	}
	if j.timer == nil {
		j.timer = time.AfterFunc(j.interval, j.sync)
	}
	return nil
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

package files

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// maxSettle bounds the wait for a directory that never stops changing.
const maxSettle = 2 * time.Second

// watcher tells when the files of a directory are different.
type watcher struct {
	cfg    Config
	notify *fsnotify.Watcher // nil where the system has no notification to give
	seen   string            // signature of what was last reported
}

func newWatcher(cfg Config) (*watcher, error) {
	sig, err := signature(cfg.Dir)
	if err != nil {
		return nil, err
	}
	w := &watcher{cfg: cfg, seen: sig}
	if n, err := fsnotify.NewWatcher(); err == nil {
		w.notify = n
		w.follow()
	}
	return w, nil
}

func (w *watcher) close() {
	if w.notify != nil {
		_ = w.notify.Close()
	}
}

// follow watches the directory that the path means now; it may be a link that
// was pointed elsewhere. Without it polling remains.
func (w *watcher) follow() {
	if w.notify != nil {
		_ = w.notify.Add(w.cfg.Dir)
	}
}

// forget makes changed report the directory even if it stays as it is.
func (w *watcher) forget() { w.seen = "" }

// changed waits until the directory differs from what was last reported and has
// then been still for a moment, and returns when the difference was noticed.
func (w *watcher) changed(ctx context.Context) (time.Time, error) {
	poll := time.NewTicker(w.cfg.Poll)
	defer poll.Stop()
	var events chan fsnotify.Event
	var errs chan error
	if w.notify != nil {
		events, errs = w.notify.Events, w.notify.Errors
	}
	for {
		select {
		case <-ctx.Done():
			return time.Time{}, ctx.Err()
		case <-events:
		case <-errs:
		case <-poll.C:
			w.follow()
		}
		noticed := time.Now()
		sig, err := w.settle(ctx)
		if err != nil {
			return time.Time{}, err
		}
		if sig != w.seen {
			w.seen = sig
			return noticed, nil
		}
	}
}

// settle waits until two looks at the directory, a moment apart, agree: a file
// that is being written has a beginning that may well parse.
func (w *watcher) settle(ctx context.Context) (string, error) {
	sig := mustSignature(w.cfg.Dir)
	if sig == w.seen {
		return sig, nil
	}
	t := time.NewTimer(w.cfg.Quiet)
	defer t.Stop()
	for until := time.Now().Add(maxSettle); time.Now().Before(until); {
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-t.C:
		}
		next := mustSignature(w.cfg.Dir)
		if next == sig {
			break
		}
		sig = next
		t.Reset(w.cfg.Quiet)
	}
	return sig, nil
}

// mustSignature turns an error into a signature: a directory that cannot be
// read is different from one that can, and reading it reports why.
func mustSignature(dir string) string {
	sig, err := signature(dir)
	if err != nil {
		return "error: " + err.Error()
	}
	return sig
}

// signature changes when a file that is read changes. The inode catches what
// modification time does not: a file moved over another keeps its own.
func signature(dir string) (string, error) {
	names, err := list(dir)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, name := range names {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "%s\x00%d\x00%d\x00%s\x00", name, info.Size(), info.ModTime().UnixNano(), inode(info))
	}
	return b.String(), nil
}

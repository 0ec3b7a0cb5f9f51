package telemetry

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// standing takes nothing until it is let go.
type standing struct {
	began, release chan struct{}
}

func (s *standing) Write(p []byte) (int, error) {
	select {
	case s.began <- struct{}{}:
	default:
	}
	<-s.release
	return len(p), nil
}

// awaitWriters returns when no writer runs.
func awaitWriters(l *Logs) {
	left := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.running)
	}
	for left() > 0 {
		<-l.end
	}
}

// TestCloseLeavesAWriterThatStands: it is waited for, and then no longer; what it has
// counts as dropped, also where it comes through after all.
func TestCloseLeavesAWriterThatStands(t *testing.T) {
	m := NewMetrics()
	logs := NewLogs(m)
	logs.patience = time.Millisecond
	l, err := logs.Open([]AccessLogConfig{{Path: filepath.Join(t.TempDir(), "log"), Format: "%RESPONSE_CODE%\n"}})
	if err != nil {
		t.Fatal(err)
	}
	w := &standing{began: make(chan struct{}, 1), release: make(chan struct{})}
	for _, f := range logs.files {
		f.out = w // before its first line
	}
	l.Log(sample())
	<-w.began
	l.Log(sample())
	l.Close()
	logs.Close()
	if dropped := logs.dropped.Value(); dropped != 2 {
		t.Errorf("%d lines dropped, want 2", dropped)
	}
	close(w.release)
	awaitWriters(logs)
	if written, failed, dropped := logs.written.Value(), logs.failed.Value(), logs.dropped.Value(); written != 0 || failed != 0 || dropped != 2 {
		t.Errorf("%d written, %d failed, %d dropped: a line counts once", written, failed, dropped)
	}
}

// TestCloseEndsTheWriterOfAPipe: one that waits for a reader does not outlive the logs.
func TestCloseEndsTheWriterOfAPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	logs := NewLogs(NewMetrics())
	logs.patience = time.Millisecond
	l, err := logs.Open([]AccessLogConfig{{Path: path, Format: strings.Repeat("x", 1000)}})
	if err != nil {
		t.Fatal(err)
	}
	const lines = 200 // more than a pipe holds
	for range lines {
		l.Log(sample())
	}
	l.Close()
	logs.Close()
	awaitWriters(logs)
	if got := logs.written.Value() + logs.failed.Value() + logs.dropped.Value(); got != lines {
		t.Errorf("%d of %d lines are counted", got, lines)
	}
}

// TestPipeThatNobodyReads: whoever opens it does not wait for a reader, with locks that
// updates need.
func TestPipeThatNobodyReads(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	logs := NewLogs(NewMetrics())
	opened := make(chan error, 1)
	go func() {
		_, err := logs.Open([]AccessLogConfig{{Path: path, Format: "x\n"}})
		opened <- err
	}()
	select {
	case err := <-opened:
		if !errors.Is(err, syscall.ENXIO) {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("a reader is waited for")
		if r, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0); err == nil {
			<-opened
			_ = r.Close()
		}
	}
	logs.Close()
}

// TestLinesThatNobodyReads: a pipe whose reader has gone fails, and the process goes on.
func TestLinesThatNobodyReads(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	defer w.Close()
	logs := NewLogs(NewMetrics())
	l, err := logs.Open([]AccessLogConfig{{Path: filepath.Join(t.TempDir(), "log"), Format: "%RESPONSE_CODE%\n"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range logs.files {
		f.out = w
	}
	l.Log(sample())
	l.Close()
	logs.Close()
	if n := logs.failed.Value(); n != 1 {
		t.Errorf("%d lines failed, want 1", n)
	}
}

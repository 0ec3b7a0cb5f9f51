package telemetry

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	// maxPending bounds the lines that wait for a writer; beyond it they drop.
	maxPending = 1 << 20
	// maxLine bounds one line, and the buffers kept in the pool.
	maxLine = 64 << 10
	// A writer gathers lines for this long, or until there are so many bytes: to wake
	// it and to write for each line would cost a request more than all its counters.
	gatherTime  = 50 * time.Millisecond
	gatherBytes = 32 << 10
	// closePatience is how long the end waits for writers.
	closePatience = 2 * time.Second
)

// logFile is one writer with a goroutine of its own. Lines collect in one buffer
// while the goroutine writes the other, so that a slow disk costs the data path a
// copy and nothing else.
type logFile struct {
	owner *Logs
	path  string

	// begun says that the first line is there, hurry that nobody wants to wait.
	begun, hurry chan struct{}

	mu      sync.Mutex
	pending []byte
	lines   uint64
	refs    int
	closed  bool
	reopen  bool
	flushed *sync.Cond
	writing bool
	// given are the lines that the writer has; lost tells that it is waited for no
	// longer, and that they count as dropped.
	given uint64
	lost  bool

	// out and closer are the writer's to set; others read closer under mu.
	out    io.Writer
	closer io.Closer
}

func (l *Logs) file(path string) (*logFile, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errors.New("access logs are closed")
	}
	if f := l.files[path]; f != nil {
		f.refs++
		return f, nil
	}
	f := &logFile{owner: l, path: path, refs: 1, begun: make(chan struct{}, 1), hurry: make(chan struct{}, 1)}
	f.flushed = sync.NewCond(&f.mu)
	if err := f.open(); err != nil {
		return nil, err
	}
	l.files[path] = f
	l.running[f] = struct{}{}
	go f.run()
	return f, nil
}

func (f *logFile) open() error {
	switch f.path {
	case "":
		return errors.New("path is empty; use /dev/stdout for standard output")
	case "/dev/stdout":
		f.out = os.Stdout
		return nil
	case "/dev/stderr":
		f.out = os.Stderr
		return nil
	}
	// A pipe that nobody reads is an error (ENXIO), not a wait: updates wait for this.
	file, err := os.OpenFile(f.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NONBLOCK, 0o640)
	if err != nil {
		return fmt.Errorf("cannot open %s: %w", f.path, err)
	}
	f.out = file
	f.mu.Lock()
	f.closer = file
	f.mu.Unlock()
	return nil
}

// write takes a copy of the line.
func (f *logFile) write(line []byte) {
	f.mu.Lock()
	if f.closed || len(f.pending)+len(line) > maxPending {
		f.mu.Unlock()
		f.owner.dropped.Inc(0)
		return
	}
	before := len(f.pending)
	f.pending = append(f.pending, line...)
	f.lines++
	after := len(f.pending)
	f.mu.Unlock()
	if before == 0 {
		nudge(f.begun)
	}
	if before < gatherBytes && after >= gatherBytes {
		nudge(f.hurry)
	}
}

// nudge leaves word on c, once until it is heard.
func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// gather waits until there is something to do.
func (f *logFile) gather(t *time.Timer) {
	select {
	case <-f.hurry:
		return
	case <-f.begun:
	}
	t.Reset(gatherTime)
	select {
	case <-f.hurry:
		t.Stop()
	case <-t.C:
	}
}

func (f *logFile) run() {
	defer f.owner.ended(f)
	t := time.NewTimer(gatherTime)
	t.Stop()
	var spare []byte
	for {
		f.gather(t)
		f.mu.Lock()
		chunk, n, reopen, closed := f.pending, f.lines, f.reopen, f.closed
		f.pending, f.lines, f.reopen, f.writing, f.given = spare[:0], 0, false, true, n
		f.mu.Unlock()

		// The chunk came before the request to reopen, and belongs to the old file.
		f.flush(chunk, n)
		if reopen {
			f.swap()
		}
		spare = chunk
		if cap(spare) > maxLine {
			spare = nil // a burst is no reason to keep the memory
		}
		f.mu.Lock()
		f.writing = false
		f.flushed.Broadcast()
		f.mu.Unlock()
		if closed {
			if f.closer != nil {
				_ = f.closer.Close()
			}
			return
		}
	}
}

func (f *logFile) flush(chunk []byte, n uint64) {
	if len(chunk) == 0 {
		return
	}
	_, err := f.out.Write(chunk)
	f.mu.Lock()
	f.given = 0
	lost := f.lost
	f.mu.Unlock()
	switch {
	case lost: // they were counted
	case err != nil:
		f.owner.failed.Add(0, n)
	default:
		f.owner.written.Add(0, n)
	}
}

// swap opens the path anew; the old file stays when that fails.
func (f *logFile) swap() {
	old := f.closer
	if err := f.open(); err != nil {
		f.owner.failed.Inc(0)
		return
	}
	if old != nil {
		_ = old.Close()
	}
}

func (f *logFile) release() {
	l := f.owner
	l.mu.Lock()
	f.refs--
	last := f.refs == 0
	if last {
		delete(l.files, f.path)
	}
	l.mu.Unlock()
	if last {
		f.stop()
	}
}

func (f *logFile) stop() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	nudge(f.hurry)
}

// giveUp has nobody wait for the writer any longer. Where the file can be waited for by
// the runtime, a pipe for one, that ends its write; a disk that hangs holds it.
func (f *logFile) giveUp() {
	f.mu.Lock()
	left := f.given + f.lines
	f.pending, f.lines, f.lost = nil, 0, true
	closer := f.closer
	f.mu.Unlock()
	f.owner.dropped.Add(0, left)
	if closer != nil {
		go func() { _ = closer.Close() }() // which may hang, too
	}
}

// Reopen opens every log file anew, for log rotation. It returns at once.
func (l *Logs) Reopen() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.files {
		f.mu.Lock()
		f.reopen = true
		f.mu.Unlock()
		nudge(f.hurry)
	}
}

// Flush waits until all lines taken so far are written.
func (l *Logs) Flush() {
	l.mu.Lock()
	files := make([]*logFile, 0, len(l.files))
	for _, f := range l.files {
		files = append(files, f)
	}
	l.mu.Unlock()
	for _, f := range files {
		nudge(f.hurry)
		f.mu.Lock()
		for len(f.pending) > 0 || f.writing || f.reopen {
			f.flushed.Wait()
		}
		f.mu.Unlock()
	}
}

// Close writes what is left, closes every file and waits for it, those too that are given
// back already. Logs still open drop what they get afterwards. A writer that stands still,
// for a pipe that nobody reads or a disk that hangs, is waited for two seconds; what it has
// then counts as dropped.
func (l *Logs) Close() {
	l.mu.Lock()
	l.closed = true
	for _, f := range l.files {
		f.stop()
	}
	clear(l.files)
	l.mu.Unlock()
	late := time.NewTimer(l.patience)
	defer late.Stop()
	for {
		l.mu.Lock()
		left := len(l.running)
		l.mu.Unlock()
		if left == 0 {
			return
		}
		select {
		case <-l.end:
		case <-late.C:
			l.mu.Lock()
			defer l.mu.Unlock()
			for f := range l.running {
				f.giveUp()
			}
			return
		}
	}
}

// ended is a writer's last word.
func (l *Logs) ended(f *logFile) {
	l.mu.Lock()
	delete(l.running, f)
	l.mu.Unlock()
	nudge(l.end)
}

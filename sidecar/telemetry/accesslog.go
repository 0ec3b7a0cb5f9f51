package telemetry

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// Log is the access logs of one filter chain. A nil Log takes nothing.
type Log struct {
	entries []logEntry
}

type logEntry struct {
	format *Format
	file   *logFile
	export ExportLog // nil for a file
	filter Filter    // nil for all
}

var lines = sync.Pool{New: func() any { b := make([]byte, 0, 1024); return &b }}

// Logs opens access logs and owns the files behind them: all logs of one path
// share one writer. Safe for concurrent use.
type Logs struct {
	written, dropped, failed *Counter

	exporters Exporters // nil for none

	patience time.Duration // of Close
	// end has word of each writer that ends.
	end chan struct{}

	mu      sync.Mutex
	files   map[string]*logFile
	running map[*logFile]struct{} // also those that are given back
	closed  bool
}

// NewLogs returns an owner of log files; m may be nil.
func NewLogs(m *Metrics) *Logs {
	l := &Logs{files: map[string]*logFile{}, running: map[*logFile]struct{}{}, end: make(chan struct{}, 1), patience: closePatience}
	if m != nil {
		l.written = m.AccessLogLines.With("written")
		l.dropped = m.AccessLogLines.With("dropped")
		l.failed = m.AccessLogLines.With("failed")
	}
	return l
}

// ExportTo says what opens the logs that are no files; before any is opened.
func (l *Logs) ExportTo(e Exporters) { l.exporters = e }

// Open compiles formats and opens files. With no configs it returns nil, which
// logs nothing. The Log must be closed when no connection uses it any more.
func (l *Logs) Open(configs []AccessLogConfig) (*Log, error) {
	if len(configs) == 0 {
		return nil, nil
	}
	out := &Log{}
	for i, c := range configs {
		e, err := l.entry(c)
		if err != nil {
			out.Close()
			return nil, fmt.Errorf("telemetry: access log %d: %w", i, err)
		}
		out.entries = append(out.entries, e)
	}
	return out, nil
}

func (l *Logs) entry(c AccessLogConfig) (e logEntry, err error) {
	e.filter = c.Filter
	if c.Export != nil {
		if l.exporters == nil {
			return e, errors.New("there is nothing that sends records")
		}
		e.export, err = l.exporters.Open(c.Export)
		return e, err
	}
	if e.format, err = CompileAccessLog(c); err != nil {
		return e, err
	}
	e.file, err = l.file(c.Path)
	return e, err
}

// Log formats a record and hands the line to the writers. It never blocks: a
// line for which there is no room is dropped and counted.
func (l *Log) Log(r *Record) {
	if l == nil {
		return
	}
	buf := lines.Get().(*[]byte)
	for i := range l.entries {
		if f := l.entries[i].filter; f != nil && !f.Passes(r) {
			continue
		}
		if e := l.entries[i].export; e != nil {
			e.Log(r)
			continue
		}
		line := l.entries[i].format.Append((*buf)[:0], r)
		l.entries[i].file.write(line)
		*buf = line
	}
	if cap(*buf) <= maxLine {
		lines.Put(buf)
	}
}

// Close gives the files back. Lines already taken are still written, and records sent.
func (l *Log) Close() {
	if l == nil {
		return
	}
	for _, e := range l.entries {
		if e.export != nil {
			e.export.Close()
			continue
		}
		e.file.release()
	}
	l.entries = nil
}

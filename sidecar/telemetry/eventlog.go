package telemetry

// EventLog is a file of events, one a line, opened anew with the access logs. Safe for concurrent
// use; a nil one takes nothing.
type EventLog struct{ file *logFile }

// OpenEvents opens a log of events. It shares its writer with the access logs of the same path.
// It must be closed when nothing writes to it any more.
func (l *Logs) OpenEvents(path string) (*EventLog, error) {
	f, err := l.file(path)
	if err != nil {
		return nil, err
	}
	return &EventLog{f}, nil
}

// Write takes a copy of a line, which ends with a line feed. It never blocks: a line for which
// there is no room is dropped and counted.
func (e *EventLog) Write(line []byte) {
	if e != nil {
		e.file.write(line)
	}
}

// Close gives the file back. Lines already taken are still written.
func (e *EventLog) Close() {
	if e != nil {
		e.file.release()
	}
}

package main

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// pacer waits for a moment to some microseconds. The runtime's timers wait in epoll, whose
// unit is a millisecond: a generator that has nothing else to do sends late by up to
// that, all that fell due meanwhile at once, and the faster a contender answers, the more
// often it has nothing else to do. One goroutine may use it.
type pacer struct {
	file *os.File
	fd   int
}

func newPacer() (*pacer, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("timerfd: %w", err)
	}
	return &pacer{file: os.NewFile(uintptr(fd), "timerfd"), fd: fd}, nil
}

// wait returns at the moment, or at once when it has passed.
func (p *pacer) wait(due time.Time) error {
	d := time.Until(due)
	if d <= 0 {
		return nil
	}
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(d.Nanoseconds())}
	if err := unix.TimerfdSettime(p.fd, 0, &spec, nil); err != nil {
		return fmt.Errorf("timerfd: %w", err)
	}
	var expirations [8]byte
	_, err := p.file.Read(expirations[:])
	return err
}

func (p *pacer) Close() error { return p.file.Close() }

package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// pins gives the contenders' hops the first CPU and everything else the others.
//
// Left to itself the kernel moves a proxy between the CPUs of the generator and
// its own, and what an exchange costs follows from where it is: a wake-up of
// another CPU that sleeps costs more than the relaying of a request. All hops share
// one, so that what is measured does not depend on how many a machine has.
type pins struct{ contenders, rest unix.CPUSet }

// pin moves the calling process, all threads that are and come. With one CPU there
// is nothing to divide.
func pin() (*pins, error) {
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return nil, fmt.Errorf("reading the CPUs that may be used: %w", err)
	}
	if all.Count() < 2 {
		return nil, nil
	}
	p := &pins{rest: all}
	first := 0
	for !all.IsSet(first) {
		first++
	}
	p.contenders.Set(first)
	p.rest.Clear(first)
	return p, eachThread(&p.rest)
}

// start runs f, which starts a program, on the contenders' CPU: a program inherits
// it from the thread that starts it.
func (p *pins) start(f func() error) error {
	if p == nil {
		return f()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.SchedSetaffinity(0, &p.contenders); err != nil {
		return fmt.Errorf("choosing a CPU: %w", err)
	}
	err := f()
	if back := unix.SchedSetaffinity(0, &p.rest); err == nil && back != nil {
		err = fmt.Errorf("choosing a CPU: %w", back)
	}
	return err
}

func eachThread(set *unix.CPUSet) error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range tasks {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		if err := unix.SchedSetaffinity(tid, set); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("choosing CPUs: %w", err)
		}
	}
	runtime.GOMAXPROCS(set.Count())
	return nil
}

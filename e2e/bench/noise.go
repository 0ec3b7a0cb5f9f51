package main

import (
	"bufio"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// watch tells how much of the machine something else had: other programs, and the
// host (steal).
type watch struct {
	began   time.Time
	machine time.Duration // busy and stolen, of all CPUs
	ours    func() time.Duration
	own     time.Duration
}

func startWatch(procs ...*process) *watch {
	w := &watch{ours: func() time.Duration {
		var u syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
		sum := time.Duration(u.Utime.Nano() + u.Stime.Nano())
		for _, p := range procs {
			sum += time.Duration(p.cpu())
		}
		return sum
	}}
	w.began, w.machine, w.own = time.Now(), machineTime(), w.ours()
	return w
}

// disturbance is the share of all CPUs' time that was not ours, 0 to 1.
func (w *watch) disturbance() float64 {
	others := (machineTime() - w.machine) - (w.ours() - w.own)
	all := time.Since(w.began) * time.Duration(runtime.NumCPU())
	return min(1, max(0, float64(others)/float64(all)))
}

// machineTime is what the kernel counts as busy or stolen, in its ticks of 10 ms.
func machineTime() time.Duration {
	f, err := os.Open("/proc/stat")
	if err != nil {
		return 0
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Scan()
	var ticks int64
	for i, v := range strings.Fields(s.Text()) {
		if i == 0 || i == 4 || i == 5 || i > 8 { // the name, idle, iowait, guests (counted in user)
			continue
		}
		n, _ := strconv.ParseInt(v, 10, 64)
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

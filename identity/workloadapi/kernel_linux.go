package workloadapi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// kernel is the peerReader of this machine. As an old one it is from before Linux
// 6.5, whatever it is.
type kernel struct{ old bool }

// peer asks for the credentials that the kernel recorded at connect(2), and for
// the very process that called it.
func (k kernel) peer(c *net.UnixConn) (process, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return process{}, err
	}
	var cred *unix.Ucred
	fd := -1
	var credErr, fdErr error
	if err := raw.Control(func(s uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(s), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if fdErr = unix.ENOPROTOOPT; !k.old {
			fd, fdErr = unix.GetsockoptInt(int(s), unix.SOL_SOCKET, unix.SO_PEERPIDFD)
		}
	}); err != nil {
		return process{}, err
	}
	if credErr != nil {
		return process{}, fmt.Errorf("peer credentials: %w", credErr)
	}
	switch {
	case fdErr == nil:
	case errors.Is(fdErr, unix.ENOPROTOOPT): // before Linux 6.5
		if fd, fdErr = pinByNumber(cred, now()); fdErr != nil {
			return process{}, fmt.Errorf("uid=%d pid=%d: %w", cred.Uid, cred.Pid, fdErr)
		}
	default:
		return process{}, fmt.Errorf("uid=%d pid=%d: the caller cannot be pinned, it has ended: %w", cred.Uid, cred.Pid, fdErr)
	}
	f, err := pollable(fd)
	if err != nil {
		return process{}, err
	}
	return process{uid: cred.Uid, gid: cred.Gid, pid: cred.Pid, pidfd: f}, nil
}

// pollable puts a pidfd under the runtime's poller.
func pollable(fd int) (*os.File, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

// pinByNumber opens a pidfd by the number that was recorded at connect(2), for
// kernels that cannot give the process itself. A process that took over the
// number since then started later than the connection was accepted, or belongs
// to somebody else.
func pinByNumber(cred *unix.Ucred, accepted time.Duration) (int, error) {
	fd, err := unix.PidfdOpen(int(cred.Pid), 0)
	if err != nil {
		return -1, fmt.Errorf("the caller has ended: %w", err)
	}
	started, err := startTime(cred.Pid)
	if err == nil && started > accepted {
		err = errors.New("its number belongs to a process that started after it connected")
	}
	if err == nil {
		err = sameUser(cred)
	}
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// sameUser compares with the effective user that the process has now.
func sameUser(cred *unix.Ucred) error {
	b, err := readProc(cred.Pid, "status")
	if err != nil {
		return fmt.Errorf("the caller has ended: %w", err)
	}
	uid, err := parseUser(b)
	if err != nil {
		return err
	}
	if uid != cred.Uid {
		return fmt.Errorf("its number belongs to a process of user %d", uid)
	}
	return nil
}

// parseUser reads the effective user in proc_pid_status(5). The program's name
// stands above it, with newlines escaped by the kernel.
func parseUser(status []byte) (uint32, error) {
	for line := range bytes.Lines(status) {
		rest, ok := bytes.CutPrefix(line, []byte("Uid:"))
		if !ok {
			continue
		}
		if f := bytes.Fields(rest); len(f) == 4 {
			if n, err := strconv.ParseUint(string(f[1]), 10, 32); err == nil {
				return uint32(n), nil
			}
		}
		break
	}
	return 0, errors.New("the user of the process cannot be read")
}

// now is the time since boot.
func now() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// userHZ is the unit of times in /proc/PID/stat; fixed on every architecture
// that Go runs on.
const userHZ = 100

// startTime is when a process started, since boot, rounded down.
func startTime(pid int32) (time.Duration, error) {
	b, err := readProc(pid, "stat")
	if err != nil {
		return 0, err
	}
	return parseStart(b)
}

// parseStart reads field 22 of proc_pid_stat(5). The second field is the
// program's name in parentheses, and may hold anything, parentheses too.
func parseStart(stat []byte) (time.Duration, error) {
	i := bytes.LastIndexByte(stat, ')')
	if i < 0 {
		return 0, errors.New("the start time of the process cannot be read")
	}
	fields := bytes.Fields(stat[i+1:])
	if len(fields) < 20 {
		return 0, errors.New("the start time of the process cannot be read")
	}
	ticks, err := strconv.ParseUint(string(fields[19]), 10, 53)
	if err != nil {
		return 0, fmt.Errorf("the start time of the process cannot be read: %w", err)
	}
	return time.Duration(ticks) * (time.Second / userHZ), nil
}

// cgroup implements peerReader.
func (kernel) cgroup(pid int32) ([]byte, error) { return readProc(pid, "cgroup") }

// maxProc bounds what is read of /proc. A cgroup's path is at most 4096 bytes,
// and there are at most some dozen hierarchies.
const maxProc = 64 << 10

func readProc(pid int32, file string) ([]byte, error) {
	// A /proc of another PID namespace has other processes under these numbers.
	if self, err := os.Readlink("/proc/self"); err != nil || self != strconv.Itoa(os.Getpid()) {
		return nil, errors.Join(errors.New("/proc is not of the agent's own PID namespace"), err)
	}
	f, err := os.Open("/proc/" + strconv.Itoa(int(pid)) + "/" + file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxProc+1))
	if err == nil && len(b) > maxProc {
		err = fmt.Errorf("%s has more than %d bytes", f.Name(), maxProc)
	}
	return b, err
}

// ended polls a pidfd: it is readable once the process has ended.
func ended(fd uintptr) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(p, 0)
		if !errors.Is(err, unix.EINTR) {
			// What cannot be asked about cannot be vouched for.
			return err != nil || n > 0
		}
	}
}

// exited reports whether the process has ended, or is no longer watched.
func exited(pidfd *os.File) bool {
	raw, err := pidfd.SyscallConn()
	if err != nil {
		return true
	}
	gone := true
	if err := raw.Control(func(fd uintptr) { gone = ended(fd) }); err != nil {
		return true
	}
	return gone
}

// waitExit returns when the process has ended or the file is closed.
func waitExit(pidfd *os.File) {
	if raw, err := pidfd.SyscallConn(); err == nil {
		_ = raw.Read(ended)
	}
}

// Package image gives back the memory that the program's own file takes: its code and
// constants.
package image

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Release lets go of the pages of the running program's code and constants. What is used
// again comes back from the kernel's cache of the file, a page fault for 64 KB; what was
// needed once, such as the descriptors of every message that a configuration may have, does
// not. It returns how many bytes were resident. It may be called at any time.
func Release() (bytes int, err error) {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return 0, fmt.Errorf("image: %w", err)
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return 0, fmt.Errorf("image: %w", err)
	}
	defer func() { _ = f.Close() }()
	clean, err := mappings(f, program)
	if err != nil {
		return 0, fmt.Errorf("image: %w", err)
	}
	for _, m := range clean {
		// The kernel checks the range again: an address that is not mapped is an error.
		_, _, errno := unix.Syscall(unix.SYS_MADVISE, m.from, m.to-m.from, unix.MADV_DONTNEED)
		if errno != 0 {
			return bytes, fmt.Errorf("image: madvise %x-%x: %w", m.from, m.to, errno)
		}
		bytes += m.resident
	}
	return bytes, nil
}

// mapping is a part of the address space.
type mapping struct {
	from, to uintptr
	resident int  // bytes
	clean    bool // it is the file's, cannot be written to, and no page of it differs
}

// mappings reads the clean mappings of a file from /proc/PID/smaps (proc(5)). A page that
// was written to, by a linker that relocates or a debugger's breakpoint, is in no file: to
// drop it would lose it.
func mappings(smaps io.Reader, file string) ([]mapping, error) {
	var all []mapping
	lines := bufio.NewScanner(smaps)
	for lines.Scan() {
		fields := bytes.Fields(lines.Bytes())
		if len(fields) < 2 {
			continue
		}
		if !bytes.HasSuffix(fields[0], []byte{':'}) {
			m, err := heading(lines.Bytes(), fields, file)
			if err != nil {
				return nil, err
			}
			all = append(all, m)
			continue
		}
		if len(all) == 0 {
			return nil, errors.New("smaps: a size before any mapping")
		}
		all[len(all)-1].note(string(fields[0]), string(fields[1]))
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	clean := all[:0]
	for _, m := range all {
		if m.clean && m.resident > 0 {
			clean = append(clean, m)
		}
	}
	return clean, nil
}

// heading reads a mapping's first line: range, permissions, offset, device, inode, path.
func heading(line []byte, fields [][]byte, file string) (m mapping, err error) {
	if _, err := fmt.Sscanf(string(fields[0]), "%x-%x", &m.from, &m.to); err != nil {
		return m, fmt.Errorf("smaps: %q: %w", line, err)
	}
	// A path may have spaces, so it is looked for at the end; a file that was replaced
	// has another, and is left alone.
	ours := len(fields) >= 6 && bytes.HasSuffix(line, append([]byte{' '}, file...))
	m.clean = ours && bytes.HasPrefix(fields[1], []byte("r-")) && bytes.HasSuffix(fields[1], []byte("p"))
	return m, nil
}

// note takes in one of a mapping's sizes, in KB.
func (m *mapping) note(name, size string) {
	kb, err := strconv.Atoi(size)
	switch {
	case err != nil: // VmFlags, or what a newer kernel tells
	case name == "Rss:":
		m.resident = kb << 10
	case name == "Anonymous:" && kb > 0: // a dirty page may be the file's, not yet on its disk
		m.clean = false
	}
}

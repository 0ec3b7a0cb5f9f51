// Package glance tells by a look at it whether a file was replaced or written into, for those
// who read files again and again: a look is cheaper than reading, and so may be frequent.
package glance

import (
	"time"

	"golang.org/x/sys/unix"
)

// Every is how often to glance, and Read how many glances later a file is read to be sure:
// it may be replaced within the resolution of the clock that its times are of.
const Every, Read = 200 * time.Millisecond, 25

// File is what is remembered of one that is read again and again.
type File struct {
	glanced appearance // at the last glance
	read    appearance // before it was read
}

// appearance is what a file looks like without being read. It is zero for none.
type appearance struct {
	device, inode uint64
	size          int64
	changed       unix.Timespec
}

func of(path string) appearance {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return appearance{}
	}
	return appearance{uint64(st.Dev), st.Ino, st.Size, st.Ctim}
}

// Reading is to be called before the file is read.
func (f *File) Reading(path string) { f.read = of(path) }

// Changed tells whether the file has another look than when it was read, and has had it for as
// long as from one glance to the next: who writes into it has done so by then.
func (f *File) Changed(path string) bool {
	now := of(path)
	changed := now == f.glanced && now != f.read
	f.glanced = now
	return changed
}

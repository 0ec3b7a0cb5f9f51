// Package glance tells by a look at it whether a file was replaced or written into, for those
// who read files again and again: a look is cheaper than reading, and so may be frequent.
package glance

import (
	"context"
	"time"

	"golang.org/x/sys/unix"
)

// Every is how often to glance, and Read how many glances later a file is read to be sure:
// it may be replaced within the resolution of the clock that its times are of.
const Every, Read = 200 * time.Millisecond, 25

// Watch glances until the context ends, and has files read when a glance tells that one has
// changed, when they are to be, and now and then. It calls both functions by turns.
func Watch(ctx context.Context, wake <-chan struct{}, changed func() bool, read func()) {
	tick := time.NewTicker(Every)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-wake:
			read()
		case <-tick.C:
			if changed() || n%Read == 0 {
				read()
			}
		}
	}
}

// File is what is remembered of one that is read again and again. It has one user at a time.
type File struct {
	glanced appearance // at the last glance
	still   bool       // it was the same at the one before
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

// Old tells whether a file was last written to longer ago than from one glance to the next, or
// is not there. It says so of a file that is written to where the clock that dates files is wrong.
func Old(path string) bool {
	now := of(path)
	return now == appearance{} || time.Since(time.Unix(now.changed.Unix())) >= Every
}

// Reading is to be called before the file is read.
func (f *File) Reading(path string) { f.read = of(path) }

// AsRead tells whether the file looks as it did then.
func (f *File) AsRead(path string) bool { return of(path) == f.read }

// Settle takes what was read for what was glanced at, twice.
func (f *File) Settle() { f.glanced, f.still = f.read, true }

// Changed glances, and tells whether the file has another look than when it was read, and has
// had it for as long as from one glance to the next: who writes into it has done so by then.
func (f *File) Changed(path string) bool {
	now := of(path)
	f.still = now == f.glanced
	f.glanced = now
	return f.still && now != f.read
}

// Still tells whether the file has the look that it had at the last two glances.
func (f *File) Still(path string) bool { return f.still && of(path) == f.glanced }

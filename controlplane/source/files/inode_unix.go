//go:build unix

package files

import (
	"fmt"
	"io/fs"
	"syscall"
)

// inode identifies the file behind a name.
func inode(info fs.FileInfo) string {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return fmt.Sprintf("%d:%d", st.Dev, st.Ino)
	}
	return ""
}

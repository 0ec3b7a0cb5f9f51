package image

import (
	"os"
	"strings"
	"testing"
)

// TestMappings: only pages that the file has too are let go of.
func TestMappings(t *testing.T) {
	const sizes = "Size: 100 kB\nRss: 64 kB\nShared_Dirty: 0 kB\nPrivate_Dirty: 0 kB\nAnonymous: 0 kB\nVmFlags: rd ex mr\n"
	for name, tt := range map[string]struct {
		smaps string
		want  int
	}{
		"code":                        {"00400000-01078000 r-xp 00000000 fe:00 1   /bin/the program\n" + sizes, 1},
		"constants":                   {"01078000-02090000 r--p 00c78000 fe:00 1   /bin/the program\n" + sizes, 1},
		"variables":                   {"01078000-02090000 rw-p 00c78000 fe:00 1   /bin/the program\n" + sizes, 0},
		"shared":                      {"01078000-02090000 r--s 00c78000 fe:00 1   /bin/the program\n" + sizes, 0},
		"not readable":                {"01078000-02090000 ---p 00c78000 fe:00 1   /bin/the program\n" + sizes, 0},
		"relocated":                   {"01078000-02090000 r--p 00c78000 fe:00 1   /bin/the program\n" + strings.Replace(sizes, "Anonymous: 0", "Anonymous: 4", 1), 0},
		"of a file just written":      {"01078000-02090000 r-xp 00c78000 fe:00 1   /bin/the program\n" + strings.Replace(sizes, "Private_Dirty: 0", "Private_Dirty: 64", 1), 1},
		"of a file that was replaced": {"01078000-02090000 r-xp 00c78000 fe:00 1   /bin/the program (deleted)\n" + sizes, 0},
		"another file":                {"01078000-02090000 r-xp 00c78000 fe:00 1   /lib/libc.so\n" + sizes, 0},
		"another file's name":         {"01078000-02090000 r-xp 00c78000 fe:00 1   /chroot/bin/the program\n" + sizes, 0},
		"no file":                     {"01078000-02090000 r-xp 00000000 00:00 0\n" + sizes, 0},
		"not resident":                {"01078000-02090000 r-xp 00c78000 fe:00 1   /bin/the program\n" + strings.Replace(sizes, "Rss: 64", "Rss: 0", 1), 0},
	} {
		got, err := mappings(strings.NewReader(tt.smaps), "/bin/the program")
		if err != nil || len(got) != tt.want {
			t.Errorf("%s: %v, %v, want %d", name, got, err, tt.want)
		}
		for _, m := range got {
			if m.resident != 64<<10 || m.to <= m.from {
				t.Errorf("%s: %+v", name, m)
			}
		}
	}
	for _, broken := range []string{"Rss: 4 kB\n", "x-y r-xp 0 0:0 0 /bin/the program\n"} {
		if got, err := mappings(strings.NewReader(broken), "/bin/the program"); err == nil {
			t.Errorf("%q: %v", broken, got)
		}
	}
}

// TestRelease: the program's pages go, and it runs on.
func TestRelease(t *testing.T) {
	resident := func() (bytes int) {
		program, err := os.Readlink("/proc/self/exe")
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.Open("/proc/self/smaps")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		clean, err := mappings(f, program)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range clean {
			bytes += m.resident
		}
		return bytes
	}
	before := resident()
	released, err := Release()
	after := resident()
	if err != nil || released < before/2 || after >= before {
		t.Errorf("%d bytes released, %v: %d resident before, %d after", released, err, before, after)
	}
	again, err := Release()
	if err != nil || again > released {
		t.Errorf("again: %d bytes, %v", again, err)
	}
}

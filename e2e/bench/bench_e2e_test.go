//go:build e2e

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestEachContenderDoesTheJob: every job, with every peer, is answered by the
// origin through all hops, and costs something. The figures mean nothing here.
func TestEachContenderDoesTheJob(t *testing.T) {
	bin := os.Getenv("HAUBERK_BIN")
	if bin == "" {
		t.Fatal("HAUBERK_BIN is not set: run `make e2e`")
	}
	t.Setenv("HAUBERK_SIDECAR", filepath.Join(bin, "hauberk-sidecar"))
	b := &bench{rounds: 1, time: 300 * time.Millisecond, dir: t.TempDir()}
	if err := b.peers(); err != nil {
		t.Fatal(err)
	}
	if err := writeCerts(b.dir); err != nil {
		t.Fatal(err)
	}
	var err error
	if b.origin, err = startOrigin(); err != nil {
		t.Fatal(err)
	}
	defer b.origin.ln.Close()
	for job, contenders := range map[string]int{"plain": 4, "mtls1": 3, "mtls2": 3} {
		c, err := b.cell(job, 4, "reverseproxy")
		if err != nil {
			t.Fatalf("%s: %v", job, err)
		}
		if len(c.Contenders) != contenders {
			t.Errorf("%s: %d contenders, want %d", job, len(c.Contenders), contenders)
		}
		var out strings.Builder
		c.print(&out)
		for _, m := range c.Contenders {
			if m.CPU[0] <= 0 || (m.Name == "hauberk") != (len(m.Allocs) == 1) || m.P99 <= 0 || m.Resident <= 0 || !strings.Contains(out.String(), m.Name) {
				t.Errorf("%s: %+v\n%s", job, m, &out)
			}
		}
	}
}

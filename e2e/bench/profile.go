package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// profiles takes a CPU profile of every hop for d, into files of the directory named after
// the setting and the hop; those of a later round replace them. The function that it
// returns waits for them.
func (m *measured) profiles(dir string, s setting, d time.Duration) (wait func() error) {
	var wg sync.WaitGroup
	errs := make([]error, len(m.procs))
	for i, p := range m.procs {
		wg.Go(func() {
			errs[i] = p.profile(filepath.Join(dir, fmt.Sprintf("%s-c%d-hop%d.pprof", s.job.name, s.conns, i+1)), d)
		})
	}
	return func() error {
		wg.Wait()
		for i, err := range errs {
			if err != nil {
				return fmt.Errorf("CPU profile of hop %d: %w", i+1, err)
			}
		}
		return nil
	}
}

func (p *process) profile(file string, d time.Duration) error {
	resp, err := p.adminClient().Post("http://localhost/cpuprofiler?time="+d.String(), "", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", resp.Status, data)
	}
	return os.WriteFile(file, data, 0o644)
}

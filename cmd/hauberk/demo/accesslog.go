package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// record is one line of a sidecar's JSON access log.
type record map[string]any

func (r record) str(field string) string {
	s, _ := r[field].(string)
	return s
}

func (r record) num(field string) int {
	f, _ := r[field].(float64)
	return int(f)
}

// readLog returns the records that match, oldest first.
func readLog(path string, match func(record) bool) ([]record, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []record
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var r record
		// The last line may still be on its way.
		if json.Unmarshal(lines.Bytes(), &r) == nil && match(r) {
			out = append(out, r)
		}
	}
	return out, nil
}

// awaitRecord waits for the first record that matches; sidecars write their
// logs a moment after the fact.
func (d *demo) awaitRecord(ctx context.Context, name string, match func(record) bool) (record, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		found, err := readLog(d.accessLog(name), match)
		if err != nil {
			return nil, err
		}
		if len(found) > 0 {
			return found[0], nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%s's access log does not show it", name)
		case <-tick.C:
		}
	}
}

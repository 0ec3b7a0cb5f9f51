// Package logging sets up structured logs: text for people, JSON for machines,
// on standard error, at a level that can change while the program runs.
package logging

import (
	"fmt"
	"io"
	"log/slog"
)

// New returns a logger that writes to w. format is "text" or "json", level one
// of debug, info, warn and error. The level can be changed through the returned
// variable at any time.
func New(w io.Writer, format, level string) (*slog.Logger, *slog.LevelVar, error) {
	lv := new(slog.LevelVar)
	if err := lv.UnmarshalText([]byte(level)); err != nil {
		return nil, nil, fmt.Errorf("log level %q: want debug, info, warn or error", level)
	}
	opts := &slog.HandlerOptions{Level: lv}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), lv, nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), lv, nil
	}
	return nil, nil, fmt.Errorf("log format %q: want text or json", format)
}

package main

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/hauberk-mesh/hauberk/internal/image"
	"github.com/hauberk-mesh/hauberk/sidecar"
)

// announce says, once, that the sidecar is ready: to systemd (sd_notify), in a
// file if one was asked for, and in the log with every address and identity.
func announce(ctx context.Context, s *sidecar.Sidecar, file string, log *slog.Logger) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for last := ""; ; {
		ok, why := s.Ready()
		if ok {
			break
		}
		if why != last {
			log.Info("not ready", "reason", why)
			notify("STATUS=" + why)
			last = why
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			notify("STOPPING=1")
			return
		}
	}
	s.CloseInherited()
	if _, err := image.Release(); err != nil { // most of the program is for its start
		log.Debug("the program's pages stay resident", "err", err)
	}
	a := s.Addrs()
	for _, name := range slices.Sorted(maps.Keys(a.Listeners)) {
		log.Info("listening", "listener", name, "address", a.Listeners[name].String())
	}
	log.Info("ready", "src_id", strings.Join(s.IDs(), " "), "listeners", len(a.Listeners))
	if file != "" {
		if err := os.WriteFile(file, []byte("ready\n"), 0o600); err != nil {
			log.Error("ready file", "err", err)
		}
	}
	notify("READY=1\nSTATUS=serving")
	<-ctx.Done()
	notify("STOPPING=1\nSTATUS=draining")
}

// notify sends a state to the service manager, if there is one.
func notify(state string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	if strings.HasPrefix(path, "@") {
		path = "\x00" + path[1:]
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return
	}
	_, werr := c.Write([]byte(state))
	_ = errors.Join(werr, c.Close())
}

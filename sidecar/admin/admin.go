// Package admin is how people and machines look at a sidecar: an HTTP listener on
// loopback that only reads, listeners for metrics and readiness, and a Unix
// socket of mode 0600 for what changes anything. None of it is on the request
// path.
package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/time/rate"

	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// View is what there is to see and to change.
type View interface {
	Ready() (ok bool, why string)
	ConfigDump() any
	Clusters() any
	Certs() any
	Listeners() any
	// WriteMetrics writes Prometheus text, with used only series that have counted anything.
	WriteMetrics(w io.Writer, used bool) error
	// Drain returns when the drain is over or ctx ends, with an error when connections
	// are left, which tells how many.
	Drain(ctx context.Context, inbound bool, wait time.Duration) error
	Quit()
	ReopenLogs()
}

// Options say where to listen; an empty address is off.
type Options struct {
	// Admin must be a loopback address: it shows configuration to anyone.
	Admin, Metrics, Ready string
	// Socket is the path of the Unix socket.
	Socket string
	View   View
	Level  *slog.LevelVar
	Log    *slog.Logger
	// AccessLog takes the requests to the admin listener and its socket; nil for none.
	AccessLog *telemetry.Log
	// MadeRoom is told of each connection that was ended because a listener has as many as it may; may be nil.
	MadeRoom func()
}

// Addrs are the bound addresses, nil where off.
type Addrs struct{ Admin, Metrics, Ready net.Addr }

// Server is the listeners of a sidecar's admin interface.
type Server struct {
	log     *slog.Logger
	addrs   Addrs
	servers []served
	once    sync.Once

	madeRoom func()
	told     rate.Sometimes // of that
}

type served struct {
	http *http.Server
	ln   net.Listener
}

// Listen binds everything; Serve answers.
func Listen(o Options) (_ *Server, err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.MadeRoom == nil {
		o.MadeRoom = func() {}
	}
	s := &Server{log: o.Log.With("component", "admin"), madeRoom: o.MadeRoom, told: rate.Sometimes{Interval: time.Minute}}
	defer func() {
		if err != nil {
			_ = s.Close()
		}
	}()
	if o.Admin != "" {
		if err := loopback(o.Admin); err != nil {
			return nil, err
		}
		if s.addrs.Admin, err = s.tcp("admin", o.Admin, logged(hostCheck(reads(o)), o.AccessLog), s.add); err != nil {
			return nil, err
		}
	}
	if o.Metrics != "" {
		if s.addrs.Metrics, err = s.tcp("metrics", o.Metrics, metrics(o), s.exposed); err != nil {
			return nil, err
		}
	}
	if o.Ready != "" {
		if s.addrs.Ready, err = s.tcp("readiness", o.Ready, readiness(o), s.exposed); err != nil {
			return nil, err
		}
	}
	if o.Socket != "" {
		if err := s.unix(o.Socket, logged(changes(o), o.AccessLog)); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func loopback(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("admin address %q: %w", addr, err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("admin address %q: must be a loopback address, because it shows the configuration to anyone who connects", addr)
	}
	return nil
}

func (s *Server) tcp(what, addr string, h http.Handler, add func(net.Listener, http.Handler) *http.Server) (net.Addr, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s listener: %w; choose another address, port 0 takes a free one", what, err)
	}
	add(ln, h)
	return ln.Addr(), nil
}

// unix listens on a socket that only this user may open. The socket of a process
// that is gone is removed; that of one that answers is not.
func (s *Server) unix(path string, h http.Handler) error {
	if c, err := net.Dial("unix", path); err == nil {
		_ = c.Close()
		return fmt.Errorf("admin socket %s: another process serves it", path)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSocket != 0 {
		_ = os.Remove(path)
	}
	// The mode must be right from the moment the socket exists.
	old := syscall.Umask(0o177)
	ln, err := net.Listen("unix", path)
	syscall.Umask(old)
	if err != nil {
		return fmt.Errorf("admin socket: %w", err)
	}
	s.add(ln, h)
	return nil
}

func (s *Server) add(ln net.Listener, h http.Handler) *http.Server {
	sv := &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	s.servers = append(s.servers, served{ln: ln, http: sv})
	return sv
}

// exposed adds one that listens for other hosts too. Who says half of a request, or does not read
// the answer, holds a connection for so long; profiles, which take longer, are not served there.
func (s *Server) exposed(ln net.Listener, h http.Handler) *http.Server {
	sv := s.add(ln, bodiless(h))
	sv.ReadTimeout, sv.WriteTimeout = 10*time.Second, 30*time.Second
	sv.ConnState = (&crowd{most: mostExposed, ended: s.crowded}).note
	return sv
}

// crowded notes a connection that was ended to make room for another.
func (s *Server) crowded(c net.Conn) {
	s.madeRoom()
	s.told.Do(func() {
		s.log.Warn("a listener has as many connections as it may: others make room", "listener", c.LocalAddr().String(), "ended", c.RemoteAddr().String(), "limit", mostExposed)
	})
}

// Addrs tells the bound addresses.
func (s *Server) Addrs() Addrs { return s.addrs }

// Serve answers until ctx ends.
func (s *Server) Serve(ctx context.Context) error {
	var wg sync.WaitGroup
	failed := make(chan error, len(s.servers))
	for _, sv := range s.servers {
		wg.Go(func() {
			if err := sv.http.Serve(sv.ln); err != nil && !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("admin: %w", err)
			}
		})
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	s.shut()
	wg.Wait()
	return err
}

// shut lets answers that are being written finish, then closes.
func (s *Server) shut() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for _, sv := range s.servers {
		if sv.http.Shutdown(ctx) != nil {
			_ = sv.http.Close()
		}
	}
}

// Close closes the listeners.
func (s *Server) Close() error {
	s.once.Do(func() {
		for _, sv := range s.servers {
			_ = sv.http.Close()
			_ = sv.ln.Close()
		}
	})
	return nil
}

package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"github.com/hauberk-mesh/hauberk/controlplane/server/api"
	"github.com/hauberk-mesh/hauberk/identity/tlsconf"
)

// apiServer serves the operator API: everything on the Unix socket, whose mode
// is the authorization, and on TCP what the guard lets through.
type apiServer struct {
	s      *Server
	log    *slog.Logger
	socket net.Listener
	tcp    net.Listener
	plain  *http.Server
	tls    *http.Server
}

const (
	metricsPath = "/metrics"
	healthPath  = "/healthz"
	readyPath   = "/readyz"
)

func newAPIServer(ctx context.Context, s *Server) (*apiServer, error) {
	a := &apiServer{s: s, log: s.log.With("component", "api")}
	mux := a.routes()
	quietLog := slog.NewLogLogger(a.log.Handler(), slog.LevelDebug)
	timeouts := func(h http.Handler) *http.Server {
		return &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, ErrorLog: quietLog}
	}
	a.plain = timeouts(mux)
	hosts := map[string]bool{}
	for _, h := range s.cfg.APIHostnames {
		hosts[strings.ToLower(h)] = true
	}
	g := &guard{hosts: hosts, open: map[string]bool{metricsPath: true, healthPath: true, readyPath: true}, local: map[string]bool{api.BackupPath: true}, vouch: s.identity.Vouch}
	a.tls = timeouts(g.wrap(mux))
	cfg, err := tlsconf.Server(tlsconf.ServerParams{
		Source:    s.identity.Source(),
		ID:        s.identity.ID().String(),
		ALPN:      []string{"http/1.1"},
		Client:    tlsconf.RequestClient,
		Authorize: tlsconf.Any, // who may do what is the guard's, by path
	})
	if err != nil {
		return nil, fmt.Errorf("control plane: API: %w", err)
	}
	a.tls.TLSConfig = cfg
	if a.tcp, err = listen(ctx, "tcp", s.cfg.APIAddress, "API"); err != nil {
		return nil, err
	}
	if a.socket, err = listenSocket(ctx, s.cfg.Socket); err != nil {
		return nil, errors.Join(err, a.tcp.Close())
	}
	return a, nil
}

func (a *apiServer) routes() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+healthPath, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET "+readyPath, a.ready)
	mux.Handle("GET "+metricsPath, promhttp.HandlerFor(a.s.metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET "+api.StatusPath, a.status)
	mux.HandleFunc("GET "+api.ResourcesPath, a.resources)
	mux.HandleFunc("GET "+api.InboundPath, a.inbound)
	mux.HandleFunc("GET "+api.TokensPath, a.tokens)
	mux.HandleFunc("POST "+api.TokensPath, a.mintToken)
	mux.HandleFunc("GET "+api.NodesPath, a.nodes)
	mux.HandleFunc("POST "+api.BanPath, a.ban)
	mux.HandleFunc("GET "+api.CAPath, a.ca)
	mux.HandleFunc("POST "+api.BackupPath, a.backup)
	mux.HandleFunc("POST "+api.RevokePath, change(a.s.identity.RevokeToken))
	mux.HandleFunc("POST "+api.WithdrawPath, change(a.s.identity.WithdrawSigner))
	mux.HandleFunc("POST "+api.RemovePath, change(a.removeControlPlane))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, http.StatusNotFound, "no such path: "+r.Method+" "+r.URL.Path)
	})
	return mux
}

func (a *apiServer) addr() string { return a.tcp.Addr().String() }

func (a *apiServer) serve(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.until(ctx, a.plain.Serve(a.socket)) })
	g.Go(func() error { return a.until(ctx, a.tls.ServeTLS(a.tcp, "", "")) })
	g.Go(func() error {
		<-ctx.Done()
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		return errors.Join(ignoreDeadline(a.plain.Shutdown(bounded)), ignoreDeadline(a.tls.Shutdown(bounded)))
	})
	return g.Wait()
}

func (a *apiServer) until(ctx context.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("control plane: API: %w", err)
}

// A client that holds a request open does not keep the process.
func ignoreDeadline(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

func (a *apiServer) close() error {
	return errors.Join(a.plain.Close(), a.tls.Close(), ignoreClosed(a.socket.Close()), ignoreClosed(a.tcp.Close()), removeSocket(a.s.cfg.Socket))
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	// The client is gone if this fails; there is nobody to tell.
	_ = enc.Encode(v)
}

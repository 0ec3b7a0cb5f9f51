package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// serviceCommand is one of the demo's applications, each a process of its own
// under `hauberk run`. They know nothing of the mesh: they listen on loopback
// and call their upstreams on loopback.
func serviceCommand() *cobra.Command {
	var role, listen, upstream, quotes, version string
	cmd := &cobra.Command{
		Use:    "service",
		Short:  "run one of the demo's applications",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen)
			if err != nil {
				return err
			}
			switch role {
			case "db":
				return serveDB(ctx, ln)
			case "api":
				return serveHTTP(ctx, ln, apiHandler(version, upstream))
			case "quotes":
				return serveQuotes(ctx, ln)
			case "web":
				h, err := webHandler(upstream, quotes)
				if err != nil {
					return err
				}
				return serveHTTP(ctx, ln, h)
			}
			return fmt.Errorf("role %q: want web, api, quotes or db", role)
		},
	}
	f := cmd.Flags()
	f.StringVar(&role, "role", "", "web, api, quotes or db")
	f.StringVar(&listen, "listen", "", "loopback address")
	f.StringVar(&upstream, "upstream", "", "loopback address of the service it calls")
	f.StringVar(&quotes, "quotes", "", "loopback address of the gRPC service that web calls")
	f.StringVar(&version, "version", "", "what the api calls itself")
	return cmd
}

func serveHTTP(ctx context.Context, ln net.Listener, h http.Handler) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return srv.Shutdown(ctx)
}

// serveDB speaks first, as databases do, then answers "GET key" with a value.
func serveDB(ctx context.Context, ln net.Listener) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	for {
		c, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		wg.Go(func() {
			defer c.Close()
			defer context.AfterFunc(ctx, func() { c.Close() })()
			fmt.Fprintf(c, "demo-db ready\n")
			for lines := bufio.NewScanner(c); lines.Scan(); {
				key := strings.TrimPrefix(lines.Text(), "GET ")
				if _, err := fmt.Fprintf(c, "%s is 42\n", key); err != nil {
					return
				}
			}
		})
	}
}

func queryDB(ctx context.Context, addr, key string) (string, error) {
	c, err := (&net.Dialer{Timeout: 3 * time.Second}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(3 * time.Second)); err != nil {
		return "", err
	}
	r := bufio.NewReader(c)
	if _, err := r.ReadString('\n'); err != nil {
		return "", fmt.Errorf("database greeting: %w", err)
	}
	fmt.Fprintf(c, "GET %s\n", key)
	s, err := r.ReadString('\n')
	return strings.TrimSpace(s), err
}

func apiHandler(version, db string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /answer", func(w http.ResponseWriter, r *http.Request) {
		value, err := queryDB(r.Context(), db, "answer")
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		reply(w, map[string]string{"from": "api " + version, "answer": value})
	})
	// Every first try of an id fails, so that a retry has something to save.
	var mu sync.Mutex
	seen := map[string]bool{}
	mux.HandleFunc("GET /flaky/{id}", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		again := seen[r.PathValue("id")]
		seen[r.PathValue("id")] = true
		mu.Unlock()
		if !again {
			http.Error(w, "first try of this id fails", http.StatusServiceUnavailable)
			return
		}
		reply(w, map[string]string{"from": "api " + version, "answer": "second try"})
	})
	return mux
}

func webHandler(api, quotes string) (http.Handler, error) {
	client := &http.Client{Timeout: 5 * time.Second}
	mux := http.NewServeMux()
	quote, err := quoteHandler(quotes)
	if err != nil {
		return nil, err
	}
	mux.Handle("GET /quote", quote)
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		path := r.URL.Path
		if path == "/" {
			path = "/answer"
		}
		req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, "http://"+api+path, nil)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if id := r.Header.Get("X-Request-Id"); id != "" {
			req.Header.Set("X-Request-Id", id)
		}
		resp, err := client.Do(req)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		w.WriteHeader(resp.StatusCode)
		// The client has its own reasons to leave; nothing to add to its error.
		_, _ = io.Copy(w, io.LimitReader(resp.Body, 1<<20))
	})
	return mux, nil
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

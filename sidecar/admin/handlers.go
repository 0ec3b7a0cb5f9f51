package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"time"
)

const index = `hauberk-sidecar

GET /ready             whether traffic can be served, and if not, why
GET /config_dump       configuration in force
GET /clusters          endpoints, their health and counters
GET /certs             own identities and trust bundles
GET /listeners         bound addresses and open connections
GET /stats?filter=RE   metrics
GET /stats/prometheus  metrics
                       with ?usedonly only those that have counted anything

On the Unix socket also:
POST /drain[?inbound][&wait=DURATION]    status 500 when connections are left
POST /quit
POST /logging?level=debug|info|warn|error
POST /reopen_logs
POST /cpuprofiler?time=DURATION    a CPU profile for go tool pprof
POST /heapprofiler                 a heap profile for go tool pprof
GET /memory                        allocations and memory of the runtime
`

// hostCheck refuses requests for another host: a web page that a browser on this
// machine shows could otherwise read the answers (DNS rebinding).
func hostCheck(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		ip := net.ParseIP(strings.Trim(host, "[]"))
		if host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			http.Error(w, "the admin interface answers for localhost only", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func reads(o Options) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, index) })
	mux.HandleFunc("GET /ready", ready(o))
	for path, get := range map[string]func() any{
		"/config_dump": o.View.ConfigDump, "/clusters": o.View.Clusters, "/certs": o.View.Certs, "/listeners": o.View.Listeners,
	} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, get()) })
	}
	mux.HandleFunc("GET /stats/prometheus", scrape(o))
	mux.HandleFunc("GET /stats", stats(o))
	return mux
}

func metrics(o Options) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", scrape(o))
	mux.HandleFunc("GET /stats/prometheus", scrape(o))
	return mux
}

func readiness(o Options) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ready", ready(o))
	mux.HandleFunc("GET /healthz/ready", ready(o))
	return mux
}

func ready(o Options) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		ok, why := o.View.Ready()
		if !ok {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = io.WriteString(w, why+"\n")
	}
}

func writeJSON(w http.ResponseWriter, v any) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(b, '\n'))
}

func scrape(o Options) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		_ = o.View.WriteMetrics(w, r.URL.Query().Has("usedonly"))
	}
}

// stats is the metrics without their documentation, filtered by name.
func stats(o Options) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		keep, err := regexp.Compile(r.URL.Query().Get("filter"))
		if err != nil {
			http.Error(w, "filter: "+err.Error(), http.StatusBadRequest)
			return
		}
		var all bytes.Buffer
		if err := o.View.WriteMetrics(&all, r.URL.Query().Has("usedonly")); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		for line := range bytes.Lines(all.Bytes()) {
			if line[0] != '#' && keep.Match(line) {
				_, _ = w.Write(line)
			}
		}
	}
}

// changes are the requests of the Unix socket, whose file mode is the permission.
func changes(o Options) http.Handler {
	mux := reads(o)
	mux.HandleFunc("POST /drain", func(w http.ResponseWriter, r *http.Request) {
		var wait time.Duration
		if text := r.URL.Query().Get("wait"); text != "" {
			var err error
			if wait, err = time.ParseDuration(text); err != nil {
				http.Error(w, "wait: "+err.Error(), http.StatusBadRequest)
				return
			}
		}
		if err := o.View.Drain(r.Context(), r.URL.Query().Has("inbound"), wait); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_, _ = io.WriteString(w, "drained\n")
	})
	mux.HandleFunc("POST /quit", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "quitting\n")
		o.View.Quit()
	})
	mux.HandleFunc("POST /logging", func(w http.ResponseWriter, r *http.Request) {
		level := r.URL.Query().Get("level")
		if o.Level == nil || o.Level.UnmarshalText([]byte(level)) != nil {
			http.Error(w, fmt.Sprintf("level %q: want debug, info, warn or error", level), http.StatusBadRequest)
			return
		}
		_, _ = fmt.Fprintf(w, "level %s\n", level)
	})
	mux.HandleFunc("POST /cpuprofiler", cpuProfile)
	mux.HandleFunc("POST /heapprofiler", heapProfile)
	mux.HandleFunc("GET /memory", memory)
	mux.HandleFunc("POST /reopen_logs", func(w http.ResponseWriter, _ *http.Request) {
		o.View.ReopenLogs()
		_, _ = io.WriteString(w, "reopened\n")
	})
	return mux
}

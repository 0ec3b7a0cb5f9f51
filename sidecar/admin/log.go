package admin

import (
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// logged has every request of h, and what became of it, in an access log.
func logged(h http.Handler, log *telemetry.Log) http.Handler {
	if log == nil {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := &answer{ResponseWriter: w}
		body := &counted{ReadCloser: r.Body}
		r.Body = body
		start := time.Now()
		defer func() {
			rec := telemetry.NewRecord()
			rec.Type = telemetry.LogEnd
			rec.Start, rec.Duration, rec.Listener, rec.Protocol = start, time.Since(start), "admin", r.Proto
			rec.DownstreamRemote, rec.DownstreamLocal = ends(r)
			rec.DownstreamDirect = rec.DownstreamRemote
			rec.RequestHeaders = requestFields(r)
			rec.ResponseHeaders = fields{w.Header(), map[string]string{":status": strconv.Itoa(a.code())}}
			rec.Code, rec.BytesReceived, rec.BytesSent = a.code(), body.n, a.sent
			log.Log(rec)
			rec.Release()
		}()
		h.ServeHTTP(a, r)
	})
}

// ends are those of a request's connection.
func ends(r *http.Request) (client, own net.Addr) {
	own, _ = r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if u, ok := own.(*net.UnixAddr); ok {
		return u, own // a client has no name of its own
	}
	if a, err := net.ResolveTCPAddr("tcp", r.RemoteAddr); err == nil {
		client = a
	}
	return client, own
}

// counted is a request's body.
type counted struct {
	io.ReadCloser
	n int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n += int64(n)
	return n, err
}

// answer is a response that is being written.
type answer struct {
	http.ResponseWriter
	status int
	sent   int64
}

func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(p []byte) (int, error) {
	n, err := a.ResponseWriter.Write(p)
	a.sent += int64(n)
	return n, err
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

func (a *answer) code() int {
	if a.status == 0 {
		return http.StatusOK // as the server answers for a handler that says nothing
	}
	return a.status
}

// fields are the headers of a message with its pseudo-headers.
type fields struct {
	regular http.Header
	pseudo  map[string]string
}

var _ telemetry.Headers = fields{}

func requestFields(r *http.Request) fields {
	return fields{r.Header, map[string]string{":method": r.Method, ":path": r.RequestURI, ":authority": r.Host, ":scheme": "http"}}
}

func (f fields) values(lower string) []string {
	if v, ok := f.pseudo[lower]; ok {
		return []string{v}
	}
	return f.regular.Values(lower)
}

// Header implements telemetry.Headers.
func (f fields) Header(lower string) (value string, ok bool) {
	v := f.values(lower)
	return strings.Join(v, ","), len(v) > 0
}

// HeaderFrom implements telemetry.Headers.
func (f fields) HeaderFrom(name message.Name, from int) (value string, next int, ok bool) {
	if v := f.values(name.String()); from < len(v) {
		return v[from], from + 1, true
	}
	return "", from, false
}

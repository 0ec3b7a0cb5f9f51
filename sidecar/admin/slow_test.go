package admin

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener whose connections are in memory.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	if c, ok := <-p; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (p pipes) Close() error   { close(p); return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// long has more to say than a connection takes at once.
type long struct{ fake }

func (*long) WriteMetrics(w io.Writer, _ bool) error {
	_, err := io.WriteString(w, strings.Repeat("x_total 1\n", 1<<16))
	return err
}

// What listens off the loopback address holds no connection of who says half of a request, or does
// not read the answer.
func TestSlowClientsAreCut(t *testing.T) {
	o := Options{View: &long{}}
	for what, h := range map[string]http.Handler{"metrics": metrics(o), "ready": readiness(o)} {
		for name, request := range map[string]string{
			"no body":        "POST /%s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n",
			"half of a body": "POST /%s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf",
			"unread":         "GET /%s HTTP/1.1\r\nHost: x\r\n\r\n",
		} {
			t.Run(what+" "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s, ln := &Server{log: slog.New(slog.DiscardHandler)}, pipes(make(chan net.Conn))
					s.exposed(ln, h)
					go func() { _ = s.servers[0].http.Serve(ln) }()
					ours, theirs := net.Pipe()
					ln <- theirs
					if _, err := io.WriteString(ours, strings.ReplaceAll(request, "%s", what)); err != nil {
						t.Fatal(err)
					}
					if name != "unread" {
						go func() { _, _ = io.Copy(io.Discard, ours) }()
					}
					time.Sleep(59 * time.Second) // an idle one may stay for a minute
					synctest.Wait()
					if _, err := ours.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
						t.Errorf("not cut: %v", err)
					}
					_ = ours.Close()
					_ = s.servers[0].http.Close()
				})
			})
		}
	}
}

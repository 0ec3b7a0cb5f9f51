package cluster

import (
	"context"
	"errors"
	"net"
	"net/http"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// TestCallEndsWithItsContext: whoever calls need not wait for a host that does not answer.
func TestCallEndsWithItsContext(t *testing.T) {
	for name, speak := range map[string]Protocol{"HTTP/1": SpeakHTTP1, "HTTP/2": SpeakHTTP2} {
		t.Run(name, func(t *testing.T) {
			arrived, release := make(chan struct{}), make(chan struct{})
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			s := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				close(arrived)
				<-release
			})}
			s.Protocols.SetHTTP1(true)
			s.Protocols.SetUnencryptedHTTP2(true)
			served := make(chan struct{})
			go func() { _ = s.Serve(l); close(served) }()
			m := NewManager(Options{})
			defer func() { close(release); _ = m.Close(); _ = s.Close(); <-served }()
			a := l.Addr().(*net.TCPAddr)
			cfg := &Config{Name: "c", ConnectTimeout: time.Second, HTTP: HTTP{Protocol: speak}, Endpoints: &Assignment{Cluster: "c",
				Localities: []Locality{{Endpoints: []Endpoint{{Host: "127.0.0.1", Port: a.Port}}}}}}
			if err := m.Update(cfg); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			done := make(chan error, 1)
			go func() {
				_, err := m.Get("c").Call(ctx, &message.Request{Method: "POST", Scheme: "http", Authority: "c", Path: "/"}, []byte("x"))
				done <- err
			}()
			<-arrived
			cancel()
			select {
			case err := <-done:
				if !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			case <-time.After(5 * time.Second):
				t.Fatal("the call goes on")
			}
		})
	}
}

// TestInterruptionsEnd: what was to be interrupted is not given to anybody else while an
// interruption is under way.
func TestInterruptionsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		release, stopped := make(chan struct{}), make(chan bool, 1)
		stop := interruptWith(ctx, func() { <-release })
		cancel()
		synctest.Wait()
		go func() { stopped <- stop() }()
		synctest.Wait()
		select {
		case <-stopped:
			t.Error("an interruption is under way")
		default:
		}
		close(release)
		if !<-stopped {
			t.Error("stop does not tell of the interruption")
		}
		ctx, cancel = context.WithCancel(context.Background())
		defer cancel()
		if interruptWith(ctx, func() { t.Error("interrupted") })() {
			t.Error("nothing was interrupted")
		}
	})
}

// TestWhatCallsHoldAgainstHosts: that no connection could be made, not that none was to be.
func TestWhatCallsHoldAgainstHosts(t *testing.T) {
	for name, tc := range map[string]struct {
		dial   func(context.Context) error
		within time.Duration // of the caller
		limits Limits
		failed uint64
	}{
		"refused":                  {dial: func(context.Context) error { return syscall.ECONNREFUSED }, failed: 1},
		"no answer":                {failed: 1},
		"the caller's time":        {within: time.Second},
		"too many wait already":    {limits: Limits{MaxPendingRequests: -1}},
		"the caller does not wait": {within: -1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := NewManager(Options{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
					if tc.dial != nil {
						return nil, tc.dial(ctx)
					}
					<-ctx.Done()
					return nil, ctx.Err()
				}})
				defer m.Close()
				if err := m.Update(&Config{Name: "c", ConnectTimeout: 5 * time.Second, Limits: tc.limits, Endpoints: hosts("c", "10.0.0.1")}); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				switch {
				case tc.within > 0:
					ctx, cancel = context.WithTimeout(ctx, tc.within)
					defer cancel()
				case tc.within < 0:
					time.AfterFunc(time.Second, cancel)
				}
				var e *Error
				_, err := m.Get("c").Call(ctx, &message.Request{Method: "POST", Scheme: "http", Authority: "c", Path: "/"}, nil)
				if !errors.As(err, &e) {
					t.Error(err)
				}
				if n := m.Get("c").Stats()[0].ConnectFailed; n != tc.failed {
					t.Errorf("%d failures for %v", n, err)
				}
			})
		})
	}
}

// TestCallLooks: a call is not made again, so its connection is looked at.
func TestCallLooks(t *testing.T) {
	s := newServer(t)
	c := mustUpdate(t, newManager(t, Options{}), &Config{Name: "c", Endpoints: hosts("c", s.addr)})
	conn := acquire(t, c, "")
	conn.Release()
	_ = s.accepted(t, 1)[0].Close()
	waitFor(t, conn.Gone)
	done := make(chan error, 1)
	go func() {
		_, err := c.Call(t.Context(), &message.Request{Method: "POST", Scheme: "http", Authority: "c", Path: "/"}, nil)
		done <- err
	}()
	_, _ = s.accepted(t, 2)[1].Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestOpenHoldsNothingAgainstHosts: whoever opens a connection of bytes need not wait for it.
// What is held against the host is that it could not be made in the connect timeout, whether
// somebody waits still or not.
func TestOpenHoldsNothingAgainstHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewManager(Options{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}})
		defer m.Close()
		if err := m.Update(&Config{Name: "c", ConnectTimeout: 5 * time.Second, Endpoints: hosts("c", "10.0.0.1")}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		for _, tc := range []struct {
			ctx    context.Context
			failed uint64
		}{{ctx, 0}, {t.Context(), 2}} {
			if _, err := m.Get("c").Open(tc.ctx, "", nil, 0); err == nil {
				t.Error("opened")
			}
			if n := m.Get("c").Stats()[0].ConnectFailed; n != tc.failed {
				t.Errorf("%d failures, want %d", n, tc.failed)
			}
		}
	})
}

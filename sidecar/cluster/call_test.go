package cluster

import (
	"context"
	"errors"
	"net"
	"net/http"
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

package streamtest

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// ends are both ends of a connection over a network of the bubble.
func ends(t *testing.T) (near, far net.Conn) {
	n := NewNetwork()
	l := n.Listen()
	near, err := n.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _, _ = near.Close(), far.Close(), l.Close() })
	return near, far
}

// TestBytes: what is more than a socket takes at once arrives whole, and so does the end.
func TestBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := ends(t)
		sent := bytes.Repeat([]byte("0123456789"), 500_000)
		go func() {
			_, _ = near.Write(sent)
			_ = near.(stream.Conn).CloseWrite()
		}()
		time.Sleep(time.Second)
		if got, err := io.ReadAll(far); err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
}

// TestDeadlines: waits end on the bubble's clock, also those that began before.
func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := ends(t)
		s, err := stream.NewSocket(near.(stream.Conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		_ = s.SetReadDeadline(began.Add(time.Hour))
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != time.Hour {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		_ = s.SetDeadline(time.Time{})
		time.AfterFunc(time.Hour, func() { _ = s.SetWriteDeadline(time.Unix(1, 0)) })
		if _, err := s.Write(make([]byte, 10_000_000)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != 2*time.Hour {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		if !s.Quiet() || s.Gone() {
			t.Error("the other end has said nothing")
		}
		_ = far.Close()
		if s.Quiet() || !s.Gone() {
			t.Error("the other end has left")
		}
	})
}

// TestCloseEndsWaits: also those of the closing end.
func TestCloseEndsWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := ends(t)
		time.AfterFunc(time.Hour, func() { _ = near.Close() })
		errs := make(chan error, 1)
		go func() { _, err := far.Read(make([]byte, 1)); errs <- err }()
		if _, err := near.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		if err := <-errs; err != io.EOF {
			t.Error(err)
		}
	})
}

// TestReset: an end that does not linger resets the other one.
func TestReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := ends(t)
		time.AfterFunc(time.Hour, func() { _ = near.(*Conn).SetLinger(0); _ = near.Close() })
		if _, err := far.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
	})
}

// TestNetwork: net/http is served over it, and an address at which nobody listens refuses.
func TestNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork()
		l := n.Listen()
		s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Minute)
			_, _ = io.Copy(w, r.Body)
		})}
		done := make(chan struct{})
		go func() { _ = s.Serve(l); close(done) }()
		c := &http.Client{Transport: &http.Transport{DialContext: n.DialContext}}
		resp, err := c.Post("http://"+l.Addr().String()+"/", "", strings.NewReader("hello"))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(resp.Body); string(got) != "hello" {
			t.Errorf("%q, %v", got, err)
		}
		_ = resp.Body.Close()
		_ = s.Close()
		<-done
		c.CloseIdleConnections()
		if _, err := n.Dial("tcp", l.Addr().String()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Error(err)
		}
	})
}

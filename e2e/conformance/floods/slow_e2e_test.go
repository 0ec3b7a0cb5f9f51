//go:build e2e

package floods

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/e2e/conformance/bed"
)

// newFieldAs is a field of a process of the caller's.
func newFieldAs(t *testing.T, p bed.Process, origin, options string) *field {
	f := &field{t: t, addr: bed.Addr(t)}
	f.s = bed.StartAs(t, p, []bed.Cluster{{Name: "origin", Addr: origin}}, bed.Listener{Addr: f.addr, Options: options})
	return f
}

// TestBodiesBelowTheRate: bodies that come by the byte end after half a minute, whatever they
// are framed by, though nothing else bounds them, and hosts are free again.
func TestBodiesBelowTheRate(t *testing.T) {
	for version := 1; version <= 2; version++ {
		t.Run(fmt.Sprintf("HTTP/%d", version), func(t *testing.T) {
			t.Parallel() // it waits, as others do
			f := newFieldAs(t, bed.Process{Flags: []string{"--least-body-rate", "100"}}, origin(t, nil), "")
			f.during(loss{crowd * 64 * kb, unfelt}, func() {
				f.attackers(100, func(i int, c net.Conn) error {
					_ = c.SetDeadline(time.Now().Add(time.Minute))
					return slowBody(c, f.addr, version, i%2 == 0)
				})
			})
		})
	}
}

// slowBody posts a body of a byte every half second, by a client that has a connection.
func slowBody(c net.Conn, addr string, version int, known bool) error {
	tr := &http.Transport{Protocols: new(http.Protocols), Dial: func(string, string) (net.Conn, error) { return c, nil }}
	tr.Protocols.SetHTTP1(version == 1)
	tr.Protocols.SetUnencryptedHTTP2(version == 2)
	r, w := io.Pipe()
	defer r.Close()
	go func() {
		for {
			if _, err := w.Write([]byte("y")); err != nil {
				return
			}
			time.Sleep(500 * time.Millisecond)
		}
	}()
	req, err := http.NewRequest("POST", "http://"+addr+"/good", r)
	if err != nil {
		return err
	}
	if known {
		req.ContentLength = 1 << 20
	}
	began := time.Now()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if took := time.Since(began); resp.StatusCode != 408 || took < 28*time.Second || took > 40*time.Second {
		return fmt.Errorf("%d after %v", resp.StatusCode, took)
	}
	return nil
}

// TestSilentConnections: who says nothing is not waited for as long as the idle timeout.
func TestSilentConnections(t *testing.T) {
	for name, options := range map[string]string{"HTTP/1": "", "HTTP/2": "codec_type: HTTP2"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &field{t: t, addr: bed.Addr(t), hostile: bed.Addr(t)}
			f.s = bed.StartAs(t, bed.Process{Flags: []string{"--first-byte-timeout", "2s"}}, []bed.Cluster{{Name: "origin", Addr: origin(t, nil)}},
				bed.Listener{Addr: f.addr}, bed.Listener{Addr: f.hostile, Options: options})
			f.during(loss{crowd * 24 * kb, unfelt}, func() {
				f.attackers(crowd, func(_ int, c net.Conn) error {
					began := time.Now()
					err := over(c)
					if took := time.Since(began); err == nil && (took < time.Second || took > 8*time.Second) {
						err = fmt.Errorf("it ended after %v", took)
					}
					return err
				})
			})
		})
	}
}

// TestDescriptorsExhausted: where clients have as many connections as may be, further ones are
// closed at once, and who is there is served, by hosts to which new connections are made.
func TestDescriptorsExhausted(t *testing.T) {
	host := serveEach(t, func(c net.Conn) {
		defer c.Close()
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\ngood")
		}
	})
	f := newFieldAs(t, bed.Process{Descriptors: 256}, host, "")
	c, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r := bufio.NewReader(c)
	ask := func() error {
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.WriteString(c, "GET /good HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
			return err
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return err
		}
		body, err := io.ReadAll(resp.Body)
		if resp.StatusCode != 200 || string(body) != "good" {
			return fmt.Errorf("%d %q %v", resp.StatusCode, body, err)
		}
		return nil
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	var all []net.Conn
	for range 600 {
		a, err := net.Dial("tcp", f.addr)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, a)
	}
	for i := range 50 {
		if err := ask(); err != nil {
			t.Fatalf("request %d of a client that was there before: %v", i, err)
		}
	}
	refused := 0
	for _, a := range all {
		_ = a.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if _, err := a.Read(make([]byte, 1)); err != nil && !strings.Contains(err.Error(), "timeout") {
			refused++
		}
	}
	if refused < 600-256 || refused > 500 {
		t.Errorf("%d of 600 connections were refused", refused)
	}
	for _, a := range all {
		_ = a.Close()
	}
	for end := time.Now().Add(10 * time.Second); f.one() != nil; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("nobody is served when there are descriptors again: %v", f.one())
		}
	}
	f.s.Alive()
}

// TestDescriptorsOfHosts: one client that has very many connections to a host be made has not
// all descriptors of the process.
func TestDescriptorsOfHosts(t *testing.T) {
	f := newFieldAs(t, bed.Process{Descriptors: 256}, origin(t, func(_ string, c net.Conn, _ *bufio.Reader) {
		_, _ = io.Copy(io.Discard, c) // and no answer
	}), "http2_protocol_options: {max_concurrent_streams: 1000}")
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	ctx, cancel := context.WithCancel(t.Context())
	defer tr.CloseIdleConnections()
	first, err := (&http.Client{Transport: tr}).Get("http://" + f.addr + "/good") // or each has a connection of its own
	if err != nil {
		t.Fatal(err)
	}
	_ = first.Body.Close()
	refused := make(chan error, 400)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	for range cap(refused) {
		all.Go(func() {
			req, _ := http.NewRequestWithContext(ctx, "GET", "http://"+f.addr+"/never", nil)
			resp, err := tr.RoundTrip(req)
			if ctx.Err() != nil {
				return
			}
			if err == nil {
				_ = resp.Body.Close()
				if resp.StatusCode != 503 {
					err = fmt.Errorf("status %d", resp.StatusCode)
				}
			}
			refused <- err
		})
	}
	for range cap(refused) - 256 {
		select {
		case err := <-refused:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("streams that no connection can be made for wait")
		}
	}
	if open, most := f.s.Descriptors(), 256-8; open > most {
		t.Errorf("%d of 256 descriptors are taken, more than %d", open, most)
	}
	f.s.Alive()
}

package tcp

import (
	"bytes"
	"io"
	"net"
	"syscall"
	"testing"
)

// Without descriptors for a pipe, bulk is copied.
func TestSpliceWithoutDescriptors(t *testing.T) {
	body, accepted, begin := bytes.Repeat([]byte("0123456789abcdef"), 1<<19), make(chan bool), make(chan bool)
	m := upstream(t, func(c *net.TCPConn) {
		close(accepted)
		<-begin
		_, _ = c.Write(body)
	})
	client, line := serve(t, Config{Cluster: "up"}, m)
	<-accepted
	pipes.mu.Lock()
	for _, p := range pipes.free {
		p.close()
	}
	pipes.free = nil
	pipes.mu.Unlock()
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 3, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old) }()
	close(begin)
	if b, err := io.ReadAll(client); err != nil || len(b) != len(body) {
		t.Errorf("%d bytes of %d, %v", len(b), len(body), err)
	}
	_ = client.Close()
	_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old)
	if got, want := line(), "- 0 8388608 up -"; got != want {
		t.Errorf("log %q, want %q", got, want)
	}
}

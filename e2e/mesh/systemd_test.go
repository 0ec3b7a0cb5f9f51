//go:build e2e

package mesh

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// activated starts a program as systemd starts a service with sockets: they are
// its descriptors from 3 on, and LISTEN_PID is its own number.
func activated(t *testing.T, pid string, sockets []*os.File, program string, args ...string) (*exec.Cmd, *os.File) {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	// The shell becomes the program, and keeps its number.
	cmd := exec.Command("sh", append([]string{"-c", fmt.Sprintf(`LISTEN_PID=%s LISTEN_FDS=%d exec "$@"`, pid, len(sockets)), "sh", program}, args...)...)
	cmd.ExtraFiles, cmd.Stdout, cmd.Stderr = sockets, log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd, log
}

// socket is a listening socket and, as systemd holds it, its descriptor.
func socket(t *testing.T) (addr string, ln net.Listener, file *os.File) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if file, err = ln.(*net.TCPListener).File(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close(); file.Close() })
	return ln.Addr().String(), ln, file
}

// TestSocketsFromSystemd: a connection that came before the sidecar did, and one
// that came between two of them, are served by the socket that systemd holds; one
// that nothing is configured for is closed.
func TestSocketsFromSystemd(t *testing.T) {
	bin := filepath.Join(os.Getenv("HAUBERK_BIN"), "hauberk-sidecar")
	app, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	go func() {
		for {
			c, err := app.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
		}
	}()
	addr, _, wanted := socket(t)
	spare, spareListener, unwanted := socket(t)
	host, port, _ := net.SplitHostPort(addr)
	appHost, appPort, _ := net.SplitHostPort(app.Addr().String())
	bootstrap := write(t, filepath.Join(t.TempDir(), "b.yaml"), fmt.Sprintf(`node: {id: n1}
static_resources:
  listeners:
  - name: in
    address: {socket_address: {address: %s, port_value: %s}}
    filter_chains:
    - filters:
      - name: tcp
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: tcp
          cluster: app
  clusters:
  - name: app
    load_assignment: {cluster_name: app, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: %s, port_value: %s}}}}]}]}
`, host, port, appHost, appPort))
	args := []string{"run", "--bootstrap", bootstrap, "--admin", "off", "--metrics", "off", "--ready", "off", "--drain-time", "1s"}
	text := func(f *os.File) string {
		b, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	early := func() net.Conn {
		t.Helper()
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err != nil {
			t.Fatalf("nobody is refused while systemd holds the socket: %v", err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := fmt.Fprintln(c, "hello"); err != nil {
			t.Fatal(err)
		}
		return c
	}
	answered := func(c net.Conn, log *os.File) {
		t.Helper()
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || line != "hello\n" {
			t.Fatalf("%q %v\n%s", line, err, text(log))
		}
	}

	c := early()
	first, log := activated(t, "$$", []*os.File{wanted, unwanted}, bin, args...)
	answered(c, log)
	// What is not configured is closed, once the rest is in force.
	spareListener.Close()
	unwanted.Close()
	closed := func() bool {
		c, err := net.DialTimeout("tcp", spare, time.Second)
		if err == nil {
			c.Close()
		}
		return err != nil
	}
	for end := time.Now().Add(10 * time.Second); !closed(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the socket that nothing is configured for is still open\n%s", text(log))
		}
	}
	if got := text(log); !strings.Contains(got, "inherited socket is not configured") {
		t.Errorf("nothing is said of it:\n%s", got)
	}
	if err := first.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = first.Wait()

	c = early()
	second, log := activated(t, "$$", []*os.File{wanted}, bin, args...)
	answered(c, log)
	_ = second.Process.Kill()
	_ = second.Wait()

	// Descriptors that are meant for another process are not touched, so the
	// address is in use.
	third, log := activated(t, "1", []*os.File{wanted}, bin, args...)
	if err := third.Wait(); err == nil || !strings.Contains(text(log), addr+" is in use") {
		t.Errorf("%v\n%s", err, text(log))
	}
}

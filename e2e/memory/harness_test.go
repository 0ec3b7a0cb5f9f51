//go:build e2e

package memory

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// program is the sidecar under test: a copy of HAUBERK_BIN's, or one built here. It is started
// from the disk: of a file that was written or read at once, the page cache has pieces of
// megabytes, each resident as a whole where one page of it is used, which adds 12 to 20 MB.
func program(t *testing.T) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "hauberk-sidecar")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, "../../cmd/hauberk-sidecar")
	if dir := os.Getenv("HAUBERK_BIN"); dir != "" {
		cmd = exec.Command("cp", filepath.Join(dir, "hauberk-sidecar"), out)
	}
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	f, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)); err != nil {
		t.Fatal(err)
	}
	return out
}

// sidecar is the program that runs, and the socket it is asked by.
type sidecar struct {
	pid   int
	admin *http.Client
}

// start runs the sidecar with a bootstrap until the test ends; it serves at each
// address of addrs.
func start(t *testing.T, bootstrap string, addrs ...string) sidecar {
	t.Helper()
	dir := t.TempDir()
	socket := filepath.Join(dir, "admin")
	file := filepath.Join(dir, "bootstrap.yaml")
	if err := os.WriteFile(file, []byte(bootstrap), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program(t), "run", "--admin", "off", "--admin-socket", socket,
		"--metrics", "off", "--ready", "off", "--bootstrap", file)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	wait(t, "unix", socket)
	for _, addr := range addrs {
		wait(t, "tcp", addr)
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return sidecar{pid: cmd.Process.Pid, admin: &http.Client{Transport: transport, Timeout: time.Minute}}
}

// ask is what the sidecar's admin interface answers.
func (s sidecar) ask(t *testing.T, method, path string) []byte {
	t.Helper()
	r, err := http.NewRequest(method, "http://localhost"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := s.admin.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %s, %v: %s", method, path, answer.Status, err, body)
	}
	return body
}

// runtimeUsage is what the sidecar's runtime says of itself.
type runtimeUsage struct {
	Heap       int64 `json:"heap_bytes"`
	Stack      int64 `json:"stack_bytes"`
	Goroutines int64 `json:"goroutines"`
}

func (s sidecar) runtime(t *testing.T) (m runtimeUsage) {
	t.Helper()
	body := s.ask(t, http.MethodGet, "/memory")
	if err := json.Unmarshal(body, &m); err != nil || m.Heap == 0 || m.Stack == 0 || m.Goroutines == 0 {
		t.Fatalf("/memory: %v: %s", err, body)
	}
	return m
}

// live is what the sidecar holds once garbage has been collected. Of one that has
// settled the heap is the same on every host, unlike what the collector leaves between
// two of its runs. Stacks are not: goroutines that were, one beside the other, leave
// some.
func (s sidecar) live(t *testing.T) runtimeUsage {
	t.Helper()
	for range 2 { // a pool lets go of what two collections found unused
		s.ask(t, http.MethodPost, "/heapprofiler") // collects first
	}
	return s.runtime(t)
}

func wait(t *testing.T, network, addr string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		c, err := net.Dial(network, addr)
		if err == nil {
			_ = c.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", addr, err)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// usage is a process's memory in bytes, as the kernel counts it.
type usage struct{ anonymous, resident int64 }

func (s sidecar) memory(t *testing.T) usage {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", s.pid))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var u usage
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 3 {
			continue
		}
		n, _ := strconv.ParseInt(fields[1], 10, 64)
		switch fields[0] {
		case "Anonymous:":
			u.anonymous = n << 10
		case "Rss:":
			u.resident = n << 10
		}
	}
	if u.anonymous == 0 {
		t.Fatal("no anonymous memory: smaps_rollup was not understood")
	}
	return u
}

// settled is the memory once the last connections have finished what they began, and the
// workers that the busiest moment needed have been sent away.
func (s sidecar) settled(t *testing.T) usage {
	t.Helper()
	last := s.runtime(t).Goroutines
	for same := 0; same < 5; same++ { // seconds: what no two looks at the workers needed is sent away
		<-time.After(time.Second)
		if now := s.runtime(t).Goroutines; now != last {
			last, same = now, -1
		}
	}
	return s.memory(t)
}

// freeAddr is an address that nothing listens on.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func yamlAddress(addr string) string {
	host, port, _ := net.SplitHostPort(addr)
	return fmt.Sprintf("{socket_address: {address: %s, port_value: %s}}", host, port)
}

// origin answers each 1 KB that it is sent, over HTTP/1 or plain, until the test
// ends.
func origin(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); serve(c) }()
		}
	}()
	return l.Addr().String()
}

const messageSize = 1 << 10

func echo(c net.Conn) {
	b := make([]byte, messageSize)
	for {
		if _, err := io.ReadFull(c, b); err != nil {
			return
		}
		if _, err := c.Write(b); err != nil {
			return
		}
	}
}

// httpOrigin answers requests of one fixed size.
func httpOrigin(c net.Conn) {
	r := bufio.NewReader(c)
	answer := "HTTP/1.1 200 OK\r\nContent-Length: " + strconv.Itoa(messageSize) + "\r\n\r\n" + strings.Repeat("x", messageSize)
	for {
		length := 0
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			if line = strings.TrimSpace(line); line == "" {
				break
			}
			if k, v, _ := strings.Cut(line, ":"); strings.EqualFold(k, "content-length") {
				length, _ = strconv.Atoi(strings.TrimSpace(v))
			}
		}
		if _, err := r.Discard(length); err != nil {
			return
		}
		if _, err := io.WriteString(c, answer); err != nil {
			return
		}
	}
}

// authority writes certificates into a directory.
type authority struct {
	t      *testing.T
	dir    string
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	serial int64
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.sign("ca", &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		Subject: pkix.Name{CommonName: "ca"}, URIs: []*url.URL{{Scheme: "spiffe", Host: "td"}}})
	return a
}

func (a *authority) sign(name string, c *x509.Certificate) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	a.serial++
	c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(a.serial), time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	if a.cert == nil {
		a.key = key
		if a.cert, err = x509.ParseCertificate(der); err != nil {
			a.t.Fatal(err)
		}
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	for file, b := range map[string]*pem.Block{".crt": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(filepath.Join(a.dir, name+file), pem.EncodeToMemory(b), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
}

func (a *authority) issue(name string) {
	a.sign(name, &x509.Certificate{
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs:        []*url.URL{{Scheme: "spiffe", Host: "td", Path: "/ns/default/dc/dc1/svc/" + name}},
	})
}

// client is the TLS configuration of a client of that name.
func (a *authority) client(name string) *tls.Config {
	a.t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(a.dir, name+".crt"), filepath.Join(a.dir, name+".key"))
	if err != nil {
		a.t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}
}

// context is a transport socket of an Envoy file.
func (a *authority) context(kind, name, more, indent string) string {
	return strings.ReplaceAll(fmt.Sprintf(`
transport_socket:
  name: tls
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.%s%s
    common_tls_context:
      tls_params: {tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}
      tls_certificates: [{certificate_chain: {filename: %s/%s.crt}, private_key: {filename: %s/%s.key}}]
      validation_context: {trusted_ca: {filename: %s/ca.crt}}`,
		kind, more, a.dir, name, a.dir, name, a.dir), "\n", "\n"+indent)
}

package workloadapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	workloadv1 "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// helperEnv makes the test binary a caller: its value is the socket. helperMode
// says what else it is than one that asks for an SVID.
const (
	helperEnv  = "HAUBERK_TEST_SOCKET"
	helperMode = "HAUBERK_TEST_MODE"
)

// helper asks for an SVID and prints the IDs that it got, or the error.
func helper() {
	switch os.Getenv(helperMode) {
	case "leave":
		leave()
		return
	case "heir":
		heir()
		return
	case "wait": // until it is told to go on
		_, err := io.Copy(io.Discard, os.Stdin)
		must(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	ids, err := fetchIDs(ctx, os.Getenv(helperEnv))
	if err != nil {
		fmt.Printf("%s: %s\n", status.Code(err), status.Convert(err).Message())
		return
	}
	fmt.Println(strings.Join(ids, " "))
}

func fetchIDs(ctx context.Context, socket string) ([]string, error) {
	c, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	ctx = metadata.AppendToOutgoingContext(ctx, headerName, headerValue)
	stream, err := workloadv1.NewSpiffeWorkloadAPIClient(c).FetchX509SVID(ctx, &workloadv1.X509SVIDRequest{})
	if err != nil {
		return nil, err
	}
	m, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, s := range m.GetSvids() {
		ids = append(ids, s.GetSpiffeId())
	}
	return ids, nil
}

// as runs the helper as another user and group; root only.
func as(t *testing.T, uid, gid uint32, socket string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), within+5*time.Second)
	defer cancel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// The test's binary lies where others may not look.
	b, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	copied := socketDir(t) + "/caller"
	if err := os.WriteFile(copied, b, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, copied)
	cmd.Dir = "/"
	// The race detector would sleep a second at each exit.
	cmd.Env = []string{helperEnv + "=" + socket, "GORACE=atexit_sleep_ms=0"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	return strings.TrimSpace(out.String())
}

func must(err error) {
	if err != nil {
		fmt.Println("helper:", err)
		os.Exit(1)
	}
}

// leave connects, hands its connection to another process and ends.
func leave() {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: os.Getenv(helperEnv), Net: "unix"})
	must(err)
	// A client's preface and empty settings, or the server would end this one
	// for its silence.
	_, err = c.Write([]byte(http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00"))
	must(err)
	// The server's settings: it has seen who this is.
	_, err = io.ReadFull(c, make([]byte, 9))
	must(err)
	f, err := c.File()
	must(err)
	exe, err := os.Executable()
	must(err)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), helperMode+"=heir", "GORACE=atexit_sleep_ms=0")
	cmd.ExtraFiles = []*os.File{f}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	must(cmd.Start())
}

// heir reads the connection that it was given until it ends.
func heir() {
	c, err := net.FileConn(os.NewFile(3, "connection"))
	must(err)
	must(c.SetReadDeadline(time.Now().Add(within)))
	_, err = io.Copy(io.Discard, c)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		fmt.Println("heir: still open")
		return
	}
	fmt.Println("heir: closed")
}

package workloadapi

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	workloadv1 "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// helperEnv makes the test binary a caller: its value is the socket.
const helperEnv = "HAUBERK_TEST_SOCKET"

// helper asks for an SVID and prints the IDs that it got, or the error.
func helper() {
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
	cmd.Env = []string{helperEnv + "=" + socket}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	return strings.TrimSpace(out.String())
}

package identity

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/hauberk-mesh/hauberk/cmd/hauberk/internal/cli"
	"github.com/hauberk-mesh/hauberk/cmd/hauberk/internal/output"
)

// socketEnv is where the Workload API says that its clients look.
const socketEnv = "SPIFFE_ENDPOINT_SOCKET"

// defaultSocket is where the documentation puts the host socket.
const defaultSocket = "unix:///run/hauberk/agent.sock"

// fetchTimeout is longer than an agent waits for an SVID that is being issued.
const fetchTimeout = 15 * time.Second

// Fetched is one SVID that the host socket gives to this process. It has no key.
type Fetched struct {
	SPIFFEID string    `json:"spiffe_id"`
	Hint     string    `json:"hint,omitempty"`
	Serial   string    `json:"serial"`
	NotAfter time.Time `json:"not_after"`
	// Bundles are the trust domains whose peers it can verify.
	Bundles []string `json:"bundles"`
}

func fetch(env *cli.Env) *cobra.Command {
	var socket, dir string
	cmd := &cobra.Command{
		Use:   "fetch",
		Short: "ask the host socket, as the user you are, which identities you have",
		Long: "Asks an agent's host socket by the SPIFFE Workload API, and shows which identities it gives to this\n" +
			"process. To see what another user gets: sudo -u USER hauberk identity fetch. A selector unit= matches\n" +
			"in the unit only: systemd-run --unit=NAME.\n" +
			"Exit code 0 with an identity, 1 when there is none for this process, 2 when the socket does not answer.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), fetchTimeout)
			defer cancel()
			got, err := ask(ctx, socket)
			if err != nil {
				return err
			}
			if dir != "" {
				if err := write(dir, got); err != nil {
					return err
				}
			}
			list := fetched(got)
			return env.Print(list, func(w io.Writer) error {
				var rows [][]string
				for _, f := range list {
					rows = append(rows, []string{f.SPIFFEID, f.Hint, f.Serial, output.Short(time.Until(f.NotAfter)), strings.Join(f.Bundles, " ")})
				}
				return output.Table(w, []string{"SPIFFE ID", "HINT", "SERIAL", "EXPIRES IN", "BUNDLES"}, rows)
			})
		},
	}
	at := os.Getenv(socketEnv)
	if at == "" {
		at = defaultSocket
	}
	cmd.Flags().StringVar(&socket, "socket", at, "host socket, unix:///PATH or /PATH (env "+socketEnv+")")
	cmd.Flags().StringVar(&dir, "write", "", "directory to write svid.N.pem, svid.N.key (0600) and bundle.N.pem into")
	return cmd
}

func ask(ctx context.Context, socket string) (*workloadapi.X509Context, error) {
	if strings.HasPrefix(socket, "/") {
		socket = "unix://" + socket
	}
	c, err := workloadapi.New(ctx, workloadapi.WithAddr(socket))
	if err != nil {
		return nil, fmt.Errorf("--socket %s: %w", socket, err)
	}
	defer c.Close()
	got, err := c.FetchX509Context(ctx)
	switch {
	case status.Code(err) == codes.PermissionDenied:
		return nil, &output.ExitError{Code: output.No, Message: "hauberk: " + status.Convert(err).Message()}
	case status.Code(err) == codes.Unavailable && !answers(ctx, socket):
		return nil, fmt.Errorf("host socket %s: %s; is the agent running? (hauberk-sidecar agent --socket PATH; another socket: --socket or %s)",
			socket, status.Convert(err).Message(), socketEnv)
	case err != nil:
		return nil, fmt.Errorf("host socket %s: %s", socket, status.Convert(err).Message())
	}
	return got, nil
}

// answers tells whether somebody listens on the socket. What does may be unavailable for
// reasons of its own, which it says.
func answers(ctx context.Context, socket string) bool {
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", strings.TrimPrefix(socket, "unix://"))
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

func fetched(x *workloadapi.X509Context) []Fetched {
	var bundles []string
	for _, b := range x.Bundles.Bundles() {
		bundles = append(bundles, b.TrustDomain().Name())
	}
	out := []Fetched{}
	for _, s := range x.SVIDs {
		leaf := s.Certificates[0]
		out = append(out, Fetched{s.ID.String(), s.Hint, leaf.SerialNumber.Text(16), leaf.NotAfter, bundles})
	}
	return out
}

// write puts each SVID into files, under the names that SPIRE's client gives
// them. A file that is there is replaced; a key is never readable by others, not
// even for a moment.
func write(dir string, x *workloadapi.X509Context) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("--write: %w", err)
	}
	for i, s := range x.SVIDs {
		chain, key, err := s.Marshal()
		if err != nil {
			return fmt.Errorf("--write: the SVID of %s cannot be encoded", s.ID)
		}
		bundle, ok := x.Bundles.Get(s.ID.TrustDomain())
		if !ok {
			return fmt.Errorf("--write: there is no bundle of %s", s.ID.TrustDomain())
		}
		for name, f := range map[string]struct {
			content []byte
			mode    os.FileMode
		}{
			fmt.Sprintf("svid.%d.pem", i):   {chain, 0o644},
			fmt.Sprintf("svid.%d.key", i):   {key, 0o600},
			fmt.Sprintf("bundle.%d.pem", i): {certPEM(bundle.X509Authorities()), 0o644},
		} {
			if err := replace(filepath.Join(dir, name), f.content, f.mode); err != nil {
				return fmt.Errorf("--write: %w", err)
			}
		}
	}
	return nil
}

func certPEM(certs []*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

// replace writes beside the file, and renames: a reader sees the old one or the
// new one, and a new file never has an old one's mode.
func replace(path string, content []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Chmod(mode), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

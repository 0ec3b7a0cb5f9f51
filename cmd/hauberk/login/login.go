// Package login is `hauberk login` and `hauberk logout`: an operator's own
// identity, for control planes on other hosts.
package login

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hauberk-mesh/hauberk/cmd/hauberk/internal/cli"
)

// tokenEnv holds a token's text where there is no file.
const tokenEnv = "HAUBERK_TOKEN"

// Command returns `hauberk login`.
func Command(env *cli.Env) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "login --token-file FILE",
		Short: "get an operator's identity, for control planes on other hosts",
		Long: "Joins the mesh as an operator, with a token that an operator of the control plane made:\n\n" +
			"  hauberk token create --role operator --node alice > alice.token   # at the control plane\n" +
			"  hauberk login --token-file alice.token                            # here\n" +
			"  hauberk status --address https://cp.example.com:15014\n\n" +
			"The key is made here and stays here. The identity is renewed by use; unused for as long as an SVID\n" +
			"lives (a day by default), it expires, and a new token is needed.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			token, err := readToken(env.In, file)
			if err != nil {
				return err
			}
			dir, err := cli.OperatorDir()
			if err != nil {
				return err
			}
			v, err := cli.Login(cmd.Context(), dir, token)
			if err != nil {
				return fmt.Errorf("login: %w", err)
			}
			return env.Print(map[string]any{"id": v.ID, "not_after": v.Leaf().NotAfter, "state_dir": dir}, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "logged in as %s until %s; use renews it\nnext: hauberk status --address https://HOST:15014\n",
					v.ID, v.Leaf().NotAfter.Format(time.RFC3339))
				return err
			})
		},
	}
	cmd.Flags().StringVar(&file, "token-file", "", "file with the token, or - for standard input (or "+tokenEnv+")")
	return cmd
}

// readToken never takes a token from the arguments: others can read those.
func readToken(in io.Reader, file string) (string, error) {
	var b []byte
	var err error
	switch file {
	case "":
		b = []byte(os.Getenv(tokenEnv))
	case "-":
		b, err = io.ReadAll(io.LimitReader(in, 1<<16))
	default:
		b, err = os.ReadFile(file)
	}
	if err != nil {
		return "", fmt.Errorf("--token-file: %w", err)
	}
	token := strings.TrimSpace(string(b))
	if token == "" {
		return "", errors.New("no token: give --token-file FILE, - for standard input, or set " + tokenEnv)
	}
	return token, nil
}

// Logout returns `hauberk logout`.
func Logout(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "logout",
		Short: "remove the operator's identity from this host",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := cli.OperatorDir()
			if err != nil {
				return err
			}
			if err := cli.Forget(dir); err != nil {
				return fmt.Errorf("logout: %w", err)
			}
			return env.Print(map[string]any{"state_dir": dir}, func(w io.Writer) error {
				_, err := fmt.Fprintln(w, "logged out; the key is gone from this host")
				return err
			})
		},
	}
}

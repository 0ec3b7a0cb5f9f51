// Package token is `hauberk token`: join tokens for nodes, control planes and
// operators.
package token

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/hauberk-mesh/hauberk/cmd/hauberk/internal/cli"
	"github.com/hauberk-mesh/hauberk/cmd/hauberk/internal/output"
	"github.com/hauberk-mesh/hauberk/controlplane/server/api"
)

// Command returns `hauberk token`.
func Command(env *cli.Env) *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "create and list join tokens"}
	cmd.AddCommand(create(env), list(env), revoke(env))
	return cmd
}

func create(env *cli.Env) *cobra.Command {
	var req api.TokenRequest
	cmd := &cobra.Command{
		Use:   "create --node NAME --service SVC...",
		Short: "create a join token, printed once",
		Long: "Creates a token with which one node joins once. It fixes the node's name and the services it may be,\n" +
			"and expires. Give it to the sidecar by file, environment or standard input, never as an argument:\n\n" +
			"  hauberk token create --node web-1 --service web > web-1.token\n" +
			"  hauberk-sidecar run --token-file web-1.token",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.Client()
			if err != nil {
				return err
			}
			var reply api.TokenReply
			if err := c.Post(cmd.Context(), api.TokensPath, req, &reply); err != nil {
				return err
			}
			return env.Print(reply, func(w io.Writer) error {
				fmt.Fprintf(env.Err, "token %s for %s, valid until %s\n", reply.ID, reply.Node, reply.Expires.Format(time.RFC3339))
				_, err := fmt.Fprintln(w, reply.Token)
				return err
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&req.Node, "node", "", "name of the node that may join")
	f.StringVar(&req.Role, "role", "node", "node, controlplane or operator")
	// Not a slice that is split at commas: these part the selectors of one service.
	f.StringArrayVar(&req.Services, "service", nil, "service the node may be, repeatable; with selectors for the host socket: api@uid=1001,unit=api.service")
	f.StringArrayVar(&req.Workloads, "workload", nil, "whole SPIFFE ID the node may be, likewise")
	f.DurationVar(&req.TTL, "ttl", 10*time.Minute, "how long the token is valid")
	f.StringSliceVar(&req.Addresses, "control-plane", nil, "address the node should reach a control plane at (default: this one's)")
	if err := cmd.MarkFlagRequired("node"); err != nil {
		panic(err)
	}
	return cmd
}

func revoke(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "revoke TOKEN",
		Short: "make a token that has not been used worthless",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return cli.Change(cmd, env, api.RevokePath, args[0], "revoked token")
		},
	}
}

func list(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "list tokens, without their secrets",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.Client()
			if err != nil {
				return err
			}
			var tokens []api.Token
			if err := c.Get(cmd.Context(), api.TokensPath, &tokens); err != nil {
				return err
			}
			return env.Print(tokens, func(w io.Writer) error {
				var rows [][]string
				for _, t := range tokens {
					state := "unused, " + output.Short(time.Until(t.Expires)) + " left"
					switch {
					case !t.Used.IsZero():
						state = "used " + output.Ago(t.Used) + " ago"
					case time.Now().After(t.Expires):
						state = "expired"
					}
					rows = append(rows, []string{t.ID, t.Node, t.Role, state})
				}
				return output.Table(w, []string{"TOKEN", "NODE", "ROLE", "STATE"}, rows)
			})
		},
	}
}

// Package ca is `hauberk ca`: the certificate authority, its signers, backup
// and restore.
package ca

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/hauberk-mesh/hauberk/cmd/hauberk/internal/cli"
	"github.com/hauberk-mesh/hauberk/cmd/hauberk/internal/output"
	"github.com/hauberk-mesh/hauberk/controlplane/server/api"
	identityca "github.com/hauberk-mesh/hauberk/identity/ca"
)

// Command returns `hauberk ca`.
func Command(env *cli.Env) *cobra.Command {
	cmd := &cobra.Command{Use: "ca", Short: "show, back up and restore the certificate authority, and withdraw what it trusts"}
	cmd.AddCommand(show(env), bundle(env), backup(env), restore(env), withdraw(env), remove(env))
	return cmd
}

func show(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "show",
		Short: "list the signers that the mesh trusts",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			info, err := fetch(cmd, env)
			if err != nil {
				return err
			}
			return env.Print(info, func(w io.Writer) error {
				fmt.Fprintf(w, "trust domain  %s\nbundle        sequence %d\npin           %s\n\n", info.TrustDomain, info.Sequence, info.Pin)
				var rows [][]string
				for _, s := range info.Signers {
					rows = append(rows, []string{s.ID, s.Owner, s.State, output.Short(time.Until(s.NotAfter))})
				}
				return output.Table(w, []string{"SIGNER", "CONTROL PLANE", "STATE", "LEFT"}, rows)
			})
		},
	}
}

func bundle(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "bundle",
		Short: "print the trust bundle in SPIFFE's format",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			info, err := fetch(cmd, env)
			if err != nil {
				return err
			}
			return output.JSON(env.Out, info.Bundle)
		},
	}
}

func fetch(cmd *cobra.Command, env *cli.Env) (*api.CA, error) {
	c, err := env.Client()
	if err != nil {
		return nil, err
	}
	var info api.CA
	return &info, c.Get(cmd.Context(), api.CAPath, &info)
}

func backup(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "backup FILE",
		Short: "write the control plane's keys and records to FILE (mode 0600)",
		Long: "Writes everything a control plane needs to come back after its disk is lost: its signer key, bundle,\n" +
			"tokens and node records. Whoever holds the file can mint identities: keep it as you keep the key.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.Client()
			if err != nil {
				return err
			}
			f, err := os.OpenFile(args[0], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("%s exists; a backup never overwrites: choose another name", args[0])
			}
			if err != nil {
				return err
			}
			err = c.Download(cmd.Context(), api.BackupPath, f)
			if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
				return errors.Join(fmt.Errorf("backup to %s: %w", args[0], err), os.Remove(args[0]))
			}
			fmt.Fprintf(env.Err, "wrote %s\n", args[0])
			return nil
		},
	}
}

func withdraw(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "withdraw SIGNER",
		Short: "trust a signer no longer, nor anything it has signed",
		Long: "Takes a signer (hauberk ca show lists them) out of the trust bundle, everywhere and for good. What it has signed\n" +
			"is refused from then on, and connections that began with it end. The control plane whose it is needs another.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return cli.Change(cmd, env, api.WithdrawPath, args[0], "withdrew signer")
		},
	}
}

func remove(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "remove CONTROL-PLANE",
		Short: "remove another control plane that is gone for good",
		Long: "Withdraws the signers of another control plane, bans it and forgets its addresses. Every SVID it signed is refused from\n" +
			"then on; its nodes get new ones from the others. As long as one that is gone is not removed no new signer signs.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return cli.Change(cmd, env, api.RemovePath, args[0], "removed control plane")
		},
	}
}

func restore(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "restore FILE STATE-DIR",
		Short: "unpack a backup into an empty state directory",
		Long:  "Unpacks and verifies a backup. Start the control plane on STATE-DIR afterwards.",
		Args:  cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			if err := identityca.Restore(f, args[1]); err != nil {
				return err
			}
			fmt.Fprintf(env.Err, "restored into %s; start the control plane with --state-dir %s\n", args[1], args[1])
			return nil
		},
	}
}

// Package cli is what all commands share: where the control plane is, how to
// print, and how an error becomes an exit code.
package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hauberk-mesh/hauberk/cmd/hauberk/client"
	"github.com/hauberk-mesh/hauberk/cmd/hauberk/internal/output"
	"github.com/hauberk-mesh/hauberk/internal/version"
)

// Env is handed to every command.
type Env struct {
	Out, Err io.Writer
	In       io.Reader
	Address  string
	Format   output.Format
	// OperatorTLS makes the configuration for an https address from the
	// operator's SVID directory.
	OperatorTLS func(context.Context) (*tls.Config, error)
}

// Client connects to the control plane the flags name.
func (e *Env) Client() (*client.Client, error) {
	ctx := context.Background() // it bounds itself
	var cfg *tls.Config
	if len(e.Address) > 6 && e.Address[:6] == "https:" {
		var err error
		if cfg, err = e.OperatorTLS(ctx); err != nil {
			return nil, err
		}
	}
	return client.New(e.Address, cfg)
}

// Print prints v as JSON, or calls table.
func (e *Env) Print(v any, table func(io.Writer) error) error {
	if e.Format == "json" {
		return output.JSON(e.Out, v)
	}
	return table(e.Out)
}

// Change posts to the path of one thing, and says what was done.
func Change(cmd *cobra.Command, env *Env, path, name, done string) error {
	c, err := env.Client()
	if err != nil {
		return err
	}
	if err := c.Post(cmd.Context(), strings.Replace(path, "{name}", url.PathEscape(name), 1), nil, nil); err != nil {
		return err
	}
	fmt.Fprintf(env.Err, "%s %s\n", done, name)
	return nil
}

// Root assembles the command tree.
func Root(env *Env, children ...*cobra.Command) *cobra.Command {
	root := &cobra.Command{
		Use:   "hauberk",
		Short: "operate a Hauberk service mesh",
		Long: "hauberk operates a Hauberk service mesh.\n\n" +
			"Exit codes: 0 yes or done, 1 no (denied, unhealthy, refused), 2 could not tell or could not do.",
		Version:       version.String(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetOut(env.Out)
	root.SetErr(env.Err)
	env.Format = "table"
	f := root.PersistentFlags()
	f.StringVar(&env.Address, "address", client.DefaultAddress(), "control plane to ask: unix:///path or https://host:port (env "+client.AddressEnv+")")
	f.VarP(&env.Format, "output", "o", "table or json")
	root.AddCommand(children...)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fmt.Errorf("%w; %s --help lists them", err, c.CommandPath())
	})
	for _, c := range children {
		advise(c)
	}
	return root
}

// advise has a command, and those below it, say what was wanted where its arguments are
// wrong: a group takes any words, and prints its help with success.
func advise(c *cobra.Command) {
	if c.HasSubCommands() && !c.Runnable() {
		c.SuggestionsMinimumDistance = 2
		c.RunE = func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.Help()
			}
			if near := c.SuggestionsFor(args[0]); len(near) > 0 {
				return fmt.Errorf("unknown command %q for %q; did you mean %s?", args[0], c.CommandPath(), strings.Join(near, ", "))
			}
			return fmt.Errorf("unknown command %q for %q; %s --help lists them", args[0], c.CommandPath(), c.CommandPath())
		}
	}
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return fmt.Errorf("%w; usage: %s", err, c.UseLine())
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		advise(sub)
	}
}

// Execute runs the tree and returns the exit code.
func Execute(root *cobra.Command, args []string) int {
	root.SetArgs(args)
	err := root.Execute()
	if err == nil {
		return output.OK
	}
	var exit *output.ExitError
	if errors.As(err, &exit) {
		if exit.Message != "" {
			fmt.Fprintln(root.ErrOrStderr(), exit.Message)
		}
		return exit.Code
	}
	fmt.Fprintln(root.ErrOrStderr(), "hauberk:", err)
	return output.Failed
}

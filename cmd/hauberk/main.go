// Command hauberk operates a Hauberk service mesh.
package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/hauberk-mesh/hauberk/cmd/hauberk/ca"
	"github.com/hauberk-mesh/hauberk/cmd/hauberk/demo"
	"github.com/hauberk-mesh/hauberk/cmd/hauberk/envoy"
	"github.com/hauberk-mesh/hauberk/cmd/hauberk/identity"
	"github.com/hauberk-mesh/hauberk/cmd/hauberk/intention"
	"github.com/hauberk-mesh/hauberk/cmd/hauberk/internal/cli"
	"github.com/hauberk-mesh/hauberk/cmd/hauberk/login"
	"github.com/hauberk-mesh/hauberk/cmd/hauberk/run"
	"github.com/hauberk-mesh/hauberk/cmd/hauberk/sidecar"
	"github.com/hauberk-mesh/hauberk/cmd/hauberk/status"
	"github.com/hauberk-mesh/hauberk/cmd/hauberk/token"
)

func main() {
	env := &cli.Env{Out: os.Stdout, Err: os.Stderr, In: os.Stdin, OperatorTLS: cli.OperatorTLS}
	os.Exit(cli.Execute(root(env), os.Args[1:]))
}

func root(env *cli.Env) *cobra.Command {
	return cli.Root(env,
		demo.Command(env),
		status.Command(env),
		intention.Command(env),
		identity.Command(env),
		sidecar.Command(env),
		run.Command(env),
		token.Command(env),
		ca.Command(env),
		envoy.Command(env),
		login.Command(env),
		login.Logout(env),
	)
}

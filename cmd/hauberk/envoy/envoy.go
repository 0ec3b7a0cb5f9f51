// Package envoy is `hauberk envoy`: Envoys as proxies of the mesh.
package envoy

import (
	"fmt"
	"net/netip"
	"os"

	"github.com/spf13/cobra"

	"github.com/hauberk-mesh/hauberk/cmd/hauberk/internal/cli"
	"github.com/hauberk-mesh/hauberk/xds/bootstrap"
)

// Command returns `hauberk envoy`.
func Command(env *cli.Env) *cobra.Command {
	cmd := &cobra.Command{Use: "envoy", Short: "use Envoys as proxies of the mesh"}
	cmd.AddCommand(bootstrapCommand(env))
	return cmd
}

func bootstrapCommand(env *cli.Env) *cobra.Command {
	var e bootstrap.Envoy
	var admin string
	cmd := &cobra.Command{
		Use:   "bootstrap",
		Short: "print the bootstrap of an Envoy beside a host's agent",
		Long: "Prints what an Envoy is started with that gets its configuration and its keys from the agent's socket\n" +
			"on its host. The agent shows it the workloads that its user may be, and no others:\n\n" +
			"  hauberk envoy bootstrap --socket /run/hauberk/agent.sock > envoy.yaml\n" +
			"  envoy -c envoy.yaml",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if admin != "" {
				var err error
				if e.Admin, err = netip.ParseAddrPort(admin); err != nil {
					return fmt.Errorf("--admin %q: want an IP address and a port: %w", admin, err)
				}
			}
			p, err := e.Proto()
			if err != nil {
				return err
			}
			render := bootstrap.YAML
			if env.Format == "json" {
				render = bootstrap.JSON
			}
			text, err := render(p)
			if err != nil {
				return err
			}
			_, err = env.Out.Write(text)
			return err
		},
	}
	host, _ := os.Hostname()
	f := cmd.Flags()
	f.StringVar(&e.AgentSocket, "socket", "/run/hauberk/agent.sock", "the agent's host socket")
	f.StringVar(&e.NodeID, "node-id", host, "name of this Envoy in logs and in status")
	f.StringVar(&e.Cluster, "cluster", "", "Envoy's service cluster (default: the node id)")
	f.StringSliceVar(&e.Workloads, "workload", nil, "registration id to serve; repeatable (default: all that the user may be)")
	f.StringVar(&admin, "admin", "", "loopback address of Envoy's admin (default: none)")
	f.StringVar(&e.AdminSocket, "admin-socket", "", "Unix socket of Envoy's admin instead (0600)")
	f.StringVar(&e.Region, "region", "", "locality")
	f.StringVar(&e.Zone, "zone", "", "locality")
	f.StringVar(&e.SubZone, "sub-zone", "", "locality")
	f.BoolVar(&e.SotW, "state-of-the-world", false, "use the state-of-the-world protocol instead of the incremental one")
	return cmd
}

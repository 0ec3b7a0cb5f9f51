// Package sidecar is `hauberk sidecar`: what a sidecar is configured with,
// asked of the control plane, so that it works for a remote host.
package sidecar

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hauberk-mesh/hauberk/cmd/hauberk/internal/cli"
	"github.com/hauberk-mesh/hauberk/cmd/hauberk/internal/output"
	"github.com/hauberk-mesh/hauberk/controlplane/server/api"
)

// Command returns `hauberk sidecar`.
func Command(env *cli.Env) *cobra.Command {
	cmd := &cobra.Command{Use: "sidecar", Short: "show what a sidecar is configured with"}
	cmd.AddCommand(
		view(env, "config NAME", "every resource, its version and whether the sidecar took it", "", configRows,
			[]string{"TYPE", "NAME", "VERSION", "STATE"}),
		view(env, "clusters NAME", "clusters and their endpoints", "CDS,EDS", clusterRows,
			[]string{"CLUSTER", "STATE", "ENDPOINT", "HEALTH", "WEIGHT"}),
		view(env, "routes NAME", "routes in the order they are tried", "RDS", routeRows,
			[]string{"ROUTE", "MATCH", "TO", "TIMEOUT", "FROM"}),
	)
	return cmd
}

func view(env *cli.Env, use, short, types string, rows func([]api.Resource) ([][]string, error), header []string) *cobra.Command {
	return &cobra.Command{
		Use:   use,
		Short: short,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.Client()
			if err != nil {
				return err
			}
			path := strings.Replace(api.ResourcesPath, "{name}", url.PathEscape(args[0]), 1)
			if types != "" {
				path += "?type=" + url.QueryEscape(types)
			}
			var res []api.Resource
			if err := c.Get(cmd.Context(), path, &res); err != nil {
				return err
			}
			return env.Print(res, func(w io.Writer) error {
				r, err := rows(res)
				if err != nil {
					return err
				}
				if err := output.Table(w, header, r); err != nil {
					return err
				}
				for _, x := range res {
					if x.Error != "" {
						fmt.Fprintf(w, "rejected: %s %s: %s\n", x.Type, output.Text(x.Name), output.Text(x.Error))
					}
				}
				return nil
			})
		},
	}
}

func configRows(res []api.Resource) ([][]string, error) {
	var rows [][]string
	for _, r := range res {
		rows = append(rows, []string{r.Type, r.Name, r.Version, r.State})
	}
	return rows, nil
}

func clusterRows(res []api.Resource) ([][]string, error) {
	type address struct {
		SocketAddress struct {
			Address   string `json:"address"`
			PortValue int    `json:"portValue"`
		} `json:"socketAddress"`
		Pipe struct {
			Path string `json:"path"`
		} `json:"pipe"`
	}
	type assignment struct {
		Endpoints []struct {
			Priority    int `json:"priority"`
			LBEndpoints []struct {
				Endpoint struct {
					Address address `json:"address"`
				} `json:"endpoint"`
				HealthStatus        string `json:"healthStatus"`
				LoadBalancingWeight int    `json:"loadBalancingWeight"`
			} `json:"lbEndpoints"`
		} `json:"endpoints"`
	}
	type cluster struct {
		LoadAssignment assignment `json:"loadAssignment"`
		ClusterType    struct {
			TypedConfig struct {
				Clusters []string `json:"clusters"`
			} `json:"typedConfig"`
		} `json:"clusterType"`
	}
	endpoints := map[string]assignment{}
	for _, r := range res {
		if r.Type == "EDS" {
			var a assignment
			if err := json.Unmarshal(r.Body, &a); err != nil {
				return nil, fmt.Errorf("%s %s: %w", r.Type, r.Name, err)
			}
			endpoints[r.Name] = a
		}
	}
	var rows [][]string
	for _, r := range res {
		if r.Type != "CDS" {
			continue
		}
		var c cluster
		if err := json.Unmarshal(r.Body, &c); err != nil {
			return nil, fmt.Errorf("%s %s: %w", r.Type, r.Name, err)
		}
		a, ok := endpoints[r.Name]
		if !ok {
			a = c.LoadAssignment
		}
		n := 0
		for _, l := range a.Endpoints {
			for _, e := range l.LBEndpoints {
				n++
				where := e.Endpoint.Address.Pipe.Path
				if where == "" {
					where = fmt.Sprintf("%s:%d", e.Endpoint.Address.SocketAddress.Address, e.Endpoint.Address.SocketAddress.PortValue)
				}
				health := strings.ToLower(e.HealthStatus)
				if health == "" {
					health = "healthy"
				}
				rows = append(rows, []string{r.Name, r.State, where, health, fmt.Sprint(max(e.LoadBalancingWeight, 1))})
			}
		}
		switch {
		case len(c.ClusterType.TypedConfig.Clusters) > 0:
			rows = append(rows, []string{r.Name, r.State, "first healthy of " + strings.Join(c.ClusterType.TypedConfig.Clusters, ", "), "", ""})
		case n == 0:
			rows = append(rows, []string{r.Name, r.State, "no endpoints", "", ""})
		}
	}
	return rows, nil
}

func routeRows(res []api.Resource) ([][]string, error) {
	var rows [][]string
	for _, r := range res {
		var rc routeConfig
		if err := json.Unmarshal(r.Body, &rc); err != nil {
			return nil, fmt.Errorf("%s %s: %w", r.Type, r.Name, err)
		}
		for _, vh := range rc.VirtualHosts {
			for _, rt := range vh.Routes {
				rows = append(rows, []string{r.Name, rt.match(), rt.to(), rt.Route.Timeout, rt.Metadata.FilterMetadata.Hauberk.Origin})
			}
		}
	}
	return rows, nil
}

// Package status is `hauberk status`: the mesh on one screen, problems last so
// that they stand above the prompt.
package status

import (
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hauberk-mesh/hauberk/cmd/hauberk/internal/cli"
	"github.com/hauberk-mesh/hauberk/cmd/hauberk/internal/output"
	"github.com/hauberk-mesh/hauberk/controlplane/server/api"
)

// Command returns `hauberk status`.
func Command(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "show the control plane, services, sidecars and problems",
		Long: "Shows the mesh on one screen. Exit code 1 when there is a problem or a sidecar is\n" +
			"not in sync; a warning, as of an application that can be reached beside its sidecar, is none.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.Client()
			if err != nil {
				return err
			}
			var st api.Status
			if err := c.Get(cmd.Context(), api.StatusPath, &st); err != nil {
				return err
			}
			if err := env.Print(st, func(w io.Writer) error { return print(w, &st) }); err != nil {
				return err
			}
			if !healthy(&st) {
				return &output.ExitError{Code: output.No}
			}
			return nil
		},
	}
}

func healthy(st *api.Status) bool {
	if len(st.Problems) > 0 || !st.Source.Synced || len(st.Source.Errors) > 0 {
		return false
	}
	for _, s := range st.Sidecars {
		if s.State != "synced" {
			return false
		}
	}
	return true
}

func print(w io.Writer, st *api.Status) error {
	cp := st.ControlPlane
	fmt.Fprintf(w, "control plane  %s\n", cp.SPIFFEID)
	fmt.Fprintf(w, "               version %s, up %s, xDS %s, API %s\n", cp.Version, output.Ago(cp.Started), cp.XDSAddress, cp.APIAddress)
	synced := "in sync"
	if !st.Source.Synced {
		synced = "NOT in sync yet"
	}
	fmt.Fprintf(w, "source         %s %s, %s, last answer %s ago\n", st.Source.Kind, st.Source.Where, synced, output.Ago(st.Source.LastSuccess))
	for _, s := range cp.Signers {
		fmt.Fprintf(w, "signer         %s of %s, %s, %s left\n", s.ID, s.Owner, s.State, output.Short(time.Until(s.NotAfter)))
	}
	fmt.Fprintln(w)
	rows := make([][]string, 0, len(st.Services))
	for _, s := range st.Services {
		rows = append(rows, []string{s.Name, s.Protocol, fmt.Sprintf("%d/%d", s.Passing, s.Total)})
	}
	if err := output.Table(w, []string{"SERVICE", "PROTOCOL", "PASSING"}, rows); err != nil {
		return err
	}
	fmt.Fprintln(w)
	rows = nil
	for _, s := range st.Sidecars {
		row := []string{s.Node, strings.Join(s.Workloads, ","), s.State}
		for _, t := range []string{"LDS", "RDS", "CDS", "EDS"} {
			row = append(row, count(s.Types[t]))
		}
		rows = append(rows, append(row, output.Ago(s.LastAck), s.Version))
	}
	if err := output.Table(w, []string{"SIDECAR", "WORKLOADS", "STATE", "LDS", "RDS", "CDS", "EDS", "LAST ACK", "VERSION"}, rows); err != nil {
		return err
	}
	fmt.Fprintln(w)
	return printProblems(w, st)
}

func printProblems(w io.Writer, st *api.Status) error {
	n := 0
	say := func(where, what string) {
		n++
		fmt.Fprintf(w, "problem: %s: %s\n", output.Text(where), output.Text(what))
	}
	for _, s := range st.Sidecars {
		if s.Why != "" {
			say("sidecar "+s.Node, s.Why)
		}
		for _, e := range s.Exposed {
			fmt.Fprintf(w, "warning: sidecar %s: %s\n", output.Text(s.Node), output.Text(e))
		}
	}
	for _, p := range st.Warnings {
		fmt.Fprintf(w, "warning: %s: %s\n", output.Text(p.Where), output.Text(p.What))
	}
	keys := make([]string, 0, len(st.Source.Errors))
	for k := range st.Source.Errors {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		say("source "+k, st.Source.Errors[k])
	}
	for _, p := range st.Problems {
		say(p.Where, p.What)
	}
	if n == 0 {
		fmt.Fprintln(w, "no problems")
	}
	return nil
}

func count(t api.TypeState) string {
	s := strconv.Itoa(t.Acked)
	if t.Pending > 0 {
		s += fmt.Sprintf(" +%d sent", t.Pending)
	}
	if t.Rejected > 0 {
		s += fmt.Sprintf(" %d REJECTED", t.Rejected)
	}
	return s
}

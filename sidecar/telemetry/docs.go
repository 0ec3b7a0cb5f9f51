package telemetry

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hauberk-mesh/hauberk/xds/logformat"
)

// Markdown documents every metric, access-log operator and flag: it is
// docs/METRICS.md.
func Markdown() string {
	var b strings.Builder
	b.WriteString("# Metrics and access logs of the sidecar\n\n" +
		"Made from the code by `go test ./sidecar/telemetry -run Docs -update`; do not edit.\n\n## Metrics\n\n" +
		"The label `peer` is the verified service name of the other side, `none` on plaintext, `other` for an identity that is no service, " +
		"`overflow` beyond 256 peers of a service. No label has a value that a peer can invent.\n\n" +
		"What was counted of a cluster ends when the cluster is removed; of a listener, and of a service that no other listener has, when the last " +
		"connection of it has ended; of an authorization rule some time after no configuration or connection has it. One of the same name that comes later begins anew.\n\n" +
		"| name | type | labels | meaning |\n|---|---|---|---|\n")
	for _, d := range NewMetrics().Registry.Families() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", d.Name, d.Kind, strings.Join(d.Labels, ", "), d.Help)
	}
	b.WriteString("\n## Envoy's statistics\n\nWhere what Envoy counts is found. `/stats` of the admin listener and `/stats/prometheus` have the same metrics; `/metrics` too. With `?usedonly` each leaves out what has counted nothing yet, as Envoy's do: with thousands of clusters most of a scrape.\n")
	for _, g := range envoyStats {
		fmt.Fprintf(&b, "\n### %s\n\n| Envoy | here | |\n|---|---|---|\n", g.Title)
		for _, s := range g.Stats {
			ours := "–"
			if s.Ours != "" {
				ours = "`" + s.Ours + "`"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", strings.ReplaceAll(s.Envoy, ", ", "`, `"), ours, s.Note)
		}
	}
	b.WriteString("\n## Access-log operators\n\nIn text `%OPERATOR%`, `%OPERATOR(ARGUMENT)%`, `%OPERATOR(ARGUMENT):LENGTH%`; `%%` is a percent sign. " +
		"What has no value is `-`, in JSON null; with `omit_empty_values` nothing. An operator that is alone in a JSON value keeps its type: numbers are numbers. An unknown operator is refused.\n\n| operator | argument | meaning |\n|---|---|---|\n")
	for _, o := range OperatorDocs() {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", o.Name, o.Argument, o.Help)
	}
	b.WriteString("\nOperators of Envoy's that are refused:\n\n| operator | why |\n|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(logformat.Refused())) {
		fmt.Fprintf(&b, "| `%s` | %s |\n", name, logformat.Refused()[name])
	}
	b.WriteString("\n## Flags\n\n| flag | meaning |\n|---|---|\n")
	for _, f := range FlagDocs() {
		fmt.Fprintf(&b, "| `%s` | %s |\n", f.Name, f.Help)
	}
	b.WriteString("\nEnvoy's flags that do not occur:\n\n| flag | why |\n|---|---|\n")
	for _, f := range absentFlags {
		fmt.Fprintf(&b, "| `%s` | %s |\n", f.Name, f.Help)
	}
	b.WriteString("\n## Default formats\n\nText:\n\n```\n" + DefaultTextFormat + "\n```\n\nJSON:\n\n| field | value |\n|---|---|\n")
	fields := DefaultJSONFields()
	for _, k := range slices.Sorted(maps.Keys(fields)) {
		fmt.Fprintf(&b, "| `%s` | `%s` |\n", k, fields[k])
	}
	return b.String()
}

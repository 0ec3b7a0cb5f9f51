package differential

import (
	"fmt"
	"strings"
)

// Document is docs/differential.md.
func (t *Table) Document() string {
	var b strings.Builder
	cases, differing := t.count()
	fmt.Fprintf(&b, `# Beside Envoy

Generated from the case table of `+"`e2e/differential/testdata`"+`; do not edit.

`+"`make e2e`"+` runs a real Envoy 1.40 and the sidecar with the same bootstrap file, in front of the same recording origins, sends
both the same bytes, and compares

- what the client gets: status, header fields, body, framing, trailers, interim responses, and how the connection ends;
- what the origins get: which of them, the request line, header fields, body, framing, trailers, and every further attempt;
- what the access logs say: code, flags, code details, bytes, attempts, cluster, upstream, route, filter chain, client and peer.

Envoy is the oracle: a case has no expectations of its own. %d cases, %d of them with a difference of their own that is listed here. A
difference is asserted with both values: the suite fails when one appears that is not listed, and when a listed one is gone.

`, cases, differing)
	b.WriteString("## What is not compared to the letter\n\n| what | how | why |\n|---|---|---|\n")
	for _, n := range Normalisations {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", n.What, n.How, n.Why)
	}
	b.WriteString("\n## In any case\n\n| field | Envoy | the sidecar | why |\n|---|---|---|---|\n")
	for _, d := range t.Differs {
		fmt.Fprintf(&b, "| %s |\n", d.row())
	}
	for _, g := range t.Groups {
		g.document(&b)
	}
	return b.String()
}

func (t *Table) count() (cases, differing int) {
	for _, g := range t.Groups {
		if g.Refused != nil {
			cases, differing = cases+1, differing+1
		}
		for _, c := range g.Configs {
			for _, x := range c.Cases {
				cases++
				if len(x.Differs) > 0 {
					differing++
				}
			}
		}
	}
	return cases, differing
}

func (g *Group) document(b *strings.Builder) {
	fmt.Fprintf(b, "\n## %s (%s)\n\n", g.About, g.Name)
	if g.Refused != nil {
		fmt.Fprintf(b, "The sidecar refuses this bootstrap, saying %s: %s.\n", code(g.Refused.Says), g.Refused.Why)
	}
	for _, c := range g.Configs {
		var names []string
		for _, x := range c.Cases {
			names = append(names, x.Name)
		}
		fmt.Fprintf(b, "- `%s`: %s. %s.\n", c.Name, c.About, strings.Join(names, "; "))
	}
	head := "\n| case | field | Envoy | the sidecar | why |\n|---|---|---|---|---|\n"
	for _, c := range g.Configs {
		for _, x := range c.Cases {
			for _, d := range x.Differs {
				fmt.Fprintf(b, "%s| `%s`: %s | %s |\n", head, c.Name, x.Name, d.row())
				head = ""
			}
		}
	}
}

func (d *Difference) row() string {
	return fmt.Sprintf("%s | %s | %s | %s", d.Field, code(d.Envoy), code(d.Hauberk), cell(d.Why))
}

// code is a value as it stands in a table.
func code(s string) string {
	switch s {
	case "":
		return "(empty)"
	case absent:
		return s
	case "*":
		return "(any)"
	}
	return "`" + cell(s) + "`"
}

func cell(s string) string { return strings.ReplaceAll(strings.ReplaceAll(s, "\n", " "), "|", `\|`) }

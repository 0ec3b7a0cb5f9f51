package compile

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
)

// CompileAuthorization collects the intentions that apply to a service, in the
// order in which they decide. An entry that cannot be used is an error, and the
// caller must then deny or keep the last good result: an intention that is
// skipped could be the one that denies. The dependencies are valid even then.
func CompileAuthorization(snap *catalog.Snapshot, name catalog.Name) (*Authorization, Deps, error) {
	c := newCompiler(snap)
	a, err := c.authorization(name)
	if err != nil {
		return nil, c.deps, fmt.Errorf("authorization of %s: %w", name, err)
	}
	a.Deps = c.deps
	return a, c.deps, nil
}

func (c *compiler) authorization(name catalog.Name) (*Authorization, error) {
	protocol, err := c.protocol(name)
	if err != nil {
		return nil, err
	}
	out := &Authorization{Service: name, Protocol: protocol, DefaultAllow: c.snap.DefaultAllow}
	type ranked struct {
		Rule
		rank int
	}
	var rules []ranked
	for _, destination := range []string{name.Service, catalog.Wildcard} {
		e, ok, err := entry[*api.ServiceIntentionsConfigEntry](c, api.ServiceIntentions, name, destination)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		if e.JWT != nil {
			return nil, fmt.Errorf("service-intentions/%s JWT: not supported", e.Name)
		}
		for i, s := range e.Sources {
			r, err := rule(e.Name, i, s, name)
			if err != nil {
				return nil, err
			}
			rules = append(rules, ranked{r, precedence(destination, s.Name)})
		}
	}
	// Rank is Consul's precedence; within a rank names do not overlap, so
	// sorting by name only makes the output stable.
	slices.SortStableFunc(rules, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(b.rank, a.rank), cmp.Compare(a.Source.Service, b.Source.Service))
	})
	for _, r := range rules {
		out.Rules = append(out.Rules, r.Rule)
	}
	return out, nil
}

func rule(entryName string, i int, s *api.SourceIntention, destination catalog.Name) (Rule, error) {
	origin := fmt.Sprintf("service-intentions/%s Sources[%d] (%s)", entryName, i, s.Name)
	switch {
	case s.Peer != "":
		return Rule{}, fmt.Errorf("%s.Peer: not supported", origin)
	case s.SamenessGroup != "":
		return Rule{}, fmt.Errorf("%s.SamenessGroup: not supported", origin)
	case s.Name == "":
		return Rule{}, fmt.Errorf("%s.Name: must be set", origin)
	}
	r := Rule{
		Source:      inScope(destination.Global(), s.Name, s.Namespace, s.Partition),
		Action:      s.Action,
		Permissions: s.Permissions,
		Origin:      origin,
	}
	if len(s.Permissions) > 0 {
		if s.Action != "" {
			return Rule{}, fmt.Errorf("%s: Action and Permissions exclude each other", origin)
		}
		for k, p := range s.Permissions {
			if p.JWT != nil {
				return Rule{}, fmt.Errorf("%s Permissions[%d].JWT: not supported", origin, k)
			}
			if p.HTTP == nil {
				return Rule{}, fmt.Errorf("%s Permissions[%d].HTTP: must be set", origin, k)
			}
			if !validAction(p.Action) {
				return Rule{}, fmt.Errorf("%s Permissions[%d].Action: %q is neither allow nor deny", origin, k, p.Action)
			}
		}
		return r, nil
	}
	if !validAction(s.Action) {
		return Rule{}, fmt.Errorf("%s.Action: %q is neither allow nor deny", origin, s.Action)
	}
	return r, nil
}

func validAction(a api.IntentionAction) bool {
	return a == api.IntentionActionAllow || a == api.IntentionActionDeny
}

// precedence is Consul's order inside one namespace: an exact destination
// before a wildcard one, then an exact source before a wildcard one.
func precedence(destination, source string) int {
	switch {
	case destination != catalog.Wildcard && source != catalog.Wildcard:
		return 9
	case destination != catalog.Wildcard:
		return 8
	case source != catalog.Wildcard:
		return 6
	}
	return 5
}

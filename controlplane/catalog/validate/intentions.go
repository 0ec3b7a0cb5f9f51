package validate

import (
	"fmt"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
)

// intentions refuses every rule that could mean more, or less, to us than to
// its author: a condition that is dropped is a door left open.
func (c *checker) intentions(e *api.ServiceIntentionsConfigEntry) {
	c.nameOrWildcard("Name", e.Name)
	c.jwt("JWT", e.JWT)
	seen := map[string]bool{}
	for i, s := range e.Sources {
		path := fmt.Sprintf("Sources[%d].", i)
		if s == nil {
			c.add(strings.TrimSuffix(path, "."), "empty")
			continue
		}
		c.nameOrWildcard(path+"Name", s.Name)
		c.not(seen[s.Name], path+"Name", fmt.Sprintf("%q is listed twice", s.Name))
		seen[s.Name] = true
		c.scope(path, s.Namespace, s.Partition)
		c.not(s.Peer != "", path+"Peer", "peers are not supported; remove the source")
		c.not(s.SamenessGroup != "", path+"SamenessGroup", "sameness groups are not supported; remove the source")
		c.oneOf(path+"Type", string(s.Type), string(api.IntentionSourceConsul))
		c.source(path, s)
	}
}

func (c *checker) source(path string, s *api.SourceIntention) {
	if len(s.Permissions) == 0 {
		c.action(path+"Action", s.Action)
		return
	}
	c.not(s.Action != "", path+"Action", "excludes Permissions; remove one of them")
	for i, p := range s.Permissions {
		pp := fmt.Sprintf("%sPermissions[%d].", path, i)
		if p == nil {
			c.add(strings.TrimSuffix(pp, "."), "empty")
			continue
		}
		c.action(pp+"Action", p.Action)
		c.jwt(pp+"JWT", p.JWT)
		if p.HTTP == nil {
			c.add(pp+"HTTP", "must be set")
			continue
		}
		c.permission(pp+"HTTP.", p.HTTP)
	}
}

func (c *checker) permission(path string, h *api.IntentionHTTPPermission) {
	c.httpPath(path, h.PathExact, h.PathPrefix, h.PathRegex)
	c.methods(path+"Methods", h.Methods)
	c.not(h.PathExact == "" && h.PathPrefix == "" && h.PathRegex == "" && len(h.Header) == 0 && len(h.Methods) == 0,
		strings.TrimSuffix(path, "."), "is empty; set a path, Header or Methods")
	for i, m := range h.Header {
		p := fmt.Sprintf("%sHeader[%d].", path, i)
		c.headerName(p+"Name", m.Name)
		c.exactlyOne(p, m.Present, map[string]string{
			"Exact": m.Exact, "Prefix": m.Prefix, "Suffix": m.Suffix, "Contains": m.Contains, "Regex": m.Regex,
		})
		c.regex(p+"Regex", m.Regex)
		c.not(m.IgnoreCase && m.Present, p+"IgnoreCase", "has no meaning with Present; remove it")
	}
}

func (c *checker) action(path string, a api.IntentionAction) {
	if a != api.IntentionActionAllow && a != api.IntentionActionDeny {
		c.add(path, "%q: use allow or deny", a)
	}
}

func (c *checker) jwt(path string, j *api.IntentionJWTRequirement) {
	c.not(j != nil, path, "JWT verification is not supported, and what it guards would be open; remove the rule or guard it otherwise")
}

func (c *checker) nameOrWildcard(path, name string) {
	if name == catalog.Wildcard {
		return
	}
	c.name(path, name)
}

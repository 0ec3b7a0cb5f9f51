// Package validate says whether the control plane can do what a config entry
// or a proxy registration asks for. It is the one gate for every source: what
// passes is implemented, what is not implemented or makes no sense is refused
// with its path and a sentence that says what to do. Nothing is dropped in
// silence, least of all a condition of an authorization rule.
//
// What only the whole graph can tell (a split to a service of another protocol,
// a subset that another resolver lacks) is package compile's to find.
package validate

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/catalog/pattern"
)

// Problem is one field that cannot be used.
type Problem struct {
	// Path of the field from the top of the entry, as "Routes[0].Match.HTTP.PathExact".
	Path string
	// Reason is a sentence fragment that says what is wrong and what to do.
	Reason string
}

func (p Problem) String() string {
	if p.Path == "" {
		return p.Reason
	}
	return p.Path + ": " + p.Reason
}

// Error lists every problem of one entry or registration.
type Error struct{ Problems []Problem }

func (e *Error) Error() string {
	parts := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		parts[i] = p.String()
	}
	return strings.Join(parts, "; ")
}

// checker collects problems.
type checker struct{ problems []Problem }

func (c *checker) add(path, format string, args ...any) {
	c.problems = append(c.problems, Problem{path, fmt.Sprintf(format, args...)})
}

// not refuses a feature that is not implemented.
func (c *checker) not(bad bool, path, what string) {
	if bad {
		c.add(path, "%s", what)
	}
}

func (c *checker) err() error {
	if len(c.problems) == 0 {
		return nil
	}
	return &Error{c.problems}
}

// Validate reports what the control plane cannot do of an entry, as an *Error.
func Validate(e api.ConfigEntry) error {
	c := &checker{}
	c.scope("", e.GetNamespace(), e.GetPartition())
	switch e := e.(type) {
	case *api.ProxyConfigEntry:
		c.proxyDefaults(e)
	case *api.ServiceConfigEntry:
		c.serviceDefaults(e)
	case *api.ServiceRouterConfigEntry:
		c.router(e)
	case *api.ServiceSplitterConfigEntry:
		c.splitter(e)
	case *api.ServiceResolverConfigEntry:
		c.resolver(e)
	case *api.ServiceIntentionsConfigEntry:
		c.intentions(e)
	case *api.MeshConfigEntry:
		c.mesh(e)
	default:
		c.add("Kind", "%q is not supported; supported are %s", e.GetKind(), strings.Join(catalog.Kinds, ", "))
	}
	return c.err()
}

// scope refuses namespaces and partitions, an Enterprise feature.
func (c *checker) scope(path, namespace, partition string) {
	if namespace != "" && namespace != catalog.DefaultNamespace {
		c.add(path+"Namespace", "%q: namespaces are not supported; use %q or leave it out", namespace, catalog.DefaultNamespace)
	}
	if partition != "" && partition != catalog.DefaultPartition {
		c.add(path+"Partition", "%q: partitions are not supported; use %q or leave it out", partition, catalog.DefaultPartition)
	}
}

// serviceName is strict where a name becomes part of a SPIFFE ID, an SNI and a
// path: Consul's own agent accepts DNS labels for services in the mesh.
var serviceName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$`)

// ServiceName says why a service cannot have a name.
func ServiceName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("must be set")
	case len(name) > 128:
		return fmt.Errorf("longer than 128 bytes")
	case !serviceName.MatchString(name):
		return fmt.Errorf("%q: use letters, digits, hyphens, dots and underscores, and start and end with a letter or digit", name)
	}
	return nil
}

func (c *checker) name(path, name string) {
	if name == catalog.Wildcard {
		c.add(path, "the wildcard %q is not supported here; name the service", name)
		return
	}
	if err := ServiceName(name); err != nil {
		c.add(path, "%s", err)
	}
}

func (c *checker) optionalName(path, name string) {
	if name != "" {
		c.name(path, name)
	}
}

// duration refuses what no one can mean: below a millisecond a bare number was
// taken for nanoseconds.
func (c *checker) duration(path string, d time.Duration) {
	switch {
	case d < 0:
		c.add(path, "%s is negative", d)
	case d > 0 && d < time.Millisecond:
		c.add(path, `%s is too short; a bare number counts nanoseconds, so write a unit, as in "5s"`, d)
	}
}

func (c *checker) notNegative(path string, n int) {
	if n < 0 {
		c.add(path, "%d is negative", n)
	}
}

func (c *checker) oneOf(path, v string, allowed ...string) {
	if v != "" && !slices.Contains(allowed, v) {
		c.add(path, "%q: use %s", v, strings.Join(allowed, ", "))
	}
}

// protocols are those a service may declare.
var protocols = []string{"tcp", "http", "http2", "grpc"}

func (c *checker) protocol(path, p string) {
	if p != "" && !slices.Contains(protocols, strings.ToLower(p)) {
		c.add(path, "%q: use tcp, http, http2 or grpc", p)
	}
}

func (c *checker) regex(path, expr string) {
	if expr == "" {
		return
	}
	if err := pattern.Check(expr); err != nil {
		c.add(path, "%s", err)
	}
}

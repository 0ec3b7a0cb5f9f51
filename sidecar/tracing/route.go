package tracing

import (
	"strings"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// Route is what a route says of its requests' spans. Either may be nil.
type Route struct {
	Config    *RouteConfig
	Decorator *Decorator
}

// RouteConfig is envoy.config.route.v3.Tracing: what a route has instead of its
// connection manager's. It is to be compiled, and not changed afterwards.
type RouteConfig struct {
	Sampling
	// Tags are added to the connection manager's; of two with one name this one counts.
	Tags []Tag
	// Operation and UpstreamOperation are as in Config; empty for the connection
	// manager's.
	Operation, UpstreamOperation string

	names  names
	custom []tag
}

// Decorator is envoy.config.route.v3.Decorator: a name for the spans of a route's
// requests. With Propagate the other party is told of it, in x-envoy-decorator-operation.
type Decorator struct {
	Operation string
	Propagate bool
}

// names are the formats of spans' names, nil for none.
type names struct{ operation, upstream *telemetry.Format }

func compileNames(operation, upstream string) (n names, err error) {
	if n.operation, err = compileName("operation", operation); err != nil {
		return n, err
	}
	n.upstream, err = compileName("upstream_operation", upstream)
	return n, err
}

// Compile checks the configuration and prepares it.
func (c *RouteConfig) Compile() (err error) {
	if c.custom, err = compileSpanTags(c.Tags); err != nil {
		return err
	}
	c.names, err = compileNames(c.Operation, c.UpstreamOperation)
	return err
}

// tag is the route's tag of a name; a nil RouteConfig has none.
func (c *RouteConfig) tag(name string) *tag {
	if c != nil {
		for i := range c.custom {
			if c.custom[i].name == name {
				return &c.custom[i]
			}
		}
	}
	return nil
}

// namesOf are the names of a span's route, or else the connection manager's.
func (t *Tracer) namesOf(r *RouteConfig) names {
	n := t.names
	if r != nil && r.names.operation != nil {
		n.operation = r.names.operation
	}
	if r != nil && r.names.upstream != nil {
		n.upstream = r.names.upstream
	}
	return n
}

const decoratorHeader = "x-envoy-decorator-operation"

// decorate names the span as the route says or, inbound, as the client says, which was
// told by its own proxy. Outbound, the other side is told. A configured operation
// leaves no room for any of it.
func (t *Tracer) decorate(s *Span, d *Decorator, f *message.Fields) {
	if t.namesOf(s.route).operation != nil {
		return
	}
	s.decorated = true
	if d != nil && d.Operation != "" {
		s.name, s.tell = d.Operation, d.Propagate
	}
	if s.egress {
		if s.tell {
			f.Set(decoratorHeader, s.name)
		}
		return
	}
	if !f.Has(message.XEnvoyOther) {
		return
	}
	if v, ok := f.Get(decoratorHeader); ok {
		if v != "" {
			s.name, s.tell = v, false
		}
		f.Del(decoratorHeader)
	}
}

// Answer treats the header of a response by which the other side names the span, or is
// told its name.
func (s *Span) Answer(f *message.Fields) {
	switch {
	case !s.decorated:
	case !s.egress:
		if s.tell {
			f.Set(decoratorHeader, s.name)
		}
	case f.Has(message.XEnvoyOther):
		if v, ok := f.Get(decoratorHeader); ok {
			if v != "" {
				s.name = strings.Clone(v) // the response may be replaced before the span ends
			}
			f.Del(decoratorHeader)
		}
	}
}

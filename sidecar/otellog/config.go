// Package otellog is OpenTelemetry's access log: a record of each request or connection
// that is encoded where it ends, and sent to a collector.
package otellog

import (
	"fmt"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/otlp"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
	"github.com/hauberk-mesh/hauberk/sidecar/tracing"
)

// Config is envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig.
type Config struct {
	Collector *otlp.Collector
	// Name is the log's, as the label log_name; NoLabels leaves out this one and those of the
	// node.
	Name     string
	NoLabels bool
	// Resource are further attributes of the resource, or others for labels of their names.
	// They are what they are.
	Resource []KeyValue
	// Body and Attributes are of each record; their texts have operators. A nil Body is none.
	Body       any
	Attributes []KeyValue
	// Tags are added to the attributes.
	Tags []tracing.Tag
	// StatPrefix is whose records are counted.
	StatPrefix string
	// Interval is how long a record waits for others, Size how many bytes of records do not.
	Interval time.Duration
	Size     int
}

// Defaults of Envoy.
const (
	DefaultInterval = time.Second
	DefaultSize     = 16 << 10
)

// KeyValue is an attribute. A value is a string, bool, int64, float64, []byte, []any of such
// values, []KeyValue, or nil for none. Those of records are made of strings alone.
type KeyValue struct {
	Key   string
	Value any
}

// Check says why no log can be made of it.
func (c *Config) Check() error {
	_, err := c.compile()
	return err
}

// compiled is what is written of each record.
type compiled struct {
	body       *node // nil for none
	attributes []member
	tags       tracing.Tags
}

func (c *Config) compile() (out compiled, err error) {
	if c.Body != nil {
		if out.body, err = compileNode(c.Body); err != nil {
			return out, fmt.Errorf("body: %w", err)
		}
	}
	if out.attributes, err = compileMembers(c.Attributes); err != nil {
		return out, fmt.Errorf("attributes: %w", err)
	}
	if out.tags, err = tracing.CompileTags(c.Tags); err != nil {
		return out, fmt.Errorf("custom_tags: %w", err)
	}
	return out, nil
}

// node is a value as it was configured. Exactly one of these is set.
type node struct {
	text    *telemetry.Format
	members []member
	list    []*node
}

type member struct {
	key   string
	value *node
}

func compileNode(v any) (n *node, err error) {
	n = &node{}
	switch v := v.(type) {
	case string:
		n.text, err = telemetry.ParseFormat(v)
		return n, err
	case []KeyValue:
		n.members, err = compileMembers(v)
		return n, err
	case []any:
		n.list = []*node{}
		for i := range v {
			e, err := compileNode(v[i])
			if err != nil {
				return nil, fmt.Errorf("[%d]: %w", i, err)
			}
			n.list = append(n.list, e)
		}
		return n, nil
	}
	return nil, fmt.Errorf("there are only texts, lists and pairs of keys and values in a record, and this is a %T", v)
}

func compileMembers(kvs []KeyValue) ([]member, error) {
	out := make([]member, len(kvs))
	for i, kv := range kvs {
		n, err := compileNode(kv.Value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", kv.Key, err)
		}
		out[i] = member{kv.Key, n}
	}
	return out, nil
}

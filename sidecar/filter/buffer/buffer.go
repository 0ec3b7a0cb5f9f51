// Package buffer has the whole of a request's body arrive before the request goes on
// (envoy.filters.http.buffer).
package buffer

import (
	"fmt"

	"github.com/hauberk-mesh/hauberk/sidecar/filter"
)

// Config is envoy.extensions.filters.http.buffer.v3.Buffer.
type Config struct {
	MaxBytes int  // a longer body is answered 413
	Disabled bool // for a route: its bodies are not buffered
}

// Filter is the filter of one chain.
type Filter struct{ config *Config }

// New makes a filter.
func New(c *Config) *Filter { return &Filter{c} }

// Override implements filter.Overrider.
func (f *Filter) Override(config any) (any, error) {
	c, ok := config.(*Config)
	if !ok {
		return nil, fmt.Errorf("buffer: the route's configuration is a %T", config)
	}
	return c, nil
}

var tooLarge = &filter.Reply{Status: 413, Body: "Payload Too Large", GRPC: filter.NoGRPC, Details: "request_payload_too_large"}

// Request implements filter.Filter.
func (f *Filter) Request(c *filter.Context) filter.Verdict {
	cfg := f.config
	if o, ok := c.Override().(*Config); ok {
		cfg = o
	}
	if cfg.Disabled || c.Request.Body == nil {
		return filter.Continue
	}
	if c.Request.ContentLength > int64(cfg.MaxBytes) {
		return filter.Answer(tooLarge)
	}
	whole, v := c.ReadBody(cfg.MaxBytes)
	if !whole && v.Continues() {
		return filter.Answer(tooLarge)
	}
	return v
}

// Response implements filter.Filter.
func (f *Filter) Response(*filter.Context) {}

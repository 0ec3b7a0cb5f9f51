// Package grpcbridge answers gRPC calls of clients that speak HTTP/1
// (envoy.filters.http.grpc_http1_bridge). Such a client sees no trailers, where a call's
// status is: its answer is held until it is whole, and has the status in its head.
package grpcbridge

import (
	"strconv"

	"github.com/hauberk-mesh/hauberk/sidecar/filter"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// MaxBytes bounds an answer that is held; a longer one is answered 500.
const MaxBytes = 1 << 20

// Config is envoy.extensions.filters.http.grpc_http1_bridge.v3.Config.
type Config struct {
	// IgnoreQuery has calls go on without the query of their path, of which gRPC knows none.
	IgnoreQuery bool
}

// Filter is the filter of one chain.
type Filter struct{ config *Config }

// New makes a filter.
func New(c *Config) *Filter { return &Filter{c} }

// bridged is the State.Value of a call whose answer the filter changes.
const bridged = 1

// Request implements filter.Filter.
func (f *Filter) Request(c *filter.Context) filter.Verdict {
	if v := c.Request.Version; v != message.HTTP11 && v != message.HTTP10 || !route.IsGRPC(c.Request) {
		return filter.Continue
	}
	c.State.Value = bridged
	if f.config.IgnoreQuery {
		if path := c.Request.PathOnly(); len(path) < len(c.Request.Path) {
			c.Request.SetPath(path)
		}
	}
	return filter.Continue
}

// Response implements filter.Filter. What has no body has its status in its head already, as
// have our own answers. One that breaks off is cut off: its client learns by that.
func (f *Filter) Response(c *filter.Context) {
	if c.State.Value != bridged || c.Response.Body == nil {
		return
	}
	length, trailers, whole := c.HoldAnswer(MaxBytes)
	if !whole || trailers == nil {
		return
	}
	r := c.Response
	r.ContentLength = int64(length) // tells a client that knows no gRPC whether it has all of it
	if status, ok := trailers.ByID(message.GRPCStatus); ok {
		if n, err := strconv.ParseUint(status, 10, 64); err != nil || n != 0 {
			r.Status, r.Reason = 503, ""
		}
		r.Fields.SetID(message.GRPCStatus, r.Fields.Store(status))
	}
	if text, ok := trailers.ByID(message.GRPCMessage); ok {
		r.Fields.SetID(message.GRPCMessage, r.Fields.Store(text))
	}
}

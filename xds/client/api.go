// Package client is the xDS client of the sidecar: it keeps one discovery stream,
// the aggregated one or that of a type, to one of several control planes, hands
// what arrives to a Handler, and acknowledges exactly what the Handler accepted. Losing the stream
// loses nothing: the last accepted configuration stays, in memory and in a cache
// on disk, and a new stream resumes from its versions.
package client

import (
	"context"
	"log/slog"
	"time"

	"google.golang.org/grpc"

	"github.com/hauberk-mesh/hauberk/xds/client/cache"
	"github.com/hauberk-mesh/hauberk/xds/names"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// UserAgent is the user agent name the client sends.
const UserAgent = names.UserAgent

// Handler takes resources. Apply is never called concurrently; it may call
// Subscribe and Unsubscribe. What it returns decides what the client
// acknowledges: a resource named in the returned map is rejected and the last
// accepted version stays; everything else of the update is accepted. Reasons
// read "path: reason"; the client puts the resource's name in front.
type Handler interface {
	Apply(Update) (errs map[string]error)
}

// HandlerFunc is a Handler.
type HandlerFunc func(Update) map[string]error

// Apply calls f.
func (f HandlerFunc) Apply(u Update) map[string]error { return f(u) }

// Update is one response, or one type of the cache.
type Update struct {
	Type string
	// Upserts are new or changed. A server may send again what the client has
	// (endpoints follow their cluster); Version tells.
	Upserts []*resource.Resource
	// Removed are names that are gone.
	Removed []string
	// Refused are subscribed names whose resource was rejected before anybody read it: it is
	// misnamed, there twice, there and removed, or in a file that cannot be read. The last
	// accepted version stays.
	Refused []string
	// Full is set when Upserts is all there is of the type: what is absent is
	// gone, and listed in Removed if it had been accepted.
	Full bool
	// Cached is set for what comes from the on-disk cache.
	Cached bool
}

// Server is one control plane.
type Server struct {
	// Name is for logs and Status; usually its address.
	Name string
	// Dial returns a connection over which the stream is opened. If the
	// connection has a method Close() error the client calls it when the
	// stream has ended; see Shared.
	Dial func(ctx context.Context) (grpc.ClientConnInterface, error)
}

// Node is who the client says it is.
type Node struct {
	ID      string
	Cluster string
	Version string
	// Features are announced as client_features; capabilities read
	// "hauberk.cap.NAME".
	Features []string
	Metadata map[string]any
	// Region, Zone and SubZone are the locality; all may be empty.
	Region, Zone, SubZone string
}

// Config configures a Client. Servers, Node.ID and Handler are required.
type Config struct {
	// Servers are tried in random order until one answers.
	Servers []Server
	Node    Node
	Handler Handler
	// SotW uses the state-of-the-world protocol instead of the incremental one.
	SotW bool
	// Type has the stream be that of the service of this one type, empty for the
	// aggregated one.
	Type string
	// Cache keeps what was accepted across restarts; nil for none.
	Cache *cache.Cache
	Log   *slog.Logger
	// BackoffBase and BackoffMax bound the full-jitter back-off between
	// connection attempts. Defaults 200 ms and 10 s.
	BackoffBase, BackoffMax time.Duration
}

// Status is the client as the operator sees it.
type Status struct {
	// Connected is set while a stream is open and has been answered, or need not be: it has for
	// long asked for nothing but names, of which nothing is said that do not exist, or for what
	// came after versions that no server has said anything to.
	Connected bool
	Server    string
	// Identifier is what the control plane calls itself.
	Identifier string
	// Since is when Connected last changed.
	Since time.Time
	// LastError is why the newest stream or attempt ended; kept while
	// connected.
	LastError   string
	LastErrorAt time.Time
	// LastUpdate is when the newest response was handled.
	LastUpdate time.Time
	// Synced is set once the first full configuration has been handled.
	Synced bool
	// FromCache is set while nothing but the cache has been applied; CachedAt
	// is when that cache was written.
	FromCache bool
	CachedAt  time.Time
	// AsOf is when the configuration held was last known to be what a control
	// plane has: now while connected, later the end of the stream, after a
	// restart when the cache was written. Zero before there is a whole one.
	AsOf  time.Time
	Types []TypeStatus
}

// TypeStatus is one resource type.
type TypeStatus struct {
	Type     string
	Wildcard bool
	// Subscribed counts explicitly subscribed names.
	Subscribed int
	// Accepted maps names to versions; Rejected maps names to reasons.
	Accepted map[string]string
	Rejected map[string]string
}

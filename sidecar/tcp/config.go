// Package tcp relays byte streams to a cluster.
package tcp

import (
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/proxytlv"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// Config is envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.
type Config struct {
	StatPrefix string
	Cluster    string
	Weighted   []WeightedCluster // used when Cluster is empty
	// ServerNameCluster takes the server name that the client asked for as the
	// name of the cluster, where there is one (the sni_cluster filter). Only with
	// it may there be neither Cluster nor Weighted: who names no server is closed.
	ServerNameCluster bool
	// IdleTimeout closes a connection on which no byte moved in either
	// direction; 1 h when nil, none when 0.
	IdleTimeout *time.Duration
	// MaxDuration closes a connection that lasts longer, 0 for no limit; up to
	// MaxDurationJitter percent are added to it, by chance.
	MaxDuration       time.Duration
	MaxDurationJitter float64
	// MaxConnectAttempts is 1 when 0. Between attempts the proxy waits as Backoff
	// says, not at all when nil.
	MaxConnectAttempts int
	Backoff            *Backoff
	// CloseDraining ends a connection that is to finish as soon as bytes move, behind them; one
	// that is quiet stays.
	CloseDraining bool
	// AwaitData holds the upstream back until the client has sent something, of
	// which MaxEarlyData bytes are read at most.
	AwaitData    bool
	MaxEarlyData int
	// BufferLimit is how many bytes of a direction are held at most, as far as the proxy itself
	// holds them; nil or 0 for no other limit than its own.
	BufferLimit *uint32
	// HashSourceIP places a connection by its client's address, for clusters that
	// choose hosts by hash.
	HashSourceIP bool
	// Extensions of the PROXY protocol are added to the client's, as Merge says, for clusters that
	// announce it and pass them on.
	Extensions proxytlv.List
	Merge      Merge
	// Metadata chooses a subset of the hosts, by the fields of "envoy.lb".
	Metadata  map[string]any
	AccessLog []telemetry.AccessLogConfig
	// LogOnConnect also logs when the upstream is connected, LogOnStart when the
	// connection begins, and LogInterval, where it is not 0, each time so much of
	// it has passed.
	LogOnStart, LogOnConnect bool
	LogInterval              time.Duration
}

// Merge is how extensions are added to those of a client's header.
type Merge uint8

// The ways.
const (
	IfAbsent  Merge = iota // only where the client had no header
	Overwrite              // in place of the client's of the same type, in front of its others
	Append                 // behind all of the client's
)

// WeightedCluster is a leg of a split.
type WeightedCluster struct {
	Cluster string
	Weight  uint32
	// Metadata is added to the proxy's, and wins.
	Metadata map[string]any
}

// Backoff is how long to wait between connect attempts: a random part of Base,
// doubled each time up to Max.
type Backoff struct{ Base, Max time.Duration }

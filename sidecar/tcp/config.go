// Package tcp relays byte streams to a cluster.
package tcp

import (
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// Config is envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.
type Config struct {
	StatPrefix string
	Cluster    string
	Weighted   []WeightedCluster // used when Cluster is empty
	// IdleTimeout closes a connection on which no byte moved in either
	// direction; 1 h when nil, none when 0.
	IdleTimeout        *time.Duration
	MaxConnectAttempts int // 1 when 0
	AccessLog          []telemetry.AccessLogConfig
}

// WeightedCluster is a leg of a split.
type WeightedCluster struct {
	Cluster string
	Weight  uint32
}

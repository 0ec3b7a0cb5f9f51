// Package connect holds the sidecar beside Envoy under Consul's own control plane (Connect):
// by the bootstrap that `consul connect envoy` writes, without a part of Hauberk's but the
// sidecar.
package connect

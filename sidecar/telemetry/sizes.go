package telemetry

import (
	"sync/atomic"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// Sizes are what an exchange, or a plain connection, put on the wire and got from it; nil is what nobody
// counted.
type Sizes struct{ Downstream, Upstream *message.Meter }

// size is an operator for one figure; 0 where nobody counted.
func size(name, help string, side func(*Sizes) *message.Meter, get func(*message.Meter) *atomic.Int64) operatorDef {
	d := number(name, help, func(r *Record) int64 {
		m := side(&r.Sizes)
		if m == nil {
			return 0
		}
		return get(m).Load()
	})
	d.wants = WantSizes
	return d
}

func towardsClient(s *Sizes) *message.Meter { return s.Downstream }
func towardsHost(s *Sizes) *message.Meter   { return s.Upstream }

func wireSent(m *message.Meter) *atomic.Int64       { return &m.WireSent }
func wireReceived(m *message.Meter) *atomic.Int64   { return &m.WireReceived }
func headerSent(m *message.Meter) *atomic.Int64     { return &m.HeaderSent }
func headerReceived(m *message.Meter) *atomic.Int64 { return &m.HeaderReceived }
func plainSent(m *message.Meter) *atomic.Int64      { return &m.PlainSent }
func plainReceived(m *message.Meter) *atomic.Int64  { return &m.PlainReceived }

var sizeOperators = []operatorDef{
	size("DOWNSTREAM_WIRE_BYTES_SENT", "Bytes sent to the client for the request, heads and framing too; what TLS adds is not counted.", towardsClient, wireSent),
	size("DOWNSTREAM_WIRE_BYTES_RECEIVED", "Bytes received from the client.", towardsClient, wireReceived),
	size("DOWNSTREAM_HEADER_BYTES_SENT", "Those of header fields among them; of HTTP/2 whole frames.", towardsClient, headerSent),
	size("DOWNSTREAM_HEADER_BYTES_RECEIVED", "The same, received.", towardsClient, headerReceived),
	size("DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_SENT", "The same before HPACK: names and values.", towardsClient, plainSent),
	size("DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED", "The same, received.", towardsClient, plainReceived),
	size("UPSTREAM_WIRE_BYTES_SENT", "Bytes sent to the upstream by all attempts.", towardsHost, wireSent),
	size("UPSTREAM_WIRE_BYTES_RECEIVED", "Bytes received from it.", towardsHost, wireReceived),
	size("UPSTREAM_HEADER_BYTES_SENT", "Those of header fields among them.", towardsHost, headerSent),
	size("UPSTREAM_HEADER_BYTES_RECEIVED", "The same, received.", towardsHost, headerReceived),
	size("UPSTREAM_DECOMPRESSED_HEADER_BYTES_SENT", "The same before HPACK.", towardsHost, plainSent),
	size("UPSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED", "The same, received.", towardsHost, plainReceived),
}

package cluster

import (
	"net"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// headers are the changes to a check's headers, compiled.
func (c *HealthCheck) headers() (route.Changes, error) {
	switch {
	case c.HTTP != nil:
		return route.NewChanges(c.HTTP.Remove, c.HTTP.Headers, message.RequestSingles)
	case c.GRPC != nil:
		return route.NewChanges(nil, c.GRPC.Metadata, message.RequestSingles)
	}
	return route.Changes{}, nil
}

// addHeaders changes a check's headers as it is configured.
func (k *checker) addHeaders(f *message.Fields, v message.Version) {
	var scratch []byte
	k.headers.Apply(f, &checkFacts{h: k.h, version: v}, &scratch)
	f.JoinSingles(message.RequestSingles)
}

// checkFacts is what is known of a check: as in Envoy the host, and when it began.
type checkFacts struct {
	h       *Host
	version message.Version
	record  *telemetry.Record
}

// nobody is who asks.
var nobody = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}

// Record implements route.Facts.
func (c *checkFacts) Record() *telemetry.Record {
	if c.record == nil {
		c.record = &telemetry.Record{
			Start: time.Now(), Protocol: c.version.String(), UpstreamHost: c.h.Addr(), UpstreamHostname: c.h.Hostname(), Configured: c,
			DownstreamRemote: nobody, DownstreamLocal: nobody, DownstreamDirect: nobody, UpstreamDuration: -1,
			UpstreamClose: telemetry.CloseNormal,
		}
	}
	return c.record
}

// ConfiguredMetadata implements telemetry.Configured.
func (c *checkFacts) ConfiguredMetadata(p telemetry.Part) map[string]map[string]any {
	if p == telemetry.PartHost {
		return c.h.Endpoint().Metadata
	}
	return nil
}

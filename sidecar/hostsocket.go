package sidecar

import (
	"github.com/hauberk-mesh/hauberk/identity/workloadapi"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
	"github.com/hauberk-mesh/hauberk/xds/relay"
)

// buildHostSocket binds the socket on which other processes get their identities.
func (s *Sidecar) buildHostSocket() (err error) {
	if s.cfg.HostSocket == nil {
		return nil
	}
	cfg := *s.cfg.HostSocket
	cfg.Register = relay.OnHostSocket(s.agent.Conn(), s.cfg.Log).Register
	cfg.Source, cfg.Want, cfg.Log = s.agent, s.agent.Want, s.cfg.Log
	cfg.Observer = hostObserver{s.metrics}
	s.host, err = workloadapi.Build(cfg)
	return err
}

// hostObserver counts what happens on the host socket.
type hostObserver struct{ m *telemetry.Metrics }

// Connections implements workloadapi.Observer.
func (o hostObserver) Connections(open int) { o.m.HostConnections.With().Set(float64(open)) }

// Refused implements workloadapi.Observer.
func (o hostObserver) Refused() { o.m.HostRefused.With().Inc(0) }

// Ended implements workloadapi.Observer.
func (o hostObserver) Ended(method, code string) { o.m.HostCalls.With(method, code).Inc(0) }

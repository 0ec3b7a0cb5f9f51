package sidecar

import (
	"github.com/hauberk-mesh/hauberk/sidecar/http2"
	"github.com/hauberk-mesh/hauberk/sidecar/overload"
)

// buildOverload makes what keeps the process within its means.
func (s *Sidecar) buildOverload(cfg *overload.Config) {
	m := overload.New(cfg, overload.Options{Accept: func(yes bool) { s.listeners.Accept(yes) }, Hoards: hoards, Log: s.cfg.Log})
	s.overload = m
	s.metrics.OverloadPressure.Collect(m.Pressures)
	s.metrics.OverloadActions.Collect(m.Shares)
	s.metrics.OverloadDone.Collect(m.Done)
}

// hoards are the streams of HTTP/2 that hold as much, with clients and with hosts.
func hoards(least int) (all []overload.Hoard) {
	for _, h := range http2.Hoards(least) {
		all = append(all, overload.Hoard{Bytes: h.Bytes, Reset: h.Reset})
	}
	return all
}

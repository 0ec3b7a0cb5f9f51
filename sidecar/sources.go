package sidecar

import (
	"time"

	"github.com/hauberk-mesh/hauberk/xds/client"
)

// discovers tells whether configuration comes from a control plane.
func (s *Sidecar) discovers() bool {
	b := s.cfg.Bootstrap
	return len(s.cfg.Servers) > 0 || s.agent != nil || b != nil && b.Streams()
}

func (s *Sidecar) baseStreams() []*base {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bases
}

// unconfigured says what is waited for of control planes, empty when nothing is.
func (s *Sidecar) unconfigured() string {
	const waiting = "waiting for the first configuration"
	all := s.baseStreams()
	if len(all) == 0 && s.discovers() {
		return waiting
	}
	for _, b := range all {
		if st := b.Status(); b.waits(st) {
			return waiting + because(st.LastError)
		}
	}
	return ""
}

// status is that of the stream to a control plane, and of several what is true of all.
func (s *Sidecar) status() client.Status {
	all := s.baseStreams()
	var out client.Status
	for i, b := range all {
		if i == 0 {
			out = b.Status()
		} else {
			out = both(out, b.Status())
		}
	}
	for i, st := range s.streams.Status() {
		if i == 0 && len(all) == 0 {
			out = st.Status
			out.Synced, out.AsOf = true, since(st.Status)
			continue
		}
		synced := out.Synced // what a listener or a cluster names may not exist
		out = both(out, st.Status)
		out.Synced = synced
	}
	return out
}

// both is what is true of two streams.
func both(a, b client.Status) client.Status {
	out := client.Status{
		Connected: a.Connected && b.Connected, Synced: a.Synced && b.Synced,
		FromCache: (a.FromCache || a.Synced) && (b.FromCache || b.Synced) && (a.FromCache || b.FromCache),
		Since:     later(a.Since, b.Since), LastUpdate: later(a.LastUpdate, b.LastUpdate),
		CachedAt: older(a.CachedAt, b.CachedAt), AsOf: older(since(a), since(b)),
	}
	out.LastError, out.LastErrorAt = a.LastError, a.LastErrorAt
	if b.LastErrorAt.After(a.LastErrorAt) {
		out.LastError, out.LastErrorAt = b.LastError, b.LastErrorAt
	}
	return out
}

// since is as of when a stream has what it has: one that has never had anything lacks all that
// came after it began.
func since(st client.Status) time.Time {
	if st.AsOf.IsZero() && !st.Connected {
		return st.Since
	}
	return st.AsOf
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// older is the earlier of two times, or the one that is there.
func older(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// streamsStatus lists the streams of one type.
func (s *Sidecar) streamsStatus() []streamStatus {
	out := []streamStatus{}
	for _, b := range s.baseStreams() {
		if b.kind != aggregatedKind {
			out = append(out, streamStatus{b.kind, b.service, b.Status()})
		}
	}
	return append(out, s.streams.Status()...)
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

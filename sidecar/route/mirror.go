package route

import (
	"fmt"
	"strings"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// mirror is a compiled Mirror.
type mirror struct {
	config  *Mirror
	headers Mutations
}

func compileMirrors(ms []Mirror) ([]mirror, error) {
	var out []mirror
	for i := range ms {
		h, err := NewMutations(ms[i].Mutations, message.RequestSingles)
		if err != nil {
			return nil, fmt.Errorf("request_mirror_policies[%d]: %w", i, err)
		}
		out = append(out, mirror{&ms[i], h})
	}
	return out, nil
}

// Mirrors are policies of a cluster, which stand in for those of every route that leads to it.
type Mirrors struct {
	Policies []Mirror
	list     []mirror
}

// NewMirrors prepares a cluster's policies; nil is none.
func NewMirrors(ms []Mirror) (*Mirrors, error) {
	list, err := compileMirrors(ms)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return &Mirrors{ms, list}, nil
}

// Mirrored is one copy that is to be made of a request.
type Mirrored struct{ m *mirror }

// Mirrors appends the copies to be made of this request: those of its cluster, or else the most
// specific list that is not empty counts. random is a draw of its own.
func (s *Selected) Mirrors(dst []Mirrored, own *Mirrors, random func() uint32) []Mirrored {
	list := s.mirrors()
	if own != nil {
		list = own.list
	}
	for i := range list {
		if share := list[i].config.Share; share >= All || share.Holds(random()) {
			dst = append(dst, Mirrored{&list[i]})
		}
	}
	return dst
}

// Mirrored tells whether there may be copies of this request, of whose cluster own are.
func (s *Selected) Mirrored(own *Mirrors) bool { return own != nil || len(s.mirrors()) > 0 }

func (s *Selected) mirrors() []mirror {
	switch {
	case s.entry == nil || s.Route.Forward == nil:
		return nil
	case s.entry.forward != nil && len(s.entry.forward.mirrors) > 0:
		return s.entry.forward.mirrors
	case len(s.host.mirrors) > 0:
		return s.host.mirrors
	}
	return s.table.mirrors
}

// Cluster names the cluster of a copy, "" when the header that is to is missing.
func (m Mirrored) Cluster(req *message.Request) string {
	if m.m.config.ClusterHeader == "" {
		return m.m.config.Cluster
	}
	name, _ := req.HeaderValue(m.m.config.ClusterHeader, 0)
	return name
}

// Unsampled tells whether the copy's trace is not to be sampled.
func (m Mirrored) Unsampled() bool { return m.m.config.Unsampled }

// Change turns a copy of the request into what the mirror gets.
func (m Mirrored) Change(req *message.Request, facts Facts, scratch *[]byte) {
	m.m.headers.Apply(&req.Fields, facts, scratch)
	switch {
	case m.m.config.HostRewrite != "":
		req.SetAuthority(m.m.config.HostRewrite)
	case !m.m.config.KeepHost && req.Authority != "":
		req.SetAuthority(shadow(req.Authority))
	}
}

// shadow marks an authority as a mirror's, before its port. An address of IPv6 stays as it
// is: behind its bracket nothing but a port may stand (RFC 3986 3.2.2).
func shadow(host string) string {
	if strings.HasPrefix(host, "[") {
		return host
	}
	if at := portStart(host); at >= 0 {
		return host[:at] + "-shadow" + host[at:]
	}
	return host + "-shadow"
}

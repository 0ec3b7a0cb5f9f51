package listener

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// target is what a filter chain is chosen by.
type target struct {
	destination, source netip.AddrPort // zero on Unix sockets
	direct              netip.Addr
	sought
}

// sought is the part of a target that no address tells.
type sought struct {
	serverName string
	alpn       protocolNames
	plaintext  bool // not TLS, or nobody looked: to matches that is raw_buffer, as in Envoy
	local      bool // same IP or loopback
}

// between notes where the connection comes from and where it is going.
func (t *target) between(source, destination netip.AddrPort) {
	t.source, t.destination = source, destination
	t.local = source.Addr() == destination.Addr() || source.Addr().IsLoopback()
}

// transport is the transport protocol's name.
func (s *sought) transport() string {
	if s.plaintext {
		return "raw_buffer"
	}
	return "tls"
}

// The levels of the tree, in Envoy's order. At each level the most specific branch
// that holds is taken, and there is no way back from it: a connection that fits
// nothing below gets the default chain, never a less specific chain that a later
// criterion would allow.
const (
	byDestinationPort = iota
	byDestinationIP
	byServerName
	byTransport
	byALPN
	byDirectSource
	bySourceType
	bySourceIP
	bySourcePort
	levels
)

// node is one point of the tree. Only the members of its level are used.
type node struct {
	ports   map[uint16]*node
	names   map[string]*node // exact names, transport protocols, ALPN
	suffix  map[string]*node // ".example.com" for "*.example.com"
	nets    map[netip.Prefix]*node
	bits    []int // prefix lengths in nets, longest first
	types   [3]*node
	any     *node
	chain   *chain // on the last level
	chained string // name of chain's configuration, for messages
}

// matchTree is the compiled filter-chain match of a listener. Immutable.
type matchTree struct {
	root     *node
	fallback *chain
}

// insert adds a chain below n, once for each value of each criterion.
func (n *node) insert(level int, m *Match, c *chain) error {
	if level == levels {
		if n.chain != nil {
			return fmt.Errorf("filter chains %s and %s match the same connections; give one of them a criterion that the other lacks", n.chained, c.label())
		}
		n.chain, n.chained = c, c.label()
		return nil
	}
	branches, err := n.branches(level, m)
	if err != nil {
		return fmt.Errorf("filter chain %s: %w", c.label(), err)
	}
	for _, b := range branches {
		if err := b.insert(level+1, m, c); err != nil {
			return err
		}
	}
	return nil
}

// branches are the children that a match leads to on a level.
func (n *node) branches(level int, m *Match) ([]*node, error) {
	var out []*node
	switch level {
	case byDestinationPort:
		if m.DestinationPort != 0 {
			return []*node{child(&n.ports, m.DestinationPort)}, nil
		}
	case byDestinationIP:
		return n.netBranches("prefix_ranges", m.Destination)
	case byServerName:
		for _, name := range m.ServerNames {
			b, err := n.nameBranch(name)
			if err != nil {
				return nil, err
			}
			out = append(out, b)
		}
	case byTransport:
		switch m.TransportProtocol {
		case "":
		case "tls", "raw_buffer":
			return []*node{child(&n.names, m.TransportProtocol)}, nil
		default:
			return nil, fmt.Errorf("transport_protocol %q is neither tls nor raw_buffer", m.TransportProtocol)
		}
	case byALPN:
		for _, p := range m.ApplicationProtocols {
			out = append(out, child(&n.names, p))
		}
	case byDirectSource:
		return n.netBranches("direct_source_prefix_ranges", m.DirectSource)
	case bySourceType:
		if m.SourceType > External {
			return nil, fmt.Errorf("source_type %d is unknown", m.SourceType)
		}
		if n.types[m.SourceType] == nil {
			n.types[m.SourceType] = &node{}
		}
		return []*node{n.types[m.SourceType]}, nil
	case bySourceIP:
		return n.netBranches("source_prefix_ranges", m.Source)
	case bySourcePort:
		for _, p := range m.SourcePorts {
			out = append(out, child(&n.ports, p))
		}
	}
	if len(out) == 0 {
		if n.any == nil {
			n.any = &node{}
		}
		out = append(out, n.any)
	}
	return out, nil
}

func child[K comparable](m *map[K]*node, key K) *node {
	if *m == nil {
		*m = map[K]*node{}
	}
	if (*m)[key] == nil {
		(*m)[key] = &node{}
	}
	return (*m)[key]
}

func (n *node) nameBranch(name string) (*node, error) {
	switch {
	case name == "" || name != strings.ToLower(name):
		return nil, fmt.Errorf("server name %q must be lower case and not empty", name)
	case strings.HasPrefix(name, "*.") && len(name) > 2 && !strings.Contains(name[1:], "*"):
		return child(&n.suffix, name[1:]), nil
	case strings.Contains(name, "*"):
		return nil, fmt.Errorf("server name %q: a wildcard stands for whole labels at the beginning only, as in *.example.com", name)
	}
	return child(&n.names, name), nil
}

func (n *node) netBranches(field string, prefixes []netip.Prefix) ([]*node, error) {
	if len(prefixes) == 0 {
		if n.any == nil {
			n.any = &node{}
		}
		return []*node{n.any}, nil
	}
	out := make([]*node, 0, len(prefixes))
	for _, p := range prefixes {
		if !p.IsValid() {
			return nil, fmt.Errorf("%s has an invalid prefix", field)
		}
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		p = p.Masked()
		out = append(out, child(&n.nets, p))
		if !slices.Contains(n.bits, p.Bits()) {
			n.bits = append(n.bits, p.Bits())
			slices.SortFunc(n.bits, func(a, b int) int { return b - a })
		}
	}
	return out, nil
}

// find returns the chain for a connection, nil when there is none.
func (t *matchTree) find(to *target) *chain {
	n := t.root
	for level := 0; n != nil && level < levels; level++ {
		n = n.next(level, to)
	}
	if n == nil || n.chain == nil {
		return t.fallback
	}
	return n.chain
}

func (n *node) next(level int, to *target) *node {
	switch level {
	case byDestinationPort:
		return orAny(n.ports[to.destination.Port()], n)
	case byDestinationIP:
		return n.byNet(to.destination.Addr())
	case byServerName:
		return n.byName(to.serverName)
	case byTransport:
		return orAny(n.names[to.transport()], n)
	case byALPN:
		for p := range to.alpn.each {
			if b := n.names[p]; b != nil {
				return b
			}
		}
		return n.any
	case byDirectSource:
		return n.byNet(to.direct)
	case bySourceType:
		side := External
		if to.local {
			side = SameIPOrLoopback
		}
		if b := n.types[side]; b != nil {
			return b
		}
		return n.types[AnySource]
	case bySourceIP:
		return n.byNet(to.source.Addr())
	case bySourcePort:
		return orAny(n.ports[to.source.Port()], n)
	}
	return nil
}

func orAny(b, n *node) *node {
	if b != nil {
		return b
	}
	return n.any
}

// byNet takes the longest prefix.
func (n *node) byNet(a netip.Addr) *node {
	if !a.IsValid() {
		return n.any
	}
	a = a.Unmap().WithZone("")
	for _, bits := range n.bits {
		if p, err := a.Prefix(bits); err == nil {
			if b := n.nets[p]; b != nil {
				return b
			}
		}
	}
	return n.any
}

// byName takes the exact name, then the longest wildcard.
func (n *node) byName(name string) *node {
	if b := n.names[name]; b != nil && name != "" {
		return b
	}
	for rest := name; len(n.suffix) > 0; {
		i := strings.IndexByte(rest, '.')
		if i < 0 {
			break
		}
		if b := n.suffix[rest[i:]]; b != nil {
			return b
		}
		rest = rest[i+1:]
	}
	return n.any
}

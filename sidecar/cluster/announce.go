package cluster

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/proxytlv"
)

// Announcement is the version of the PROXY protocol in which a connection begins with the
// addresses of the client that it is opened for; 0 for none.
type Announcement uint8

// announcement is how connections to the host begin.
func (h *Host) announcement(s *settings) Announcement {
	if h.socket != nil {
		return h.socket.Announce
	}
	return s.Announce
}

// Extensions are what headers of version 2 say of a client beside addresses.
type Extensions struct {
	// Passed are those of the client's own header that are passed on, Added are others. One that is
	// passed has none of their types, and stands behind them, as in Envoy.
	Passed proxytlv.Choice
	Added  proxytlv.Kept
}

// Of are those of a header to a host with its own, about a client whose own header had some.
func (e *Extensions) Of(own, said proxytlv.List) proxytlv.List {
	added := e.behind(own)
	return added + e.Passed.Of(said).Without(added)
}

// behind are those that are added to a host's own.
func (e *Extensions) behind(own proxytlv.List) proxytlv.List {
	return own + e.Added.List().Without(own)
}

// passes tells whether the header about a client says something of its own.
func (e *Extensions) passes(c *proxytlv.Client) bool {
	return c.List() != "" && (e.Passed.All || e.Passed.Types != "")
}

// addedTo are extensions behind those of a host.
type addedTo struct {
	own  proxytlv.Kept
	more *Extensions
	list proxytlv.Kept
}

// extensions are what headers to the host say beside addresses.
func (h *Host) extensions(s *settings) *Extensions {
	if h.socket != nil {
		return h.socket.Extensions
	}
	return s.Extensions
}

// told are the extensions of a header to the host about a client. Each request asks, so they are made
// once for a client, and once for all that say nothing.
func (h *Host) told(s *settings, c *proxytlv.Client) proxytlv.Kept {
	e, own := h.extensions(s), h.Endpoint().Extensions
	if own != (proxytlv.Kept{}) && h.announcement(s) != 2 {
		own = proxytlv.Kept{}
	}
	switch {
	case e == nil:
		return own
	case e.passes(c):
		return c.Made(e, own)
	case own == (proxytlv.Kept{}):
		return e.Added
	}
	made := h.added.Load()
	if made == nil || made.own != own || made.more != e {
		made = &addedTo{own, e, proxytlv.Keep(e.behind(own.List()))}
		h.added.Store(made)
	}
	return made.list
}

// announces tells whether connections to any host begin so.
func (c *Config) announces() bool {
	for i := range c.Sockets {
		if c.Sockets[i].Announce != 0 {
			return true
		}
	}
	return c.Announce != 0
}

// announce writes the header, the first that is said on a connection. Without a client it is
// opened for the process itself.
func (a Announcement) announce(ctx context.Context, conn net.Conn, t *Terms) error {
	var from, to netip.AddrPort
	var extensions proxytlv.List
	if t != nil {
		from, to, extensions = t.from, t.to, t.extensions.List()
	}
	if !from.IsValid() && a == 1 { // as Envoy, where a client is nobody or has no such address
		from, to = addrPortOf(conn.LocalAddr()), addrPortOf(conn.RemoteAddr())
	}
	if end, ok := ctx.Deadline(); ok {
		if err := conn.SetWriteDeadline(end); err != nil {
			return err
		}
	}
	if _, err := conn.Write(a.header(from, to, extensions)); err != nil {
		return err
	}
	return conn.SetWriteDeadline(time.Time{})
}

// header of two addresses, or of none where one is invalid (HAProxy's proxy-protocol.txt, 2.1 and 2.2).
// Extensions are of version 2 alone, and stand behind addresses; those that it has no room for, so that
// a listener takes it, are left out. They are what a client said: of others there are not so many.
func (a Announcement) header(from, to netip.AddrPort, extensions proxytlv.List) []byte {
	known := from.IsValid() && to.IsValid()
	src, dst, v4 := from.Addr().WithZone(""), to.Addr().WithZone(""), true
	if known && !(src.Is4() && dst.Is4()) {
		// One family tells of both.
		src, dst, v4 = netip.AddrFrom16(src.As16()), netip.AddrFrom16(dst.As16()), false
	}
	if a == 1 {
		if !known {
			return []byte("PROXY UNKNOWN\r\n")
		}
		family := "TCP4 "
		if !v4 {
			family = "TCP6 "
		}
		return []byte("PROXY " + family + src.String() + " " + dst.String() + " " +
			strconv.Itoa(int(from.Port())) + " " + strconv.Itoa(int(to.Port())) + "\r\n")
	}
	const local, proxied, tcp4, tcp6 = 0x20, 0x21, 0x11, 0x21
	out := []byte("\r\n\r\n\x00\r\nQUIT\n")
	if !known {
		return append(out, local, 0, 0, 0)
	}
	addresses := append(src.AsSlice(), dst.AsSlice()...)
	addresses = binary.BigEndian.AppendUint16(addresses, from.Port())
	addresses = binary.BigEndian.AppendUint16(addresses, to.Port())
	family := byte(tcp4)
	if !v4 {
		family = tcp6
	}
	extensions = extensions.Within(proxytlv.MostHeader - len(out) - 4 - len(addresses))
	out = binary.BigEndian.AppendUint16(append(out, proxied, family), uint16(len(addresses)+len(extensions)))
	out = append(out, addresses...)
	before := len(out)
	out = append(out, extensions...)
	proxytlv.Sum(out, before)
	return out
}

func addrPortOf(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

package cluster

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"
)

// resolver is whom names are asked of: host, unless the configuration says something else.
func (d *DNS) resolver(host Resolver) Resolver {
	var along *listening
	if d.RespectTTL {
		along = &listening{}
	}
	if along != nil && host == Resolver(system) {
		host = asking("", false, along)
	}
	if len(d.Servers) > 0 || d.OverTCP || d.WholeNames {
		host = d.nameservers(host, along)
	}
	if along == nil {
		return host
	}
	if _, ok := host.(ttlResolver); ok {
		return host
	}
	along.Resolver = host
	return along
}

func (d *DNS) nameservers(host Resolver, along *listening) *nameservers {
	out := &nameservers{servers: d.Servers, whole: d.WholeNames}
	for _, addr := range d.Servers {
		out.asked = append(out.asked, asking(addr, d.OverTCP, along))
	}
	switch {
	case len(out.asked) > 0:
	case d.OverTCP:
		out.asked = []Resolver{asking("", true, along)}
	default:
		out.asked = []Resolver{host}
	}
	return out
}

// nameservers are asked one after the other until one answers, that there is nothing too.
type nameservers struct {
	asked   []Resolver
	servers []string // those of asked, if they are not the host's
	whole   bool
}

// LookupNetIP implements Resolver. Of the time that is left each server has its share, so
// that one that is silent leaves some to those behind it.
func (n *nameservers) LookupNetIP(ctx context.Context, network, host string) (addrs []netip.Addr, err error) {
	if n.whole && !strings.HasSuffix(host, ".") {
		host += "." // no search domain is tried behind a root
	}
	for i, r := range n.asked {
		within, cancel := ctx, context.CancelFunc(func() {})
		if end, ok := ctx.Deadline(); ok {
			within, cancel = context.WithTimeout(ctx, time.Until(end)/time.Duration(len(n.asked)-i))
		}
		addrs, err = r.LookupNetIP(within, network, host)
		cancel()
		if lookup := (*net.DNSError)(nil); i < len(n.servers) && errors.As(err, &lookup) {
			lookup.Server = n.servers[i] // it says the host's
		}
		if err == nil || notFound(err) {
			break
		}
	}
	return addrs, err
}

// asking makes a resolver of the host's configuration that asks one server in place of
// the host's; those where it is empty. What they answer is read along by along, if it is there.
func asking(server string, overTCP bool, along *listening) Resolver {
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		if server != "" {
			address = server
		}
		if overTCP {
			network = "tcp"
		}
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil || along == nil {
			return c, err
		}
		return along.conn(c), nil
	}
	return systemResolver{&net.Resolver{PreferGo: true, Dial: dial}, &net.Resolver{PreferGo: true, StrictErrors: true, Dial: dial}}
}

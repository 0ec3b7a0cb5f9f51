package cluster

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"
)

// orElse are the terms of d with the nameservers of others, where it has none of its own.
func (d *DNS) orElse(others *DNS) *DNS {
	if d.OwnResolver || others == nil {
		return d
	}
	out := *d
	out.Servers, out.Rotate, out.OverTCP, out.WholeNames = others.Servers, others.Rotate, others.OverTCP, others.WholeNames
	out.Tries, out.QueryTimeout, out.Routable = others.Tries, others.QueryTimeout, others.Routable
	return &out
}

// resolver is whom names are asked of: host, unless the configuration says something else.
func (d *DNS) resolver(host Resolver) Resolver {
	var along *listening
	if d.RespectTTL {
		along = &listening{}
	}
	if along != nil && host == Resolver(system) {
		host = asking("", false, along)
	}
	if len(d.Servers) > 0 || d.OverTCP || d.WholeNames || d.Tries > 0 {
		host = d.nameservers(host, along)
	}
	if d.Routable {
		host = routable{host, d.Family}
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
	out := &nameservers{servers: d.Servers, whole: d.WholeNames, rotate: d.Rotate, tries: max(1, d.Tries), timeout: d.QueryTimeout}
	out.first.Store(rand.Uint32N(1 << 16))
	for _, addr := range out.servers {
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
	// rotate has each lookup begin with the server behind the one that the last began with.
	rotate bool
	first  atomic.Uint32
	// tries is how often each is asked, and timeout what it has the first time.
	tries   int
	timeout time.Duration
}

// LookupNetIP implements Resolver.
func (n *nameservers) LookupNetIP(ctx context.Context, network, host string) (addrs []netip.Addr, err error) {
	if n.whole && !strings.HasSuffix(host, ".") {
		host += "." // no search domain is tried behind a root
	}
	first := 0
	if n.rotate {
		first = int(n.first.Add(1) % uint32(len(n.asked)))
	}
	for i := range n.tries * len(n.asked) {
		at := (first + i) % len(n.asked)
		within, cancel := n.share(ctx, i)
		addrs, err = n.asked[at].LookupNetIP(within, network, host)
		cancel()
		if lookup := (*net.DNSError)(nil); at < len(n.servers) && errors.As(err, &lookup) {
			lookup.Server = n.servers[at] // it says the host's
		}
		if err == nil || notFound(err) || ctx.Err() != nil {
			break
		}
	}
	return addrs, err
}

// share is the time that the i-th question has: as it is configured, or its server's share of what is
// left, so that one that is silent leaves some to those behind it. A server that failed and is asked
// again has all that is left.
func (n *nameservers) share(ctx context.Context, i int) (context.Context, context.CancelFunc) {
	if n.timeout > 0 {
		return context.WithTimeout(ctx, n.timeout<<(i/len(n.asked)))
	}
	if end, ok := ctx.Deadline(); ok {
		return context.WithTimeout(ctx, time.Until(end)/time.Duration(max(1, len(n.asked)-i)))
	}
	return ctx, func() {}
}

// patience is how long a lookup may last.
func (d *DNS) patience() time.Duration {
	const usual = 5 * time.Second
	if d.QueryTimeout <= 0 {
		return usual
	}
	return min(d.QueryTimeout*time.Duration(max(1, len(d.Servers)))*(1<<min(max(1, d.Tries), 16)-1), longestLookup)
}

// longestLookup bounds what tries and their times come to.
const longestLookup = 5 * time.Minute

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

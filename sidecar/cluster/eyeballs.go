package cluster

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/panics"
)

// nextAddress is how long an address is waited for alone before the next is tried beside it,
// as in Envoy (RFC 8305 section 5).
const nextAddress = 300 * time.Millisecond

// interleaved are the addresses of a name as they are tried: one of each family in turn,
// beginning with the first of IPv4, as in Envoy.
func interleaved(addrs []netip.Addr) []netip.Addr {
	v4, v6 := IPv4Only.filter(addrs), IPv6Only.filter(addrs)
	out := make([]netip.Addr, 0, len(addrs))
	for i := range max(len(v4), len(v6)) {
		if i < len(v4) {
			out = append(out, v4[i])
		}
		if i < len(v6) {
			out = append(out, v6[i])
		}
	}
	return out
}

// addresses are all that a host is to be connected to at, in the order in which they are tried; fewer
// than two where there is but the target.
func (h *Host) addresses(t *target, order *Eyeballs) []string {
	if others := h.others.Load(); others != nil && len(*others) > 0 {
		all := append([]string{t.address}, *others...)
		if order == nil {
			return all // in that order already
		}
		return order.sorted(all)
	}
	e := h.Endpoint()
	if e == nil || len(e.Also) == 0 {
		return nil
	}
	all := make([]string, 0, 1+len(e.Also))
	all = append(all, t.address)
	for _, a := range e.Also {
		all = append(all, a.String())
	}
	return order.sorted(all)
}

// sorted is how addresses are tried, as Envoy does it.
func (o *Eyeballs) sorted(all []string) []string {
	v4 := func(address string) bool { return strings.IndexByte(address, '[') < 0 }
	first, run := v4(all[0]), 1
	if o != nil {
		if run = max(1, o.First); o.Family == IPv4Only || o.Family == IPv6Only {
			first = o.Family == IPv4Only
		}
	}
	var near, far []string
	for _, a := range all {
		if v4(a) == first {
			near = append(near, a)
		} else {
			far = append(far, a)
		}
	}
	out := make([]string, 0, len(all))
	for len(near)+len(far) > 0 {
		n := min(run, len(near))
		out, near = append(out, near[:n]...), near[n:]
		if len(far) > 0 {
			out, far = append(out, far[0]), far[1:]
		}
	}
	return out
}

// dialFunc opens a transport connection.
type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// attempts are connections that are being made to addresses of one host, of which the first
// that is there is used.
type attempts struct {
	host    *Host
	dial    dialFunc
	left    []string
	pending int
	ended   chan attempted
}

type attempted struct {
	conn net.Conn
	err  error
}

// dialAny connects to the first of the addresses that answers. The error is the first one's.
func (h *Host) dialAny(ctx context.Context, dial dialFunc, addresses []string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // of no effect on what was made
	a := &attempts{host: h, dial: dial, left: addresses, ended: make(chan attempted, len(addresses))}
	next := time.NewTicker(nextAddress)
	defer next.Stop()
	a.begin(ctx)
	var failure error
	for {
		select {
		case r := <-a.ended:
			a.pending--
			if r.err == nil {
				a.closeRest()
				return r.conn, nil
			}
			if failure == nil {
				failure = r.err
			}
			if len(a.left) == 0 && a.pending == 0 {
				return nil, failure
			}
			a.begin(ctx)
			next.Reset(nextAddress)
		case <-next.C:
			a.begin(ctx)
		case <-ctx.Done():
			a.closeRest()
			return nil, ctx.Err()
		}
	}
}

// begin tries the next address, if there is one.
func (a *attempts) begin(ctx context.Context) {
	if len(a.left) == 0 || ctx.Err() != nil {
		return
	}
	address := a.left[0]
	a.left = a.left[1:]
	a.pending++
	go func() {
		defer panics.Contain(panics.Dial, a.host, func() { a.ended <- attempted{nil, errPanicked} })
		conn, err := a.dial(ctx, "tcp", address)
		a.ended <- attempted{conn, err}
	}()
}

// closeRest ends the connections that come too late.
func (a *attempts) closeRest() {
	if a.pending == 0 {
		return
	}
	go func() {
		defer panics.Contain(panics.Dial, a.host, nil)
		for range a.pending {
			if r := <-a.ended; r.err == nil {
				_ = r.conn.Close()
			}
		}
	}()
}

package sidecar

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/hauberk-mesh/hauberk/identity/agent"
	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/config"
	"github.com/hauberk-mesh/hauberk/sidecar/listener"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// exposureInterval is how often listening sockets are looked at: often enough for
// a person who just restarted an application.
const exposureInterval = 5 * time.Second

// watchExposure reports applications that can be reached around the sidecar: a
// port that also listens beyond loopback needs neither identity nor permission.
func (s *Sidecar) watchExposure(ctx context.Context) {
	if s.agent == nil {
		return
	}
	tick := time.NewTicker(exposureInterval)
	defer tick.Stop()
	told := ""
	for {
		r, exposed := s.exposure()
		if now := strings.Join(exposed, "; "); now != told {
			for _, w := range exposed {
				s.log.Warn(w)
			}
			told = now
		}
		if w := s.configuration().Warning(s.cfg.StaleAfter, time.Now()); w != "" {
			r.Warnings = append(r.Warnings, w)
		}
		s.agent.SetReport(r)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// exposure is what the control plane is told of the host's applications, which
// makes its own warnings of it, and what the log here says.
func (s *Sidecar) exposure() (r agent.Report, exposed []string) {
	sockets, err := listening()
	if err != nil {
		r.Warnings = append(r.Warnings, "listening sockets cannot be read: "+err.Error())
		return r, r.Warnings
	}
	for id, app := range s.state.applications() {
		parsed, err := spiffeid.FromString(id)
		if err != nil {
			continue
		}
		w := agent.WorkloadReport{ID: parsed, Service: telemetry.PeerName(id), Application: app.String()}
		for _, l := range sockets {
			if l.Port() != app.Port() {
				continue
			}
			w.Listening = append(w.Listening, l.String())
			if app.Addr().IsLoopback() && !l.Addr().IsLoopback() {
				exposed = append(exposed, "the application of "+w.Service+" listens on "+l.String()+
					", so it can be reached without mTLS and intentions; have it listen on 127.0.0.1")
			}
		}
		slices.Sort(w.Listening)
		r.Workloads = append(r.Workloads, w)
	}
	slices.Sort(exposed)
	slices.SortFunc(r.Workloads, func(a, b agent.WorkloadReport) int { return strings.Compare(a.ID.String(), b.ID.String()) })
	return r, exposed
}

// applications are the addresses that inbound chains forward to, by workload.
func (s *state) applications() map[string]netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]netip.AddrPort{}
	for _, l := range s.inForce {
		if l.Direction != listener.Inbound {
			continue
		}
		for i := range l.Chains {
			one := &listener.Config{Workload: l.Workload, Chains: l.Chains[i : i+1]}
			ids := workloadsOf(one)
			refs := config.ListenerRefs(one)
			if len(ids) == 0 || len(refs.Clusters) != 1 {
				continue
			}
			if app, ok := onlyEndpoint(s.clusterConfigs[refs.Clusters[0]]); ok {
				out[ids[len(ids)-1]] = app
			}
		}
	}
	return out
}

func onlyEndpoint(c *cluster.Config) (netip.AddrPort, bool) {
	if c == nil || c.Type != cluster.Static || c.Endpoints == nil || len(c.Endpoints.Localities) != 1 || len(c.Endpoints.Localities[0].Endpoints) != 1 {
		return netip.AddrPort{}, false
	}
	e := c.Endpoints.Localities[0].Endpoints[0]
	a, err := netip.ParseAddrPort(net.JoinHostPort(e.Host, strconv.Itoa(e.Port)))
	return a, err == nil
}

// listening reads the TCP sockets of this network namespace that listen. Where
// the kernel has no such files there is nothing to report.
func listening() ([]netip.AddrPort, error) {
	var out []netip.AddrPort
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		some, err := parseSockets(f)
		_ = f.Close()
		if err != nil {
			return nil, err
		}
		out = append(out, some...)
	}
	return out, nil
}

// tcpListen is the kernel's TCP_LISTEN.
const tcpListen = "0A"

// parseSockets reads the format of /proc/net/tcp (proc_net_tcp in the kernel's
// documentation): addresses are words of four bytes in the host's order.
func parseSockets(r io.Reader) ([]netip.AddrPort, error) {
	var out []netip.AddrPort
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 4 || f[3] != tcpListen {
			continue
		}
		host, port, ok := strings.Cut(f[1], ":")
		raw, err := hex.DecodeString(host)
		n, perr := strconv.ParseUint(port, 16, 16)
		if !ok || err != nil || perr != nil || len(raw) != 4 && len(raw) != 16 {
			continue
		}
		for i := 0; i < len(raw); i += 4 {
			slices.Reverse(raw[i : i+4])
		}
		addr, _ := netip.AddrFromSlice(raw)
		out = append(out, netip.AddrPortFrom(addr.Unmap(), uint16(n)))
	}
	return out, lines.Err()
}

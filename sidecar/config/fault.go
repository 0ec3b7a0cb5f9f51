package config

import (
	"cmp"
	"math"
	"time"

	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"

	"github.com/hauberk-mesh/hauberk/sidecar/filter/fault"
)

// The runtime's keys of faults, where a filter names no others.
const (
	faultDelayShareKey = "fault.http.delay.fixed_delay_percent"
	faultDelayKey      = "fault.http.delay.fixed_duration_ms"
	faultAbortShareKey = "fault.http.abort.abort_percent"
	faultStatusKey     = "fault.http.abort.http_status"
	faultGRPCKey       = "fault.http.abort.grpc_status"
	faultActiveKey     = "fault.http.max_active_faults"
	faultRateShareKey  = "fault.http.rate_limit.response_percent"
)

func (d *decoder) fault(m *faultv3.HTTPFault, path string) (*fault.Config, error) {
	out := &fault.Config{Cluster: m.GetUpstreamCluster()}
	var err error
	if m.GetDelay() != nil {
		if out.Delay, err = d.faultDelay(m, path+".delay"); err != nil {
			return nil, err
		}
	}
	if m.GetAbort() != nil {
		if out.Abort, err = d.faultAbort(m, path+".abort"); err != nil {
			return nil, err
		}
	}
	if m.GetResponseRateLimit() != nil {
		if out.Rate, err = d.faultRate(m, path+".response_rate_limit"); err != nil {
			return nil, err
		}
	}
	if n := m.GetMaxActiveFaults(); n != nil {
		v := n.GetValue()
		out.MaxActive = &v
	}
	if n, ok := d.runtime.integer(cmp.Or(m.GetMaxActiveFaultsRuntime(), faultActiveKey)); ok {
		out.MaxActive = new(uint32(min(n, math.MaxUint32)))
	}
	out.Headers, err = headerMatches(m.GetHeaders(), path+".headers")
	return out, err
}

// faultDelay: where the runtime says for how long or how often, a request says only whether.
func (d *decoder) faultDelay(m *faultv3.HTTPFault, path string) (_ *fault.Delay, err error) {
	c := m.GetDelay()
	out := &fault.Delay{FromHeader: c.GetHeaderDelay() != nil}
	if out.Fixed, err = duration(c.GetFixedDelay(), path+".fixed_delay"); err != nil {
		return nil, err
	}
	if out.Share, err = share(c.GetPercentage(), path+".percentage"); err != nil {
		return nil, err
	}
	out.Unit, _ = shareUnit(c.GetPercentage(), "")
	if s, ok := d.runtime.share(cmp.Or(m.GetDelayPercentRuntime(), faultDelayShareKey)); ok {
		out.Share, out.Settled = s, true
	}
	if ms, ok := d.runtime.integer(cmp.Or(m.GetDelayDurationRuntime(), faultDelayKey)); ok {
		if out.Fixed = time.Duration(min(ms, uint64(math.MaxInt64/time.Millisecond))) * time.Millisecond; out.Fixed == 0 {
			return nil, nil // nothing is held back for no time
		}
	}
	return out, nil
}

func (d *decoder) faultAbort(m *faultv3.HTTPFault, path string) (_ *fault.Abort, err error) {
	c := m.GetAbort()
	out := &fault.Abort{Status: int(c.GetHttpStatus()), FromHeader: c.GetHeaderAbort() != nil, Body: c.GetResponseBody()}
	if g, ok := c.GetErrorType().(*faultv3.FaultAbort_GrpcStatus); ok {
		out.GRPC = &g.GrpcStatus
	}
	for _, s := range []struct {
		key         string
		is          bool
		least, most uint64
	}{
		{cmp.Or(m.GetAbortHttpStatusRuntime(), faultStatusKey), out.GRPC == nil, 200, 599},
		{cmp.Or(m.GetAbortGrpcStatusRuntime(), faultGRPCKey), out.GRPC != nil || out.FromHeader, 0, 16},
	} {
		n, ok := d.runtime.integer(s.key)
		switch {
		case !ok || !s.is:
		case n < s.least || n > s.most:
			return nil, fail(d.runtime.paths[s.key], "%d is no status from %d to %d", n, s.least, s.most)
		case out.FromHeader:
			return nil, fail(d.runtime.paths[s.key], "stands in the place of what requests ask for by %s.header_abort; use one of them", path)
		case out.GRPC != nil:
			out.GRPC = new(uint32(n))
		default:
			out.Status = int(n)
		}
	}
	if out.GRPC != nil && *out.GRPC > 16 {
		return nil, fail(path+".grpc_status", "%d is no status of gRPC", *out.GRPC)
	}
	if out.Share, err = share(c.GetPercentage(), path+".percentage"); err != nil {
		return nil, err
	}
	out.Unit, _ = shareUnit(c.GetPercentage(), "")
	if s, ok := d.runtime.share(cmp.Or(m.GetAbortPercentRuntime(), faultAbortShareKey)); ok {
		out.Share, out.Settled = s, true
	}
	return out, nil
}

func (d *decoder) faultRate(m *faultv3.HTTPFault, path string) (_ *fault.Rate, err error) {
	c := m.GetResponseRateLimit()
	out := &fault.Rate{FromHeader: c.GetHeaderLimit() != nil, KiB: uint32(min(c.GetFixedLimit().GetLimitKbps(), math.MaxUint32))}
	if out.Share, err = share(c.GetPercentage(), path+".percentage"); err != nil {
		return nil, err
	}
	out.Unit, _ = shareUnit(c.GetPercentage(), "")
	if s, ok := d.runtime.share(cmp.Or(m.GetResponseRateLimitPercentRuntime(), faultRateShareKey)); ok {
		out.Share, out.Settled = s, true
	}
	return out, nil
}
